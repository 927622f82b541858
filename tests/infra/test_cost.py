"""scripts/cost.sh: sums checked by hand, for both environments and for what a tfvars file may contain."""

import csv
import json
import re
import shutil
from datetime import date
from pathlib import Path

import pytest
from scripts import ROOT, run

TERRAFORM = ROOT / "terraform"
PRICES = ROOT / "scripts" / "cost" / "ap-south-1.tsv"


def estimate(environment: str, terraform: Path = TERRAFORM) -> dict:
    result = run("cost.sh", environment, "--json", TERRAFORM_DIR=str(terraform))
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def amounts(of: dict) -> dict[str, float]:
    return {line["what"]: line["usd"] for line in of["lines"]}


@pytest.fixture
def copy(tmp_path):
    """The variables and the environments, to be changed."""
    shutil.copytree(TERRAFORM / "envs", tmp_path / "envs")
    shutil.copy(TERRAFORM / "variables.tf", tmp_path)
    return tmp_path


def set_variable(copy: Path, text: str, environment: str = "staging") -> None:
    with (copy / "envs" / f"{environment}.tfvars").open("a") as file:
        file.write(text)


def test_staging_by_hand():
    # 08:00 to 20:00 from Monday to Friday: 12 x 5 x 730 / 168 hours of tasks; the database from 07:30 to 20:15.
    of = estimate("staging")
    assert amounts(of) == {
        "Load balancer": 17.45,  # 730 x 0.0239
        "Load balancer: addresses": 7.30,  # 2 x 730 x 0.005
        "Endpoints: 4 in 1 zone": 37.96,  # 4 x 730 x 0.013
        "Tasks: vCPU": 2.77,  # 0.25 x 260.714 x 0.04256
        "Tasks: GB of memory": 0.61,  # 0.5 x 260.714 x 0.004655
        "Database: db.t3.micro": 5.82,  # 277.009 x 0.021
        "Alarm of the schedule": 0.10,
        "Database: GB of storage": 2.62,  # 20 x 0.131
        "Secrets": 0.80,
        "Alarms": 0.80,
    }
    assert of["total"] == 76.23
    # 76.23 - 37.96 + 730 x 0.056 + 730 x 0.005
    assert of["with_nat"]["total"] == 82.80
    # The whole month: 7.77 + 1.70 + 15.33, less 2.77 + 0.61 + 5.82 + 0.10.
    assert of["auto_stop"] == {"on": True, "task_hours": 260.71, "database_hours": 277.01, "saves": 15.50}


def test_production_by_hand():
    of = estimate("production")
    assert amounts(of) == {
        "Load balancer": 17.45,
        "Load balancer: addresses": 7.30,
        "Endpoints: 4 in 2 zones": 75.92,  # 8 x 730 x 0.013
        "Tasks: vCPU": 7.77,  # 0.25 x 730 x 0.04256
        "Tasks: GB of memory": 1.70,  # 0.5 x 730 x 0.004655
        "Database: db.t3.micro": 30.66,  # 2 x 730 x 0.021
        "Database: GB of storage": 5.24,  # 2 x 20 x 0.131
        "Secrets": 0.80,
        "Alarms": 0.80,
    }
    assert of["total"] == 147.64
    assert of["with_nat"]["total"] == 116.25
    # 7.77 + 1.70 + 30.66, less 2.77 + 0.61 + 2 x 277.009 x 0.021 = 11.63 and 0.10
    assert of["auto_stop"]["on"] is False and of["auto_stop"]["saves"] == 25.02


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_lines_add_up_as_they_are_printed(environment):
    of = estimate(environment)
    text = run("cost.sh", environment).stdout
    printed = [float(line.split()[-1]) for line in text.splitlines() if " x " in line]
    assert printed == [line["usd"] for line in of["lines"]]
    assert round(sum(printed), 2) == of["total"]
    assert f"{of['total']:.2f}" in text and f"{of['with_nat']['total']:.2f}" in text and f"{of['auto_stop']['saves']:.2f}" in text
    difference = round(of["total"] - of["with_nat"]["total"], 2)
    assert f"endpoints cost {abs(difference):.2f} {'more' if difference > 0 else 'less'}" in text


def test_a_substituted_price_is_reported():
    text = run("cost.sh", "staging").stdout
    assert re.search(r"^Database: db\.t3\.micro .* x 0\.021 +\* ", text, re.M)
    assert "No figure for ap-south-1 was found" in text


@pytest.mark.parametrize(
    ("hours", "task_hours", "database_hours"),
    [
        ("{}", 260.71, 277.01),  # what variables.tf says
        ('{ start = 9, stop = 18 }', 195.54, 211.83),  # 9 and 9.75 hours, 5 days
        ('{\n  start = 9 # late\n  stop  = 17\n  days  = "MON-SUN"\n}', 243.33, 266.15),  # 8 and 8.75 hours, 7 days
        ('{ days = "SAT-MON" }', 156.43, 166.21),  # 12 and 12.75 hours, 3 days
        ('{ days = "MON,WED-THU" }', 156.43, 166.21),
    ],
)
def test_hours_come_from_working_hours(copy, hours, task_hours, database_hours):
    set_variable(copy, f"working_hours = {hours}\n")
    of = estimate("staging", copy)["auto_stop"]
    assert (of["task_hours"], of["database_hours"]) == (task_hours, database_hours)


def test_without_auto_stop_everything_runs_all_month(copy):
    set_variable(copy, "auto_stop = false\n")
    before, after = estimate("staging"), estimate("staging", copy)
    assert round(after["total"] - before["total"], 2) == before["auto_stop"]["saves"] == after["auto_stop"]["saves"]


def test_what_is_switched_on_is_counted(copy):
    set_variable(copy, 'waf = true\ncustomer_managed_key = true\ncpu_architecture = "ARM64"\n')
    set_variable(copy, 'database_class = "db.t4g.micro"\ncontainer_insights = true\nbackup_vault = true\nmin_tasks = 2\nauto_stop = false\n')
    of = estimate("staging", copy)
    lines = amounts(of)
    assert (lines["Key"], lines["Web firewall"], lines["Web firewall: rules"]) == (1.00, 5.00, 3.00)
    assert lines["Endpoints: 4 in 1 zone"] == 37.96
    assert lines["Tasks: vCPU"] == 8.70  # 2 x 0.25 x 730 x 0.02383
    assert of["notes"] == []
    assert {"Container Insights", "the backup vault"} <= set(of["not_counted"])


def test_endpoints_are_in_no_more_zones_than_there_are(copy):
    set_variable(copy, "endpoint_zones = 3\n")
    assert "Endpoints: 4 in 2 zones" in amounts(estimate("staging", copy))


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("min_tasks = var.tasks\n", 1, "expected a literal value at: var"),
        ("min_tasks =\n", 1, "expected a literal value"),
        ("min_tasks\n", 1, "expected a name and a value"),
        ("}\n", 1, "unexpected closing bracket"),
        ('database_class = "db.m5.24xlarge"\n', 1, "no price 'database_db.m5.24xlarge'"),
        ('working_hours = { days = "LUN" }\n', 1, "'LUN' is not a day"),
        ('region = "eu-west-1"\n', 3, "no price table for this region"),
    ],
)
def test_invalid_input_is_an_error(copy, text, code, message):
    set_variable(copy, text)
    result = run("cost.sh", "staging", TERRAFORM_DIR=str(copy))
    assert result.returncode == code, result.stderr
    assert message in result.stderr
    assert result.stdout == ""


def test_comments_strings_and_lists_are_read(copy):
    set_variable(copy, '# min_tasks = 3\n// min_tasks = 4\n/* min_tasks = 5 */\nalarm_email = "a#b@example.org" # = "c"\nmin_tasks = 2\n')
    set_variable(copy, 'allowed_cidrs = [\n  "203.0.113.0/24",\n  "198.51.100.0/24",\n]\nzones = 3\n')
    of = estimate("staging", copy)
    [cpu] = [line for line in of["lines"] if line["what"] == "Tasks: vCPU"]
    assert cpu["count"] == 0.5
    assert amounts(of)["Load balancer: addresses"] == 10.95  # 3 x 730 x 0.005


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "missing argument: ENVIRONMENT"), (["nowhere"], "unknown environment 'nowhere'"), (["staging", "--csv"], "unknown option"), (["staging", "x"], "unexpected argument")],
)
def test_wrong_arguments_are_refused(arguments, message):
    result = run("cost.sh", *arguments)
    assert result.returncode == 2
    assert message in result.stderr


def test_help_names_everything():
    result = run("cost.sh", "--help")
    assert result.returncode == 0
    assert "--json" in result.stdout and "Exit codes:" in result.stdout


def test_every_price_is_dated_and_can_be_checked():
    with PRICES.open() as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert len({row["key"] for row in rows}) == len(rows)
    for row in rows:
        assert float(row["usd"]) > 0
        assert row["per"] in ("hour", "month")
        assert row["check_at"].startswith("https://aws.amazon.com/")
        date.fromisoformat(row["as_of"] if row["as_of"].count("-") == 2 else f"{row['as_of']}-01")
        assert row["region"] == "ap-south-1" or (row["region"] == "stand-in" and "No figure" in row["note"])


def test_what_is_counted_is_what_terraform_makes(copy):
    def count(pattern: str, file: str) -> int:
        return len(re.findall(pattern, (TERRAFORM / file).read_text(), re.M))

    set_variable(copy, "github_webhook_version = 1\n")
    lines = {line["what"]: line["count"] for line in estimate("staging", copy)["lines"]}
    assert lines["Alarms"] == count(r"^ +description = ", "alarms.tf")
    assert lines["Secrets"] == count(r'^resource "aws_secretsmanager_secret" ', "secrets.tf")
    [always] = re.findall(r'\["ecr\.api", [^]]*\]', (TERRAFORM / "endpoints.tf").read_text())
    assert lines["Endpoints: 4 in 1 zone"] == len(json.loads(always))
    # The hours of the database around those of the tasks.
    schedule = (TERRAFORM / "schedule.tf").read_text()
    assert re.search(r'stop-database += \{ at = "15 \$\{local\.hours\.stop\} ', schedule)
    assert re.search(r'start-database += \{ at = "30 \$\{local\.hours\.start - 1\} ', schedule)
