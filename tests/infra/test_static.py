"""What can be said of terraform/ without applying it."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from prop import ROOT
from stack import TERRAFORM, cli_config, copy_of_terraform

FILES = """
    access_logs alarms alb autoscaling backend backup budget checks dashboard ecr ecs endpoints iam_ecs iam_github kms locals logs
    network outputs providers rds schedule secrets security_groups variables versions waf
""".split()
CHECKOV = ROOT / ".venv" / "checkov" / "bin" / "checkov"


@pytest.fixture(scope="module")
def copy(work) -> Path:
    """A copy of terraform/ as it is, with its provider."""
    return copy_of_terraform(work / "static" / "terraform")


def terraform(directory: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Terraform, which reaches nothing and is given nothing."""
    environment = {"TF_CLI_CONFIG_FILE": str(cli_config(directory)), "PATH": os.environ["PATH"], "CHECKPOINT_DISABLE": "true"}
    return subprocess.run(["terraform", f"-chdir={directory}", *arguments], env=environment, capture_output=True, text=True)


def blocks(kind: str) -> dict[str, str]:
    """The top-level blocks of a kind: name and text."""
    found = {}
    for path in TERRAFORM.glob("*.tf"):
        for name, body in re.findall(rf'^{kind} "([^"]+)"(?: "[^"]+")? \{{\n(.*?)^\}}', path.read_text(), re.MULTILINE | re.DOTALL):
            found[name] = body
    return found


def test_it_is_flat_and_complete():
    assert sorted(path.stem for path in TERRAFORM.glob("*.tf")) == sorted(FILES)
    assert not blocks("module")


def test_it_is_formatted(copy):
    done = terraform(copy, "fmt", "-check", "-recursive", "-diff")
    assert done.returncode == 0, done.stdout


def test_it_is_valid(copy):
    done = json.loads(terraform(copy, "validate", "-json").stdout)
    assert done["valid"] and not done["diagnostics"], done["diagnostics"]


def test_its_own_tests_pass(copy):
    done = terraform(copy, "test", "-no-color")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Success! \d\d passed, 0 failed", done.stdout), done.stdout


def test_every_variable_is_typed_described_and_refuses_nonsense():
    variables = blocks("variable")
    runs = (TERRAFORM / "tests" / "validations.tftest.hcl").read_text()
    for name, body in variables.items():
        assert re.search(r"^  type +=", body, re.MULTILINE) and re.search(r'^  description += ".+"$', body, re.MULTILINE), name
        sentences = re.findall(r'^    error_message = "(.+)"$', body, re.MULTILINE)
        assert len(sentences) == body.count("validation {"), name
        assert all(sentence.endswith(".") for sentence in sentences), f"{name} is refused without a sentence"
        refused = len(re.findall(rf"\bvar\.{name}\b", runs))
        assert refused >= len(sentences), f"{name} has {len(sentences)} validations, and {refused} of them are tested"
        assert sentences or re.search(r"^  type += bool$", body, re.MULTILINE), f"{name} takes anything"


def test_every_output_is_described():
    assert all(re.search(r'^  description = ".+\."$', body, re.MULTILINE) for body in blocks("output").values())


def test_secrets_are_ephemeral():
    for name in ("database_password", "database_app_password", "bootstrap_key", "github_webhook_secret"):
        body = blocks("variable")[name]
        assert "sensitive   = true" in body and "ephemeral   = true" in body
        assert "default" not in body or "default     = null" in body


# What extra_environment can't set: what the task definition and deploy.sh set, or what has to be as it is on ECS.
SET_ELSEWHERE = {
    "environment", "bootstrap_key", "image_digest", "http.host", "http.port", "http.shutdown_seconds",
    "http.keep_alive_seconds",  # alb.tf relies on the default
    "database.url", "database.migrate_url", "database.host", "database.port", "database.name", "database.user", "database.password",
    "database.migrate_user", "database.migrate_password", "database.sslmode", "database.ca_file",
    "database.pool_size",  # variables.tf counts connections by the default
    "github.webhook_secret", "github.webhook_secrets",
    "log.format",  # the metric filters read JSON
}


def test_extra_environment_knows_the_settings_of_prop():
    """Every setting with its section, from prop.toml.example, where the optional ones are commented out."""
    settings, section = set(), ""
    for line in (ROOT / "prop.toml.example").read_text().splitlines():
        if header := re.fullmatch(r"\[([a-z.]+)\]", line):
            section = f"{header[1]}."
        elif setting := re.match(r"(?:# )?([a-z_]+) = ", line):
            settings.add(section + setting[1])
    (listed,) = re.findall(r"^  settings = concat\(\[(.*?)\], \[", (TERRAFORM / "variables.tf").read_text(), re.MULTILINE | re.DOTALL)
    expected = {f"PROP_{name.upper().replace('.', '__')}" for name in settings - SET_ELSEWHERE if not name.startswith("tier.")}
    tiers = {name.split(".")[1] for name in settings if name.startswith("tier.")}
    rules = {name.split(".")[2] for name in settings if name.startswith("tier.")}
    assert len(expected) > 10 and len(tiers) == 4 and len(rules) == 5
    assert set(re.findall(r'"(PROP_[A-Z_]+)"', listed)) == expected
    (product,) = re.findall(r"setproduct\((\[.*?\]), (\[.*?\])\)", (TERRAFORM / "variables.tf").read_text(), re.DOTALL)
    assert [set(re.findall(r"[A-Z_]+", part)) for part in product] == [{tier.upper() for tier in tiers}, {rule.upper() for rule in rules}]


def test_the_lock_file_is_for_every_platform():
    lock = (TERRAFORM / ".terraform.lock.hcl").read_text()
    # One package as it was unpacked here, and the registry's own sums of every platform's archive.
    assert lock.count('"h1:') >= 1 and lock.count('"zh:') >= 14


def test_checkov_finds_nothing():
    done = subprocess.run(
        [CHECKOV, "-d", TERRAFORM, "--framework", "terraform", "--var-file", TERRAFORM / "envs" / "production.tfvars",
         "--skip-download", "--output", "json"],
        capture_output=True, text=True,
    )
    results = json.loads(done.stdout)["results"]
    failed = [f"{check['check_id']} {check['resource']}: {check['check_name']}" for check in results["failed_checks"]]
    assert not failed and len(results["passed_checks"]) > 100, failed
    assert all(len(check["check_result"]["suppress_comment"]) > 20 for check in results["skipped_checks"])
