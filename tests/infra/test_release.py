"""scripts/release.sh: with the real binary, in a repository of its own, and a docker and a gh that log their arguments."""

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import threading
import tomllib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from prop import BINARY, ROOT, running_prop

VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
TAG = f"v{VERSION}"
PLATFORM = {"x86_64": "linux-amd64", "aarch64": "linux-arm64"}.get(os.uname().machine, "")
OTHER = "linux-arm64" if PLATFORM == "linux-amd64" else "linux-amd64"
# The tests' binary is built on this machine, and may require its glibc.
GLIBC = os.confstr("CS_GNU_LIBC_VERSION").split()[1]
FILES = """
    Cargo.lock Cargo.toml LICENSE README.md docker/Dockerfile docs/openapi.json prop.toml.example
    scripts/build.sh scripts/lib/aws.sh scripts/lib/common.sh scripts/lib/ecr.sh scripts/release.sh
""".split()
DIGEST = "sha256:" + "d" * 64
CHANGELOG = f"""# Changelog

## [Unreleased]

## [{VERSION}] - 2026-12-01

### Added

- Sliced bread.

## [0.0.1] - 2026-01-01

- The first.

[Unreleased]: https://example.org/
[{VERSION}]: https://example.org/
"""

# Builds a binary that prints what BUILT says; knows the tags that were created.
DOCKER = """#!/usr/bin/env bash
set -euo pipefail
case "$*" in *--password-stdin*) cat >"$LOG.password" ;; esac
[ "$*" = info ] || [ "$*" = "buildx version" ] || echo "docker $*" >>"$LOG"
case "$*" in
    "buildx build "*"--output "*)
        directory=$(sed -E 's/.*--output ([^ ]+).*/\\1/' <<<"$*")
        mkdir -p "$directory"
        printf '#!/bin/sh\\necho "%s"\\n' "$BUILT" >"$directory/prop"
        chmod +x "$directory/prop"
        ;;
    "buildx imagetools create "*) touch "$LOG.pushed" ;;
    "buildx imagetools inspect "*)
        [ -e "$LOG.pushed" ] || exit 1
        echo '{"mediaType": "application/vnd.oci.image.index.v1+json", "digest": "DIGEST"}'
        ;;
esac
""".replace("DIGEST", DIGEST)

GH = """#!/usr/bin/env bash
set -euo pipefail
case "$1 $2" in
    "release view") [ -n "${RELEASED:-}" ] ;;
    "release create")
        printf '%s\\n' "$*" >>"$LOG"
        cat "$(sed -E 's/.*--notes-file ([^ ]+).*/\\1/' <<<"$*")" >"$LOG.notes"
        ;;
esac
"""


class Workplace:
    """A clone of a repository whose main is ready for the release: what to change, a test changes."""

    def __init__(self, directory: Path):
        self.tree, self.log, self.dist = directory / "tree", directory / "log", directory / "tree/target/dist"
        for name in FILES:
            (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.tree / name)
        (self.tree / ".gitignore").write_text("target/\n")
        (self.tree / "CHANGELOG.md").write_text(CHANGELOG)
        (directory / "bin").mkdir()
        for name, text in {"docker": DOCKER, "gh": GH}.items():
            (directory / "bin" / name).write_text(text)
            (directory / "bin" / name).chmod(0o755)
        self.environment = {
            "PATH": f"{directory}/bin:{os.environ['PATH']}",
            "HOME": str(directory),
            "LOG": str(self.log),
            "GLIBC_MAX": GLIBC,
            "GIT_CONFIG_COUNT": "2",
            "GIT_CONFIG_KEY_0": "user.name",
            "GIT_CONFIG_VALUE_0": "Dana",
            "GIT_CONFIG_KEY_1": "user.email",
            "GIT_CONFIG_VALUE_1": "dana@example.org",
        }
        self.git("init", "--quiet", "--initial-branch", "main")
        self.git("remote", "add", "origin", str(directory / "origin.git"))
        subprocess.run(["git", "init", "--quiet", "--bare", directory / "origin.git"], check=True)
        self.commit()

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=self.tree, env=self.environment, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self, push: bool = True) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "Change something")
        if push:
            self.git("push", "--quiet", "origin", "main")

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.tree / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    def run(self, *arguments: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess:
        command = [self.tree / "scripts/release.sh", *arguments]
        done = subprocess.run(command, env=self.environment | variables, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, f"{arguments} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done

    def calls(self) -> list[str]:
        """The calls of docker and gh."""
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The binary that cargo has built for the tests, without symbols, as a release's is."""
    stripped = tmp_path_factory.mktemp("binary") / "prop"
    subprocess.run(["strip", "-o", stripped, BINARY], check=True)
    return str(stripped)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, binary: str) -> Path:
    """The archive and its checksum, packed once: it takes seconds."""
    workplace = Workplace(tmp_path_factory.mktemp("packed"))
    workplace.run("archive", PLATFORM, binary)
    return workplace.dist


@pytest.fixture
def archive(workplace: Workplace, packed: Path) -> Path:
    """A copy of the archive, where the scripts look for it."""
    shutil.copytree(packed, workplace.dist)
    return workplace.dist / f"prop-{PLATFORM}.tar.gz"


# --- The version


def test_every_place_names_the_version_in_cargo_toml(tmp_path: Path):
    printed = subprocess.run([BINARY, "--version"], check=True, capture_output=True, text=True).stdout
    assert printed.startswith(f"prop {VERSION} (")
    with running_prop(tmp_path) as prop:
        assert prop.get("/version")["version"] == VERSION
        assert prop.get("/openapi.json")["info"]["version"] == VERSION


def test_the_changelog_is_one():
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d( \[YANKED\])?", heading) for heading in headings[1:]), headings
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    linked = re.findall(r"^\[(.+)\]: https://", text, re.MULTILINE)
    assert linked == [re.match(r"\[(.+?)\]", heading)[1] for heading in headings]
    # A link into the repository would lead nowhere from the notes of a release.
    assert not re.search(r"\]\((?!https://)", text)


def test_check_accepts_a_release_whose_parts_agree(workplace: Workplace):
    assert f"the next release is {VERSION}" in workplace.run("check").stderr
    workplace.git("tag", "--annotate", TAG, "--message", "prop")
    assert f"{TAG} can be released" in workplace.run("check", TAG).stderr
    assert f"{TAG} is released" in workplace.run("check", code=5).stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("Cargo.lock", f'name = "prop"\nversion = "{VERSION}"', 'name = "prop"\nversion = "0.0.9"'), "Cargo.lock has version 0.0.9"),
        (("docs/openapi.json", f'"version": "{VERSION}"', '"version": "0.0.9"'), "docs/openapi.json has version 0.0.9"),
        (("CHANGELOG.md", f"## [{VERSION}] - 2026-12-01", "## [9.9.9] - 2026-12-01"), f"no section '## [{VERSION}] - YYYY-MM-DD'"),
        (("CHANGELOG.md", f"## [{VERSION}] - 2026-12-01", f"## [{VERSION}]"), f"no section '## [{VERSION}] - YYYY-MM-DD'"),
        (("CHANGELOG.md", "### Added\n\n- Sliced bread.\n", ""), f"nothing under '## [{VERSION}]'"),
        (("CHANGELOG.md", f"[{VERSION}]: https", f"[{VERSION}x]: https"), f"does not define the link [{VERSION}]"),
        (("CHANGELOG.md", "## [Unreleased]", "## Unreleased"), "no section '## [Unreleased]'"),
        (("Cargo.toml", f'version = "{VERSION}"', 'version = "next"'), "version 'next', which is not X.Y.Z"),
    ],
)
def test_check_refuses_what_does_not_agree(workplace: Workplace, change: tuple[str, str, str], message: str):
    workplace.edit(*change)
    workplace.commit()
    workplace.git("tag", TAG)
    assert message in workplace.run("check", TAG, code=5).stderr


def test_check_refuses_a_wrong_tag(workplace: Workplace):
    assert "is missing here" in workplace.run("check", TAG, code=5).stderr
    workplace.git("tag", "v9.9.9")
    assert f"the tag must be {TAG}" in workplace.run("check", "v9.9.9", code=5).stderr
    assert f"the tag must be {TAG}" in workplace.run("check", VERSION, code=5).stderr
    workplace.git("tag", TAG)
    workplace.commit()
    assert "is not the commit that is checked out" in workplace.run("check", TAG, code=5).stderr


def test_check_refuses_a_commit_that_main_does_not_have(workplace: Workplace):
    workplace.commit(push=False)
    workplace.git("tag", TAG)
    assert "origin/main does not have the commit" in workplace.run("check", TAG, code=5).stderr


def test_check_and_build_refuse_uncommitted_changes(workplace: Workplace):
    (workplace.tree / "README.md").write_text("Something else.\n")
    for command in (["check"], ["build", PLATFORM]):
        assert "uncommitted changes" in workplace.run(*command, code=4).stderr
    assert workplace.calls() == []


def test_notes_are_the_section_of_the_version(workplace: Workplace):
    (workplace.tree / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [Unreleased]\n\n- Later.\n\n## [1.1.0] - 2026-02-02\n\n### Added\n\n- One.\n\n\n"
        "## [1.10.0] - 2026-01-02\n## [1.0.0] - 2026-01-01\n\n- The first.\n\n[1.1.0]: https://example.org/\n"
    )
    assert workplace.run("notes", "1.1.0").stdout == "### Added\n\n- One.\n"
    assert workplace.run("notes", "1.0.0").stdout == "- The first.\n"
    assert "nothing under '## [1.10.0]'" in workplace.run("notes", "1.10.0", code=5).stderr
    assert "nothing under '## [1.1]'" in workplace.run("notes", "1.1", code=5).stderr


# --- The binary and its archive


def test_an_archive_holds_the_binary_and_what_a_user_needs(workplace: Workplace, archive: Path, tmp_path: Path):
    name = f"prop-{PLATFORM}"
    with tarfile.open(archive) as tar:
        found = {member.name: oct(member.mode) for member in tar if member.isfile()}
        assert all(member.uid == member.gid == 0 for member in tar)
        tar.extractall(tmp_path / "unpacked", filter="data")
    assert found == {f"{name}/{file}": "0o644" for file in ("LICENSE", "README.md", "prop.toml.example")} | {f"{name}/prop": "0o755"}
    printed = subprocess.run([tmp_path / "unpacked" / name / "prop", "--version"], env={}, check=True, capture_output=True, text=True)
    assert printed.stdout.startswith(f"prop {VERSION} (")
    assert (workplace.dist / "SHA256SUMS").read_text() == f"{hashlib.sha256(archive.read_bytes()).hexdigest()}  {archive.name}\n"


def test_the_same_files_make_the_same_archive(workplace: Workplace, binary: str):
    small = Path(binary).with_name("small")
    shutil.copy("/bin/true", small)
    workplace.run("archive", "macos-arm64", str(small))
    archive = workplace.dist / "prop-macos-arm64.tar.gz"
    first = archive.read_bytes()
    for path in (small, workplace.tree / "README.md"):
        os.utime(path, (0, 0))
    workplace.run("archive", "macos-arm64", str(small))
    assert archive.read_bytes() == first


def test_archive_refuses_another_version_and_another_processor(workplace: Workplace, binary: str):
    assert f"not a binary for {OTHER}" in workplace.run("archive", OTHER, binary, code=1).stderr
    assert f"not a binary for {PLATFORM}" in workplace.run("archive", PLATFORM, "README.md", code=1).stderr
    assert "release.sh build" in workplace.run("archive", PLATFORM, code=1).stderr
    workplace.edit("Cargo.toml", f'version = "{VERSION}"', 'version = "9.9.9"')
    assert "but 'prop 9.9.9 ' is to be released" in workplace.run("archive", PLATFORM, binary, code=5).stderr
    assert not workplace.dist.exists() or not list(workplace.dist.glob("*.tar.gz"))


def test_archive_refuses_a_binary_that_requires_a_later_glibc(workplace: Workplace, tmp_path: Path):
    (tmp_path / "late.c").write_text("#include <stdlib.h>\nint main(void) { return arc4random() == 0; }\n")
    subprocess.run(["cc", "-o", tmp_path / "late", tmp_path / "late.c"], check=True)
    error = workplace.run("archive", PLATFORM, str(tmp_path / "late"), code=1, GLIBC_MAX="2.34").stderr
    assert "requires glibc 2.36, but releases must run with 2.34" in error


def test_a_changed_archive_is_found(workplace: Workplace, archive: Path):
    assert "1 archives match" in workplace.run("verify").stderr
    content = archive.read_bytes()
    archive.write_bytes(content + b"\0")
    assert "differs from SHA256SUMS" in workplace.run("verify", code=1).stderr
    archive.write_bytes(content)
    shutil.copy(archive, workplace.dist / "prop-more.tar.gz")
    assert "does not list prop-more.tar.gz" in workplace.run("verify", code=1).stderr


def test_an_archive_with_something_else_in_it_is_found(workplace: Workplace, archive: Path):
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(ROOT / "LICENSE", f"prop-{PLATFORM}/prop")
    (workplace.dist / "SHA256SUMS").write_text(f"{hashlib.sha256(archive.read_bytes()).hexdigest()}  {archive.name}\n")
    assert "does not hold exactly prop" in workplace.run("verify", code=1).stderr


def test_the_documented_commands_install_a_binary_that_starts(workplace: Workplace, archive: Path, tmp_path: Path):
    """The block of docs/releasing.md as it stands there, from another server."""
    block = re.search(r"\*\*Binary\*\*.*?```sh\n(.*?)```", (ROOT / "docs/releasing.md").read_text(), re.DOTALL)[1]
    released = "https://github.com/prop-ledger/prop/releases/latest/download"
    assert block.count(released) == 2 and block.endswith("./prop\n")
    handler = partial(SimpleHTTPRequestHandler, directory=workplace.dist)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        block = block.replace(released, f"http://127.0.0.1:{server.server_port}").replace("linux-amd64", PLATFORM)
        home, output = tmp_path / "home", tmp_path / "output"
        home.mkdir()
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "TERM": "dumb", "PORT": "0"}
        with output.open("wb") as file:
            command = ["bash", "-ec", block.replace("\n./prop", "\nexec ./prop")]
            process = subprocess.Popen(command, cwd=home, env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            key = first_key(process, output)
        finally:
            process.terminate()
            process.wait(timeout=60)
            server.shutdown()
    assert key and (home / f"prop-{PLATFORM}/prop.db").exists()
    assert f"prop-{PLATFORM}.tar.gz: OK" in output.read_text()


def first_key(process: subprocess.Popen, output: Path) -> str:
    """Waits for the greeting of a new ledger; the key that it shows."""
    for _ in range(600):
        if key := re.search(r"prop_\w{20,}", output.read_text()):
            return key[0]
        assert process.poll() is None, output.read_text()
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            pass
    raise AssertionError(output.read_text())


def test_build_compiles_the_commit_in_the_dockerfile_s_build_stage(workplace: Workplace):
    sha = workplace.git("rev-parse", "HEAD")
    workplace.run("build", PLATFORM, BUILT=f"prop {VERSION} ({sha})")
    assert workplace.calls() == [
        f"docker buildx build --file docker/Dockerfile --target binary --platform {PLATFORM.replace('-', '/')}"
        f" --build-arg BUILD_GIT_SHA={sha} --output {workplace.dist}/{PLATFORM} ."
    ]
    assert "is to be released" in workplace.run("build", PLATFORM, BUILT=f"prop {VERSION} ({'0' * 40})", code=5).stderr


def test_the_dockerfile_has_what_build_names():
    dockerfile = (ROOT / "docker/Dockerfile").read_text()
    assert re.search(r"^FROM scratch AS binary$", dockerfile, re.MULTILINE)
    assert re.search(r"^ARG BUILD_GIT_SHA$", dockerfile, re.MULTILINE)


# --- The image


@pytest.fixture
def binaries(workplace: Workplace) -> None:
    for architecture in ("amd64", "arm64"):
        (workplace.dist / f"linux-{architecture}").mkdir(parents=True, exist_ok=True)
        (workplace.dist / f"linux-{architecture}/prop").write_text(architecture)


@pytest.mark.usefixtures("binaries")
def test_an_image_is_made_of_the_binaries_for_both_processors(workplace: Workplace):
    done = workplace.run("image", GITHUB_TOKEN="a-token", GITHUB_ACTOR="dana")
    assert done.stdout == f"{DIGEST}\n"
    image = "ghcr.io/prop-ledger/prop"
    calls = workplace.calls()
    assert calls[0] == "docker login ghcr.io --username dana --password-stdin"
    assert (workplace.log.parent / "log.password").read_text() == "a-token\n" and "a-token" not in done.stderr
    builds = [line for line in calls if " buildx build " in line]
    assert [re.search(r"--platform (\S+)", line)[1] for line in builds] == ["linux/amd64", "linux/arm64"]
    assert all(re.search(r" --build-context build=\S+/(amd64|arm64) .*--load", line) for line in builds)
    assert [line for line in calls if " push " in line] == [f"docker push --quiet {image}:{VERSION}-{one}" for one in ("amd64", "arm64")]
    assert [line for line in calls if " create " in line] == [
        f"docker buildx imagetools create --tag {image}:{VERSION} --tag {image}:{VERSION.rpartition('.')[0]} --tag {image}:latest"
        f" {image}:{VERSION}-amd64 {image}:{VERSION}-arm64"
    ]

    # Run again, it finds the image.
    workplace.log.unlink()
    assert workplace.run("image").stdout == f"{DIGEST}\n"
    assert all(" inspect " in line for line in workplace.calls())


@pytest.mark.usefixtures("binaries")
@pytest.mark.parametrize(("version", "tags"), [("0.2.1", ["0.2.1", "0.2"]), ("1.0.0-rc.1", ["1.0.0-rc.1"]), ("0.10.0", ["0.10.0", "0.10", "latest"])])
def test_latest_is_the_newest_stable_release(workplace: Workplace, version: str, tags: list[str]):
    for tag in ("v0.3.0", "v0.9.0", "v0.11.0-rc.1"):
        workplace.git("tag", tag)
    workplace.edit("Cargo.toml", f'version = "{VERSION}"', f'version = "{version}"')
    workplace.commit()
    workplace.run("image")
    [created] = [line for line in workplace.calls() if " create " in line]
    assert re.findall(r"--tag \S+:(\S+)", created) == tags


def test_an_image_needs_both_binaries(workplace: Workplace):
    assert "release.sh build linux-amd64" in workplace.run("image", code=1).stderr
    assert workplace.calls() == []


# --- The release on GitHub


@pytest.mark.usefixtures("archive")
def test_publish_creates_a_release_with_notes_and_archives(workplace: Workplace):
    workplace.run("publish", TAG)
    [created] = workplace.calls()
    assert created.startswith(f"release create {TAG} --verify-tag --title prop {VERSION} --notes-file ")
    assert created.endswith(f" --latest {workplace.dist}/prop-{PLATFORM}.tar.gz {workplace.dist}/SHA256SUMS")
    assert (workplace.log.parent / "log.notes").read_text() == "### Added\n\n- Sliced bread.\n"


@pytest.mark.usefixtures("archive")
def test_publish_refuses_what_is_released_or_changed(workplace: Workplace, archive: Path):
    assert f"GitHub has a release {TAG} already" in workplace.run("publish", TAG, code=6, RELEASED="yes").stderr
    assert f"the tag must be {TAG}" in workplace.run("publish", "v9.9.9", code=5).stderr
    archive.write_bytes(archive.read_bytes()[:-1])
    assert "differs from SHA256SUMS" in workplace.run("publish", TAG, code=1).stderr
    assert workplace.calls() == []


@pytest.mark.usefixtures("archive", "binaries")
def test_a_dry_run_changes_nothing(workplace: Workplace):
    before = sorted(workplace.dist.rglob("*"))
    for command in (["build", PLATFORM], ["build", "macos-arm64"], ["image"], ["publish", TAG]):
        assert "would run: " in workplace.run("--dry-run", *command).stderr
    assert [line for line in workplace.calls() if " inspect " not in line] == []
    assert sorted(workplace.dist.rglob("*")) == before


def test_wrong_arguments_are_named(workplace: Workplace):
    for arguments, message in {
        (): "A command is missing.",
        ("deploy",): "Unknown command 'deploy'",
        ("--force", "check"): "Unexpected option '--force'.",
        ("build",): "build requires an argument.",
        ("build", "windows"): "'windows' is not a platform",
        ("verify", "more"): "Unexpected argument 'more'.",
    }.items():
        assert message in workplace.run(*arguments, code=2).stderr


def test_workflow_and_documents_name_the_script_s_commands_and_platforms(workplace: Workplace):
    script = (ROOT / "scripts/release.sh").read_text()
    platforms = re.search(r'PLATFORMS="(.*)"', script)[1].split()
    commands = set(re.findall(r"^  (\w+) ?.*  \w", workplace.run("--help").stdout.partition("Options:")[0], re.MULTILINE))
    workflow = (ROOT / ".github/workflows/release.yml").read_text()
    assert re.findall(r"\{platform: (\S+),", workflow) == platforms
    assert f"for platform in {' '.join(platforms)};" in workflow
    used = re.findall(r"release\.sh (\w+)", workflow)
    assert used == ["check", "build", "archive", "verify", "image", "publish"] and set(used) <= commands
    document = (ROOT / "docs/releasing.md").read_text()
    assert all(f"`{platform}`" in document for platform in platforms)
    assert f"glibc {re.search(r'GLIBC_MAX:=([.0-9]+)', script)[1]} or later" in document
