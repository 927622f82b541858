"""Builds the image of docker/Dockerfile and runs it, with buildah and runc: neither needs a daemon. No base image is pulled: the
stages that come from elsewhere are replaced by stand-ins made here, by the means that docker build has for it too."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prop import BINARY, ROOT

DOCKERFILE = ROOT / "docker" / "Dockerfile"
STARTS_WITHIN_SECONDS = 60
# runc wants root; on a machine of CI that is had without a password.
AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]


def runnable() -> str | None:
    """What is missing here to build and run images; nothing when all is there."""
    for tool in ("buildah", "runc", "ldd"):
        if not shutil.which(tool):
            return f"there is no {tool}"
    if AS_ROOT and subprocess.run([*AS_ROOT, "true"], capture_output=True).returncode != 0:
        return "runc wants root, or sudo without a password"
    return None


class Storage:
    """Images and containers apart from those of the machine."""

    def __init__(self, directory: Path):
        self.directory = directory
        settings = directory / "storage.conf"
        settings.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{directory}/images"\nrunroot = "{directory}/run"\n')
        self.environment = {
            "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
            "HOME": str(directory),
            "CONTAINERS_STORAGE_CONF": str(settings),
            "BUILDAH_ISOLATION": "chroot",
            "BUILDER": "buildah",
        }

    def run(self, *command: str | Path) -> str:
        """What the command says on standard output; anything but success is a failure."""
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        done = subprocess.run([*AS_ROOT, "env", "-i", *variables, *command], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout.strip()

    def inspect(self, image: str) -> dict[str, Any]:
        """The image's configuration, in Docker's terms."""
        return json.loads(self.run("buildah", "inspect", "--type", "image", image))["Docker"]["config"]

    def build(self, *arguments: str) -> str:
        """Builds with scripts/build.sh, on stand-ins; answers the image's name."""
        return self.run(ROOT / "scripts" / "build.sh", "--no-push", "--allow-dirty", *arguments, "--", *self.stand_ins())

    def stand_ins(self) -> list[str]:
        """For the stage `build`, the binary that cargo has built for the tests; for distroless, what this binary needs to run and no
        more; for the Lambda adapter, a file."""
        base, adapter = referred("gcr.io/distroless/cc"), referred("public.ecr.aws/awsguru/aws-lambda-adapter")
        built, rootfs, extension = (self.directory / name for name in ("built", "rootfs", "extension"))
        if not built.exists():
            put(BINARY, built / "src/target/release/prop")
            subprocess.run(["strip", built / "src/target/release/prop"], check=True)
            (built / "data").mkdir()
            make_rootfs(rootfs)
            put("/dev/null", extension / "lambda-adapter")
            recipe = self.directory / "rootfs.Dockerfile"
            recipe.write_text("FROM scratch\nCOPY . /\n")
            self.run("buildah", "build", "--quiet", "--file", recipe, "--tag", "localhost/distroless", rootfs)
        contexts = {"build": built, base: "docker-image://localhost/distroless:latest", adapter: extension}
        return [f"--build-context={name}={place}" for name, place in contexts.items()]


def referred(image: str) -> str:
    """An image as the Dockerfile names it, with tag and digest."""
    found = re.search(rf"{re.escape(image)}\S+", DOCKERFILE.read_text())
    assert found, f"the Dockerfile does not use {image}"
    return found[0]


def make_rootfs(rootfs: Path) -> None:
    """As distroless is, as far as prop can tell: glibc, a user, and how names are looked up."""
    libraries = subprocess.run(["ldd", BINARY], check=True, capture_output=True, text=True).stdout
    for library in re.findall(r"(/\S+)", libraries):
        put(library, rootfs / library.lstrip("/"))
    for name, content in {
        "etc/passwd": "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n",
        "etc/group": "root:x:0:\nnonroot:x:65532:\n",
        "etc/nsswitch.conf": "hosts: files dns\n",
        "etc/hosts": "",
    }.items():
        (rootfs / name).parent.mkdir(parents=True, exist_ok=True)
        (rootfs / name).write_text(content)
    for name in ("dev", "proc", "tmp", "home/nonroot"):
        (rootfs / name).mkdir(parents=True)
    (rootfs / "tmp").chmod(0o1777)


def put(source: str | Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


class Container:
    """A running container: the network is this machine's, everything else its own."""

    def __init__(self, storage: Storage, name: str, process: subprocess.Popen, output: Path, port: int):
        self.storage, self.name, self.process, self.output, self.port = storage, name, process, output, port

    def runc(self, *arguments: str) -> subprocess.CompletedProcess:
        """Something that runc does with it."""
        command = [*AS_ROOT, "runc", "--root", str(self.storage.directory / "runc"), *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    def execute(self, *command: str) -> subprocess.CompletedProcess:
        """Runs a command inside, as the container's user."""
        return self.runc("exec", self.name, *command)

    def get(self, path: str, key: str | None = None) -> tuple[int, Any]:
        """The status of the answer, and its JSON."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers={"Authorization": f"Bearer {key}"} if key else {})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def wait_until_ready(self) -> None:
        """Until /readyz answers 200."""
        deadline = time.monotonic() + STARTS_WITHIN_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.get("/readyz")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"not ready:\n{self.output.read_text()[-4000:]}")

    def stop(self) -> float:
        """Sends the signal that the platform sends; answers the seconds until it ended, which must be by itself and well."""
        started = time.monotonic()
        self.runc("kill", self.name, "TERM")
        assert self.process.wait(timeout=60) == 0, self.output.read_text()[-4000:]
        return time.monotonic() - started


@contextmanager
def running_container(
    storage: Storage,
    image: str,
    port: int,
    arguments: tuple[str, ...] = (),
    files: dict[str, str | bytes] | None = None,
    volumes: dict[str, Path] | None = None,
    **environment: str,
) -> Iterator[Container]:
    """The image as ECS runs it: by its own user, entry point and environment, the root file system read-only, no capabilities.
    `files` are there beside what the image has; /tmp can be written to. `volumes` are directories by the path at which they
    are mounted; as in Docker, a new one takes the owner and the mode of the image's directory at that path."""
    config = storage.inspect(image)
    source = storage.run("buildah", "from", image)
    bundle = Path(tempfile.mkdtemp(dir=storage.directory))
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "noexec", "mode=1777"]},
    ]
    for number, (path, content) in enumerate((files or {}).items()):
        place = bundle / str(number)
        place.write_bytes(content if isinstance(content, bytes) else content.encode())
        mounts.append({"destination": path, "type": "bind", "source": str(place), "options": ["bind", "ro"]})
    root = storage.run("buildah", "mount", source)
    for path, volume in (volumes or {}).items():
        if not volume.exists():
            storage.run("mkdir", volume)
            storage.run("chown", f"--reference={root}{path}", volume)
            storage.run("chmod", f"--reference={root}{path}", volume)
        mounts.append({"destination": path, "type": "bind", "source": str(volume), "options": ["bind", "rw"]})
    user, group = (int(part) for part in config["User"].split(":"))
    process = {
        "user": {"uid": user, "gid": group},
        "args": [*config["Entrypoint"], *arguments],
        "env": [*config["Env"], f"PORT={port}", *(f"{name}={value}" for name, value in environment.items())],
        "cwd": config["WorkingDir"] or "/",
        "capabilities": {},
        "noNewPrivileges": True,
    }
    (bundle / "config.json").write_text(
        json.dumps(
            {
                "ociVersion": "1.0.2",
                "process": process,
                "root": {"path": root, "readonly": True},
                "mounts": mounts,
                "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc")]},
            }
        )
    )
    output = bundle / "output"
    command = [*AS_ROOT, "runc", "--root", storage.directory / "runc", "run", "--bundle", bundle, bundle.name]
    with output.open("wb") as file:
        running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
    container = Container(storage, bundle.name, running, output, port)
    try:
        yield container
    finally:
        container.runc("delete", "--force", bundle.name)
        running.wait(timeout=60)
        storage.run("buildah", "rm", source)
