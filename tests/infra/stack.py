"""Terraform, run on copies of terraform/ with the stand-in for AWS, through the scripts that people use."""

import glob
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import pytest

from identities import ACCOUNT, REGION, credentials  # noqa: F401 (tests take both from here)
from postgres import free_port
from prop import ROOT, generate_key

TERRAFORM = ROOT / "terraform"
SUBJECT_PREFIX = "repo:acme@1001/prop@2002"
# Looked for in everything that Terraform keeps.
PASSWORD = "sentinel-8vM2xQ7rT4kW9zB1nC6d"
APP_PASSWORD = "sentinel-3kD9pL5sV1hN7yJ2fG8w"
BOOTSTRAP_KEY = generate_key()
WEBHOOK_SECRET = "sentinel-6tX4bQ8mZ2cR7vK1nH5j"

# Not in terraform/: nothing there knows of tests. The endpoint and the credentials come by the environment.
OVERRIDE = """\
provider "aws" {
  # A call that the stand-in does not have is answered 500, and would be tried again for minutes.
  max_retries             = 1
  skip_metadata_api_check = true
}
"""


@contextmanager
def stand_in(log: Path) -> Iterator[str]:
    """The address of a fresh stand-in for AWS."""
    port = free_port()
    environment = {**os.environ, "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"}
    environment["STAND_IN_CALLS"] = str(log.with_suffix(".calls"))
    with log.open("wb") as file:
        program = [sys.executable, Path(__file__).with_name("aws_stand_in.py"), str(port)]
        process = subprocess.Popen(program, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, f"moto did not start:\n{log.read_text()[-4000:]}"
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def environment_for(url: str, directory: Path) -> dict[str, str]:
    """The environment in which scripts, Terraform and the AWS CLI reach the stand-in and nothing else.

    The credentials are of nobody, and a proxy that does not exist stands before every address but this machine's own.
    """
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TERM", "TMPDIR") if name in os.environ}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_PAGER": "",
        "HTTPS_PROXY": "http://127.0.0.1:1",
        "HTTP_PROXY": "http://127.0.0.1:1",
        "NO_PROXY": "127.0.0.1,localhost",
        "TERRAFORM_DIR": str(directory),
        "TF_CLI_CONFIG_FILE": str(cli_config(directory)),
        "TF_IN_AUTOMATION": "true",
        "CHECKPOINT_DISABLE": "true",
        "TF_VAR_database_password": PASSWORD,
        "TF_VAR_database_app_password": APP_PASSWORD,
        "TF_VAR_bootstrap_key": BOOTSTRAP_KEY,
        # Receives GitHub's webhooks, and has a public board.
        "TF_VAR_github_webhook_version": "1",
        "TF_VAR_github_webhook_secret": WEBHOOK_SECRET,
        "TF_VAR_extra_environment": '{"PROP_PUBLIC_READ": "true"}',
        "TF_VAR_github_subject_prefix": SUBJECT_PREFIX,
        "TF_VAR_alarm_email": "ops@example.org",
        "NO_COLOR": "1",
    }


def plugin_mirror() -> str | None:
    """A directory of providers on this machine: TF_PLUGIN_DIR, or one found where packages put them."""
    if named := os.environ.get("TF_PLUGIN_DIR"):
        return named
    for depth in range(5):
        for base in ("/opt", "/usr"):
            for found in glob.glob(f"{base}/{'*/' * depth}registry.terraform.io/hashicorp/aws"):
                return str(Path(found).parents[2])
    return None


def cli_config(directory: Path) -> Path:
    """Terraform's own settings: the mirror, or a cache, so that a provider of 700 MB is downloaded once."""
    path = directory.parent / f"{directory.name}.tfrc"
    if mirror := plugin_mirror():
        path.write_text(f'provider_installation {{\n  filesystem_mirror {{\n    path = "{mirror}"\n  }}\n}}\n')
    else:
        cache = ROOT / ".venv" / "terraform-plugins"
        cache.mkdir(parents=True, exist_ok=True)
        path.write_text(f'plugin_cache_dir = "{cache}"\n')
    return path


def copy_of_terraform(directory: Path) -> Path:
    """A copy of terraform/ with its provider installed, the one thing that may need the network."""
    if not shutil.which("terraform"):
        pytest.skip("there is no terraform")
    shutil.copytree(TERRAFORM, directory, ignore=shutil.ignore_patterns(".terraform", "*.tfstate*"))
    environment = {**os.environ, "TF_CLI_CONFIG_FILE": str(cli_config(directory))}
    done = subprocess.run(
        ["terraform", f"-chdir={directory}", "init", "-backend=false", "-input=false", "-lockfile=readonly"],
        env=environment, capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


class Stack:
    """An environment as Terraform has it: `env` for scripts and the AWS CLI, `outputs`, and the `directory` of the copy."""

    def __init__(self, environment: str, url: str, directory: Path):
        self.environment, self.url = environment, url
        self.directory = copy_of_terraform(directory)
        (self.directory / "test_override.tf").write_text(OVERRIDE)
        self.env = environment_for(url, directory)

    def run(self, *command: str | Path, succeeds: bool = True, **variables: str) -> subprocess.CompletedProcess:
        """Runs a command in the project, in this stack's environment; its output is text."""
        environment = {**self.env, **credentials(self.url, self.environment, *command), **variables}
        done = subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        output = f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        assert not succeeds or done.returncode == 0, f"{command} ended with {done.returncode}:\n{output}"
        return done

    def infra(self, command: str, *arguments: str | Path, succeeds: bool = True, **variables: str) -> subprocess.CompletedProcess:
        """Runs scripts/infra.sh on this environment."""
        return self.run("scripts/infra.sh", self.environment, command, *arguments, succeeds=succeeds, **variables)

    def terraform(self, *arguments: str | Path, succeeds: bool = True) -> subprocess.CompletedProcess:
        """Runs Terraform itself, in the copy."""
        return self.run("terraform", f"-chdir={self.directory}", *arguments, succeeds=succeeds)

    def plan(self, name: str, *arguments: str) -> dict[str, Any]:
        """A plan, as JSON; it stays in the copy under this name."""
        self.infra("plan", "--out", self.directory / name, *arguments)
        return json.loads(self.terraform("show", "-json", self.directory / name).stdout)

    def apply(self, name: str) -> None:
        """Does what a plan of this name says."""
        self.infra("apply", self.directory / name)
        self.__dict__.pop("outputs", None)

    @cached_property
    def outputs(self) -> dict[str, Any]:
        """The values of the outputs."""
        return {name: output["value"] for name, output in json.loads(self.infra("output", "--json").stdout).items()}

    def state(self) -> dict[str, dict[str, Any]]:
        """The values of everything there is, by address."""
        values = json.loads(self.terraform("show", "-json").stdout)["values"]
        return {resource["address"]: resource["values"] for resource in values["root_module"]["resources"]}

    def client(self, service: str) -> Any:
        """A client of an AWS service, at the stand-in."""
        return boto3.client(
            service, region_name=REGION, endpoint_url=self.url, aws_access_key_id="nobody", aws_secret_access_key="nothing"
        )
