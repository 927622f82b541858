"""What scripts/db.sh prints after a restore, run to its end on staging as Terraform applied it to the stand-in for AWS."""

import hashlib
import json
import shlex
from pathlib import Path

from prop import ROOT
from stack import PASSWORD, Stack
from test_apply import changes

# In the environment of whoever restores, from some other day.
TYPED = {"TF_VAR_database_password": "typed-by-somebody-in-a-hurry", "TF_VAR_database_app_password": "another-one-of-somebody"}
POLLS = {"POLL_SECONDS": "0.2"}


def test_the_runbook_ends_with_a_plan_that_changes_nothing(stack: Stack, calls: Path):
    rds = stack.client("rds")
    old = rds.describe_db_instances(DBInstanceIdentifier="prop-db-staging")["DBInstances"][0]
    restored = stack.run(ROOT / "scripts" / "db.sh", "staging", "restore", "--name", "prop-db-restored", **POLLS)
    commands = [line.partition(" # ")[0].strip() for line in restored.stderr.splitlines() if line.startswith(("  scripts/", "  aws "))]
    assert commands[0].endswith("snapshot") and "scripts/db.sh staging adopt" in commands

    noted = calls.read_text().count("\n")
    for command in commands:
        # status.sh reports that nothing answers: no load balancer is behind the stand-in.
        stack.run("env", *shlex.split(command), succeeds="status.sh" not in command, **TYPED, **POLLS)

    new = rds.describe_db_instances(DBInstanceIdentifier="prop-db-staging")["DBInstances"][0]
    assert new["DbiResourceId"] != old["DbiResourceId"]
    assert stack.state()["aws_db_instance.main"]["resource_id"] == new["DbiResourceId"]
    # The password that the tasks use, which is not what was typed.
    sent = [line["password"] for line in map(json.loads, calls.read_text().splitlines()[noted:]) if line["password"]]
    assert sent == [hashlib.sha256(PASSWORD.encode()).hexdigest()]
    assert changes(stack.plan("restored.tfplan")) == {}
    for name in ("MaxAllocatedStorage", "EnabledCloudwatchLogsExports", "PreferredBackupWindow", "PreferredMaintenanceWindow", "DeletionProtection"):
        assert new[name] == old[name], name

    rds.delete_db_instance(DBInstanceIdentifier="prop-db-staging-before-restore", SkipFinalSnapshot=True)
    for snapshot in rds.describe_db_snapshots()["DBSnapshots"]:
        if snapshot["SnapshotType"] == "manual":
            rds.delete_db_snapshot(DBSnapshotIdentifier=snapshot["DBSnapshotIdentifier"])
