"""The database itself keeps the history, and an upgrade waits instead of failing."""

import subprocess
import threading
from pathlib import Path

import pytest

from attacker import Database, Ledger, Refused, attacked
from prop import BINARY, generate_key

# The number of the lock that migrations take: "prop" in ASCII.
LOCK = 0x70726F70


def test_m6_a_start_waits_for_a_long_migration(postgres: Database, tmp_path: Path) -> None:
    held = threading.Thread(target=postgres.run, args=(f"SELECT pg_advisory_lock({LOCK}), pg_sleep(13)",))
    held.start()
    with attacked(tmp_path, postgres, PROP_DATABASE__TIMEOUT_SECONDS="2") as ledger:
        assert not held.is_alive()
        ledger.send("GET", "/readyz").expect(200)


def test_m7_the_history_is_not_rewritten(ledger: Ledger) -> None:
    ledger.post("/v1/services", {"slug": "shop"})
    before = ledger.get("/v1/events")
    columns = "seq, at, actor, action, entity, entity_id, payload"
    values = f"SELECT seq, at, 'nobody', action, entity, entity_id, payload FROM events WHERE seq = (SELECT min(seq) FROM events)"
    statements = [
        "UPDATE events SET actor = 'nobody'",
        "DELETE FROM events",
        f"INSERT INTO events ({columns}) {'OVERRIDING SYSTEM VALUE' if not ledger.database.is_sqlite else ''} {values}",
    ]
    if ledger.database.is_sqlite:
        statements += [
            f"INSERT OR REPLACE INTO events ({columns}) {values}",
            f"REPLACE INTO events ({columns}) {values}",
            "UPDATE OR REPLACE events SET seq = 1 WHERE seq = (SELECT max(seq) FROM events)",
        ]
    else:
        statements.append("TRUNCATE events")
    for statement in statements:
        with pytest.raises(Refused):
            ledger.database.run(statement)
    assert ledger.get("/v1/events") == before


def test_m8_the_role_that_serves_can_not_undo_that(cluster: int, postgres: Database, tmp_path: Path) -> None:
    postgres.run("CREATE ROLE server LOGIN")
    served = Database(postgres.url.replace("prop@", "server@"))
    try:
        with attacked(tmp_path, served, PROP_DATABASE__MIGRATE_URL=postgres.url) as ledger:
            ledger.deploy(service="shop", environment="staging", version="1", create_missing=True, start=True).expect(201)
            for statement in (
                "ALTER TABLE events DISABLE TRIGGER USER", "DELETE FROM events", "UPDATE events SET actor = 'nobody'",
                "TRUNCATE events", "DROP TABLE events", "CREATE OR REPLACE FUNCTION events_are_append_only() RETURNS trigger "
                "LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'", "SET session_replication_role = replica",
                "DELETE FROM deployments", "DELETE FROM approvals",
            ):
                with pytest.raises(Refused):
                    served.run(statement)
    finally:
        postgres.run("DROP OWNED BY server; DROP ROLE server")


def test_m17_a_password_never_reaches_the_log(tmp_path: Path) -> None:
    for password, secret in (("SENTINELdb%zzpassw0rd", "SENTINEL"), ("SENTINEL@dbpassw0rd", "dbpassw0rd"),
                             ("SENTINEL/dbpassw0rd", "dbpassw0rd"), ("SENTINEL#dbpassw0rd", "dbpassw0rd"),
                             ("SENTINEL?dbpassw0rd", "dbpassw0rd"), ("SENTINEL:dbpassw0rd", "dbpassw0rd")):
        environment = {
            "DATABASE_URL": f"postgres://prop:{password}@127.0.0.1:1/prop", "PROP_BOOTSTRAP_KEY": generate_key(),
            "PROP_DATABASE__CONNECT_WAIT_SECONDS": "1", "PROP_HTTP__PORT": "0",
        }
        done = subprocess.run([BINARY], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode != 0
        output = done.stdout + done.stderr
        assert "SENTINEL" not in output and secret not in output, output
