"""docker/compose.yaml, as far as it can be tried without Docker: prop starts with what it sets."""

import re
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
import yaml

from postgres import free_port, programs, running_postgres
from prop import BINARY, ROOT, STARTS_WITHIN_SECONDS

COMPOSE = ROOT / "docker" / "compose.yaml"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text())["services"]


def test_prop_accepts_its_settings(services: dict[str, Any], tmp_path: Path) -> None:
    settings = dict(services["prop"]["environment"])
    urls = ("DATABASE_URL", "MIGRATE_DATABASE_URL")
    serving, owner = (urlsplit(settings[name]) for name in urls)
    server = services[owner.hostname]["environment"]
    assert (server["POSTGRES_USER"], server["POSTGRES_DB"]) == (owner.username, owner.path[1:]) == ("prop", "prop")
    assert (serving.hostname, serving.path) == (owner.hostname, owner.path)
    assert serving.username == "prop_app"  # not the owner
    with running_postgres() as postgres_port:
        port = free_port()
        settings |= {name: settings[name].replace("@database/", f"@127.0.0.1:{postgres_port}/") for name in urls} | {"PORT": str(port)}
        output = tmp_path / "output"
        with output.open("wb") as file:
            process = subprocess.Popen([BINARY], env=settings, cwd=tmp_path, stdout=file, stderr=subprocess.STDOUT)
        try:
            wait_until_ready(process, f"http://127.0.0.1:{port}/readyz", output)
            here = {"/prop": [str(BINARY)], "pg_isready": [str(programs() / "pg_isready"), f"--port={postgres_port}"]}
            for command in health_checks(services):
                checked = subprocess.run([*here[command[0]], *command[1:]], env=settings, capture_output=True, text=True)
                assert checked.returncode == 0, checked
            assert connected_roles(postgres_port) == {"prop_app"}, "the owner has left"
        finally:
            process.terminate()
            process.wait(timeout=60)


def connected_roles(port: int) -> set[str]:
    """Who has connections, but for this look at them."""
    query = "SELECT DISTINCT usename FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    command = [programs() / "psql", "--host=127.0.0.1", f"--port={port}", "--username=prop", "--tuples-only", "--no-align", "--command", query, "prop"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def wait_until_ready(process: subprocess.Popen, url: str, output: Path) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(url):  # anything but success raises
                return
        except URLError:
            time.sleep(0.05)
    raise AssertionError(f"prop is not ready:\n{output.read_text()[-4000:]}")


def health_checks(services: dict[str, Any]) -> list[list[str]]:
    """The commands that Compose runs, and that of the image."""
    tests = [service["healthcheck"]["test"] for service in services.values() if "healthcheck" in service]
    assert all(test[0] == "CMD" for test in tests), "without a shell"
    image = re.search(r"^HEALTHCHECK .*CMD \[(.*)\]$", dockerfile(services).read_text(), re.MULTILINE)
    return [*(test[1:] for test in tests), yaml.safe_load(f"[{image[1]}]")]


def dockerfile(services: dict[str, Any]) -> Path:
    build = services["prop"]["build"]
    return (COMPOSE.parent / build["context"] / build["dockerfile"]).resolve()


def test_the_image_is_built_from_what_is_there(services: dict[str, Any]) -> None:
    build = services["prop"]["build"]
    assert (COMPOSE.parent / build["context"]).resolve() == ROOT
    text = dockerfile(services).read_text()
    stages = re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE)
    assert build.get("target", stages[0]) in stages
    # The port that is published is the one that the image exposes, where prop listens by default.
    (published,) = services["prop"]["ports"]
    assert published.rpartition(":")[2] == re.search(r"^EXPOSE (\d+)$", text, re.MULTILINE)[1]
    assert re.search(rf"^port = {published.rpartition(':')[2]}$", (ROOT / "prop.toml.example").read_text(), re.MULTILINE)


def test_what_a_service_names_is_declared(services: dict[str, Any]) -> None:
    declared = yaml.safe_load(COMPOSE.read_text())["volumes"]
    for name, service in services.items():
        assert set(service.get("depends_on", [])) <= services.keys(), name
        assert {volume.partition(":")[0] for volume in service.get("volumes", [])} <= declared.keys(), name
