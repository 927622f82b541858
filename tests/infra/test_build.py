"""scripts/build.sh: with the real AWS CLI against a stand-in for ECR, and a docker that logs its arguments."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prop import ROOT

REPOSITORY = "prop-built-by-a-test"
# The AWS CLI is the one of these tests.
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
# Pushes as docker does, as far as ECR can tell: a manifest by a tag. It is another one each time.
DOCKER = """#!/usr/bin/env bash
set -euo pipefail
echo "$*" >>"$DOCKER_LOG"
digest() { head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n'; }
case "$1" in
    info) exit "${DAEMON:-0}" ;;
    login) [ -n "$(cat)" ] ;;
    buildx)
        [ "$2" = build ] || exit 0
        echo "what docker prints on standard output"
        [ -z "${BUILD_FAILS:-}" ] || exit 7
        tag=$(grep -o -e '--tag [^ ]*' <<<"$*")
        [[ " $* " != *" --push "* ]] ||
            aws ecr put-image --repository-name "$ECR_REPOSITORY" --image-tag "${tag##*:}" --image-manifest "$(cat <<END
{"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
 "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": 1, "digest": "sha256:$(digest)"},
 "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": 1, "digest": "sha256:$(digest)"}]}
END
            )" >/dev/null
        ;;
esac
"""


class Workplace:
    """A repository of its own with the scripts in it, a docker, and an ECR."""

    def __init__(self, directory: Path, aws: str):
        self.directory, self.tree, self.log = directory, directory / "tree", directory / "docker.log"
        self.environment = {
            "PATH": f"{directory}/bin:{PATH}",
            "HOME": str(directory),
            "AWS_ENDPOINT_URL": aws,
            "ECR_REPOSITORY": REPOSITORY,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "DOCKER_LOG": str(self.log),
        }
        (directory / "bin").mkdir()
        self.program("docker", DOCKER)
        scripts = [f"scripts/{name}.sh" for name in ("build", "lib/common", "lib/aws", "lib/ecr")]
        for path in (*scripts, "docker/Dockerfile", "Cargo.toml"):
            (self.tree / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, self.tree / path)
        self.git("init", "--quiet")
        self.commit()

    def program(self, name: str, text: str) -> None:
        """Puts a program on the path."""
        path = self.directory / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def git(self, *arguments: str) -> str:
        command = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org", *arguments]
        return subprocess.run(command, cwd=self.tree, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self) -> str:
        """A new commit, with nothing else new; its SHA."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "work")
        return self.git("rev-parse", "HEAD")

    def build(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [self.tree / "scripts" / "build.sh", *arguments], env=self.environment | environment, capture_output=True, text=True, timeout=120
        )

    def built(self, *arguments: str, **environment: str) -> str:
        """What it prints when all goes well."""
        done = self.build(*arguments, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def builds(self) -> list[str]:
        """The builds that docker was started with."""
        return [line for line in self.log.read_text().splitlines() if line.startswith("buildx build")] if self.log.exists() else []

    def aws(self, *arguments: str) -> dict:
        command = ["aws", "--region", "ap-south-1", "--output", "json", *arguments]
        environment = self.environment | {"PATH": PATH}
        return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout or "{}")

    def images(self) -> dict[str, str]:
        """The digest behind each tag in ECR."""
        found = self.aws("ecr", "describe-images", "--repository-name", REPOSITORY)["imageDetails"]
        return {tag: image["imageDigest"] for image in found for tag in image.get("imageTags", [])}


@pytest.fixture
def bare(tmp_path: Path, aws_url: str) -> Workplace:
    """A place whose repository ECR does not have."""
    return Workplace(tmp_path, aws_url)


@pytest.fixture
def place(bare: Workplace) -> Iterator[Workplace]:
    """A place whose repository is in ECR, and empty."""
    bare.aws("ecr", "create-repository", "--repository-name", REPOSITORY, "--image-tag-mutability", "IMMUTABLE")
    yield bare
    bare.aws("ecr", "delete-repository", "--repository-name", REPOSITORY, "--force")


def tag_of(place: Workplace) -> str:
    version = re.search(r'^version = "(.+)"', (place.tree / "Cargo.toml").read_text(), re.MULTILINE)[1]
    return f"{version}-{place.git('rev-parse', 'HEAD')[:12]}"


def test_a_commit_is_built_once_and_its_digest_is_all_that_is_printed(place: Workplace):
    sha = place.git("rev-parse", "HEAD")
    first = place.build()
    assert first.returncode == 0, first.stderr
    digest = place.images()[tag_of(place)]
    assert first.stdout == f"{digest}\n"
    assert "what docker prints" in first.stderr
    [build] = place.builds()
    for part in (f"BUILD_GIT_SHA={sha}", "--platform linux/amd64", "--target prop", "--provenance=false", "--push", f":{tag_of(place)} "):
        assert part in build
    login = next(line for line in place.log.read_text().splitlines() if line.startswith("login"))
    assert login == "login --username AWS --password-stdin 123456789012.dkr.ecr.ap-south-1.amazonaws.com"

    again = place.build()
    assert (again.returncode, again.stdout) == (0, f"{digest}\n")
    assert len(place.builds()) == 1 and "already" in again.stderr

    place.commit()
    assert place.built() != digest
    assert len(place.builds()) == 2


def test_a_version_is_one_more_name_for_the_same_image(place: Workplace):
    digest = place.built("1.4.2")
    assert place.images() == {tag_of(place): digest, "1.4.2": digest}
    assert place.built("1.4.2") == place.built("1.4.3") == digest
    assert place.images()["1.4.3"] == digest and len(place.builds()) == 1

    place.commit()
    refused = place.build("1.4.2")
    assert (refused.returncode, refused.stdout) == (5, "")
    assert "not the image of this commit" in refused.stderr
    assert len(place.builds()) == 1, "nothing is built for a name that can't be had"


def test_the_lambda_target_has_tags_of_its_own(place: Workplace):
    function = place.built("1.0.0", "--target", "lambda")
    assert place.images() == {f"{tag_of(place)}-lambda": function, "1.0.0-lambda": function}
    assert "--target lambda" in place.builds()[0]


def test_json_has_the_same_and_more(place: Workplace):
    answer = json.loads(place.built("--json"))
    assert answer == {
        "image": f"123456789012.dkr.ecr.ap-south-1.amazonaws.com/{REPOSITORY}",
        "tag": tag_of(place),
        "digest": place.images()[tag_of(place)],
        "git_sha": place.git("rev-parse", "HEAD"),
        "built": True,
    }
    assert json.loads(place.built("--json")) == answer | {"built": False}


def test_a_dirty_tree_is_refused_unless_it_is_allowed_and_is_never_the_commits_image(place: Workplace):
    (place.tree / "new").write_text("")
    refused = place.build()
    assert (refused.returncode, refused.stdout, place.builds()) == (4, "", [])
    assert "--allow-dirty" in refused.stderr
    assert place.build("--allow-dirty", "1.4.2").returncode == 2

    place.built("--allow-dirty")
    [tag] = place.images()
    assert re.fullmatch(re.escape(tag_of(place)) + r"-dirty-\d{14}", tag)
    assert f"BUILD_GIT_SHA={place.git('rev-parse', 'HEAD')}-dirty" in place.builds()[0]


def test_a_dry_run_changes_nothing(place: Workplace):
    done = place.build("1.4.2", "--dry-run")
    assert (done.returncode, done.stdout) == (0, "")
    for command in ("docker login", "docker buildx build", "aws ecr put-image"):
        assert f"would run: {command}" in done.stderr
    assert place.images() == {} and place.builds() == []
    digest = place.built()
    assert place.built("--dry-run", "1.4.2") == digest
    assert "1.4.2" not in place.images()


def test_without_a_push_there_is_no_need_of_aws(bare: Workplace):
    bare.program("aws", "#!/bin/sh\nexit 9\n")
    assert bare.built("--no-push") == f"{REPOSITORY}:{tag_of(bare)}"
    assert "--load" in bare.builds()[0] and "--push" not in bare.builds()[0]


def test_options_after_two_dashes_are_the_builders(place: Workplace):
    place.built("--platform", "linux/amd64,linux/arm64", "--", "--cache-from", "type=gha")
    assert "--platform linux/amd64,linux/arm64" in place.builds()[0]
    assert "--cache-from type=gha" in place.builds()[0]


def test_buildah_takes_over_where_docker_has_no_daemon(place: Workplace):
    # Here only the arguments of buildah are recorded; that it builds is tested with the image.
    place.program("buildah", '#!/bin/sh\necho "$*" >>"$DOCKER_LOG"\n[ "$1" != push ] || exit 1\n')
    failed = place.build(DAEMON="1")
    assert failed.returncode == 1 and "The build or the push failed" in failed.stderr
    commands = [line.split()[0] for line in place.log.read_text().splitlines() if not line.startswith(("buildx", "info"))]
    assert commands == ["login", "build", "push"]
    several = place.build("--platform", "linux/amd64,linux/arm64", DAEMON="1")
    assert several.returncode == 3 and "docker buildx" in several.stderr


def test_a_build_that_fails_pushes_nothing_and_reports_it(place: Workplace):
    failed = place.build("1.4.2", BUILD_FAILS="yes")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert place.images() == {}


def test_an_image_that_another_build_has_pushed_is_used(place: Workplace):
    # Another run has pushed the same commit between the check and the push; ECR refuses the second.
    racing = DOCKER.replace(">/dev/null\n", ">/dev/null\n        [[ $* != *--push* ]] || { echo 'tag is immutable' >&2; exit 1; }\n")
    assert racing != DOCKER
    place.program("docker", racing)
    done = place.build()
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == place.images()[tag_of(place)]
    assert "another build has pushed" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--frobnicate"], 2, "unknown option '--frobnicate'"),
        (["--target"], 2, "missing value for --target"),
        (["--target", "moon"], 2, "unknown target 'moon'"),
        (["--platform", "linux/s390x"], 2, "unknown platform 'linux/s390x'"),
        (["--no-push", "--platform", "linux/amd64,linux/arm64"], 2, "only be pushed"),
        (["1.0", "2.0"], 2, "unexpected argument '2.0'"),
        (["a b"], 2, "is not a valid image tag"),
        (["--no-push", "1.0"], 2, "VERSION cannot be combined with --no-push"),
    ],
)
def test_wrong_arguments_are_named(bare: Workplace, arguments: list[str], code: int, message: str):
    done = bare.build(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr and "Traceback" not in done.stderr


def test_a_missing_repository_is_reported(bare: Workplace):
    done = bare.build(ECR_REPOSITORY="elsewhere")
    assert done.returncode == 3 and "Cannot read the ECR repository elsewhere in ap-south-1" in done.stderr
    shutil.rmtree(bare.tree / ".git")
    done = bare.build()
    assert done.returncode == 3 and "is not a git repository" in done.stderr


def test_help_has_examples_and_exit_codes(bare: Workplace):
    text = bare.built("--help")
    assert "Examples:" in text and "Exit codes:" in text
