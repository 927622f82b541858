"""The scripts of pgbench: the statements in statements/, with expressions for their parameters."""

import json
import re

from settings import HERE

# Random values of a transaction. Limits are variables (:one, :page), so that PostgreSQL plans with a parameter, as for prop.
ANY_DEPLOYMENT = r"\set n random(1, :deployments)"
ANY_PLACE = "\\set s random(0, 199)\n\\set e random(0, 4)"
ANY_RELEASE = r"\set v random(0, :deployments / 1000 - 1)"

SERVICE, ENVIRONMENT, VERSION = "('service-' || :s)", "('environment-' || :e)", "('1.' || :v || '.0')"
RELEASE = "('01999999-0000-7000-9000-' || lpad(to_hex(:v * 200 + :s), 12, '0'))::uuid"
DEPLOYMENT = """(lpad(to_hex(1759276800000 + :n::bigint * 30000), 12, '0') || '70008000'
    || lpad(to_hex(:n::bigint), 12, '0'))::uuid"""
NEW_ID = """(lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0') || '7000'
    || substr(gen_random_uuid()::text, 20))::uuid"""
# A colon would begin a variable.
SHA, DIGEST = "repeat('0f', 32)", "('sha256' || chr(58) || repeat('0f', 32))"
AN_ID, NOW, EXPIRES = "'01a221c3-23b9-7644-90e4-6e488b1dd037'", "now()", "now() + interval '72 hours'"


def document(value: dict) -> str:
    """A JSON value as a literal of SQL."""
    return "'" + re.sub(r":(?=\w)", r"\\u003a", json.dumps(value)) + "'"


# As prop writes them for these deployments; only their size matters here.
VERDICT = {"allowed": True, "reasons": [], "exemptions": [], "is_rollback": False, "evaluated_at": "2026-11-28T10:46:06.519317Z"}
FACTS = {
    "step": "create", "freezes": [], "reviews": [], "running": None, "incidents": [], "is_rollback": False,
    "recorded_by": "bench", "requested_by": "bench",
    "policy": {
        "environment": "environment-1", "predecessor": None, "require_scan": False, "soak_minutes": 0, "is_production": False,
        "required_approvals": 0, "allow_self_approval": False, "rollback_needs_approval": False,
    },
    "release": {"version": "1.500.0", "scan_passed": None, "image_digest": "sha256:" + "0f" * 32, "succeeded_before_at": None},
}  # fmt: skip
PAYLOAD = {
    "id": AN_ID.strip("'"), "kind": "normal", "state": "approved", "reason": None, "source": "api", "git_sha": "0f" * 32,
    "run_url": None, "service": "service-100", "ungated": False, "version": "1.500.0", "decision": VERDICT, "revision": 1,
    "rollback": False, "unplanned": False, "voided_at": None, "expires_at": "2026-12-01T10:46:06.519317Z",
    "release_id": AN_ID.strip("'"), "retired_at": None, "started_at": None, "environment": "environment-1", "external_id": None,
    "finished_at": None, "previous_id": AN_ID.strip("'"), "recorded_by": "bench", "rollback_of": None,
    "image_digest": "sha256:" + "0f" * 32, "requested_at": "2026-11-28T10:46:06.519317Z", "requested_by": "bench",
    "before_commit": False,
}  # fmt: skip
# In the order of the columns in insert.sql, and of those in event.sql.
ROW = [
    NEW_ID, SERVICE, ENVIRONMENT, RELEASE, VERSION, SHA, DIGEST, "'approved'", "'normal'", "false", "false", "'bench'", "'api'",
    "NULL", "NULL", "NULL", "NULL", "NULL", NOW, "NULL", "NULL", "1", "false", EXPIRES, "'bench'", "NULL", "NULL", "false", "NULL",
    "false", document({**VERDICT, "facts": FACTS}),
]  # fmt: skip
EVENT = [
    NOW, "'bench'", "'deployment.requested'", "'deployment'", "gen_random_uuid()::text", SERVICE, ENVIRONMENT, document(PAYLOAD),
    AN_ID, AN_ID,
]  # fmt: skip


def statement(name: str, *values: str) -> str:
    """A statement with an expression for each of its parameters $1, $2 and so on."""
    lines = (HERE / "statements" / f"{name}.sql").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("--"))
    return re.sub(r"\$(\d+)", lambda parameter: values[int(parameter[1]) - 1], text) + ";"


SCRIPTS = {
    "read": "\n".join([ANY_DEPLOYMENT, statement("read", DEPLOYMENT, ":one")]),
    "list": "\n".join([ANY_PLACE, statement("list", SERVICE, ENVIRONMENT, ":page")]),
    "record": "\n".join([
        ANY_PLACE,
        ANY_RELEASE,
        "BEGIN;",
        statement("lock", SERVICE),
        statement("look", ENVIRONMENT, VERSION, SERVICE, ":one"),
        statement("holds", SERVICE, ENVIRONMENT, NOW, VERSION, AN_ID, DIGEST, AN_ID, RELEASE),
        statement("insert", *ROW),
        statement("event", *EVENT),
        "COMMIT;",
    ]),
}  # fmt: skip
