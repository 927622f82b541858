"""What a migration of PostgreSQL must not do while the previous version writes; and the check itself, on small examples."""

import re
from pathlib import Path

import pytest
from repository import ROOT

# The last migration of a version that was released before this check. What a database has applied stays as it is.
RELEASED = "0004"
# Few rows: what waits for its start, found by an index, and overrides, each of which a person has given.
ACCEPTED = {"0008": {"UPDATE deployments"}, "0013": {"UPDATE freeze_overrides"}}
# Each waits for its lock while it holds those before; db/migrations/mod.rs counts on this.
MAX_LOCKED_TABLES = 2

LITERAL = re.compile(r"^(?:-?[\d.]+|true|false|null|'[^']*')(?:::\w+)?\b", re.I)


def statements(sql: str, separator: str = ";") -> list[str]:
    text = re.sub(r"--[^\n]*", "", sql)
    if separator == ";":
        text = re.sub(r"\$(\w*)\$.*?\$\1\$|'[^']*'", "''", text, flags=re.S)
    return [" ".join(one.split()) for one in text.split(separator) if one.strip()]


def faults_of_up(sql: str) -> list[str]:
    """What would lock an existing table for as long as it is big."""
    all_of_it = statements(sql)
    new = {match[1] for one in all_of_it if (match := re.match(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+)", one, re.I))}
    found, locked = [], set()
    for one in all_of_it:
        if match := re.match(r"CREATE (?:UNIQUE )?INDEX .*?\bON (?:ONLY )?(\w+)", one, re.I):
            if match[1] not in new:
                found.append(f"an index on {match[1]}: build it CONCURRENTLY in online.sql")
        elif match := re.match(r"(UPDATE|DELETE FROM) (\w+)", one, re.I):
            if match[2] not in new:
                found.append(f"{match[1].upper()} {match[2]}: change rows in batches in online.sql")
        elif match := re.match(r"INSERT INTO (\w+)\b.*\bSELECT\b.*\bFROM\b", one, re.I):
            found.append(f"INSERT INTO {match[1]} of what is there: do it in online.sql")
        elif match := re.match(r"ALTER TABLE (?:IF EXISTS )?(?:ONLY )?(\w+) (.*)", one, re.I):
            if match[1] not in new:
                locked.add(match[1])
                found += [f"{match[1]}: {fault}" for action in actions(match[2]) if (fault := fault_of(action))]
        elif match := re.match(r"CREATE (?:OR REPLACE )?(?:CONSTRAINT )?TRIGGER .*?\bON (\w+)", one, re.I):
            locked |= {match[1]} - new
        elif re.match(r"(?:VACUUM|CLUSTER|REINDEX|REFRESH|LOCK)\b", one, re.I):
            found.append(one)
    if len(locked) > MAX_LOCKED_TABLES:
        found.append(f"locks {len(locked)} tables one after the other; at most {MAX_LOCKED_TABLES} in one migration")
    return found


def actions(text: str) -> list[str]:
    """The actions of an ALTER TABLE: separated by commas outside parentheses."""
    parts, depth = [""], 0
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def fault_of(action: str) -> str | None:
    """Why an action rewrites or reads the whole table under its lock."""
    if match := re.match(r"ADD (?:COLUMN )?(?!CONSTRAINT|CHECK|FOREIGN|UNIQUE|PRIMARY|EXCLUDE)(?:IF NOT EXISTS )?(\w+) (.*)", action, re.I):
        name, rest = match.groups()
        default = re.search(r"\bDEFAULT (.*)", rest, re.I)
        if default and not LITERAL.match(default[1]):
            return f"a default of {name} that is no constant rewrites the table"
        if re.search(r"\bNOT NULL\b", rest, re.I) and not default:
            return f"{name} is NOT NULL without a default"
        if re.search(r"\b(?:REFERENCES|UNIQUE|PRIMARY KEY|CHECK|GENERATED)\b", rest, re.I):
            return f"{name} has a constraint that reads the table: add it NOT VALID, or build an index first"
    elif re.match(r"ALTER (?:COLUMN )?\w+ (?:SET DATA )?TYPE\b", action, re.I):
        return "another type rewrites the table"
    elif re.match(r"ALTER (?:COLUMN )?\w+ SET NOT NULL", action, re.I):
        return "SET NOT NULL reads the table: add a CHECK that is NOT VALID, validate it in online.sql"
    elif re.match(r"ADD (?:CONSTRAINT|CHECK|FOREIGN|UNIQUE|PRIMARY|EXCLUDE)", action, re.I):
        if not re.search(r"\bNOT VALID\b|\bUSING INDEX\b", action, re.I):
            return "a constraint that reads the table: add it NOT VALID, validate it in online.sql"
    elif re.match(r"VALIDATE|SET (?:LOGGED|UNLOGGED|TABLESPACE|ACCESS)", action, re.I):
        return f"{action}: not under this lock"
    return None


def faults_of_online(sql: str) -> list[str]:
    """What could not be repeated, or would hold locks: each paragraph is one statement."""
    found = []
    for one in statements(sql, "\n\n"):
        if re.match(r"CREATE (UNIQUE )?INDEX ", one):
            if not re.match(r"CREATE (UNIQUE )?INDEX CONCURRENTLY IF NOT EXISTS ", one):
                found.append(f"not CONCURRENTLY IF NOT EXISTS: {one}")
        elif one.startswith("DO $$"):
            if "COMMIT;" not in one or "set_config('lock_timeout'" not in one:
                found.append(f"does not commit each batch, or waits for locks: {one}")
        elif one.startswith("INSERT INTO"):
            if "ON CONFLICT DO NOTHING" not in one:
                found.append(f"can't be repeated: {one}")
        elif not re.match(r"ALTER TABLE \w+ VALIDATE CONSTRAINT|DROP INDEX CONCURRENTLY IF EXISTS ", one):
            found.append(f"unknown: {one}")
        if not one.startswith("DO $$") and ";" in one[:-1]:
            found.append(f"more than one statement in a paragraph: {one}")
    return found


def folders() -> list[Path]:
    return [folder for folder in sorted((ROOT / "migrations/postgres").iterdir()) if folder.name[:4] > RELEASED]


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: folder.name)
def test_the_previous_version_can_write_while_it_runs(folder: Path) -> None:
    accepted = ACCEPTED.get(folder.name[:4], set())
    found = [fault for fault in faults_of_up((folder / "up.sql").read_text()) if fault.split(":")[0] not in accepted]
    online = folder / "online.sql"
    found += faults_of_online(online.read_text()) if online.exists() else []
    assert not found, f"{folder.name}: " + "; ".join(found)


@pytest.mark.parametrize("sql", [
    "CREATE INDEX a ON deployments (b);",
    "CREATE UNIQUE INDEX a\n    ON deployments (b);",
    "ALTER TABLE releases ADD COLUMN a timestamptz NOT NULL DEFAULT now();",
    "ALTER TABLE releases ADD COLUMN a uuid DEFAULT gen_random_uuid();",
    "ALTER TABLE releases ADD COLUMN a text, ADD COLUMN b text NOT NULL;",
    "ALTER TABLE releases ADD a text CHECK (a <> '');",
    "ALTER TABLE releases ADD COLUMN a uuid REFERENCES keys (id);",
    "ALTER TABLE events ALTER COLUMN payload TYPE text;",
    "ALTER TABLE events ALTER COLUMN payload SET NOT NULL;",
    "ALTER TABLE events ADD CONSTRAINT a CHECK (seq > 0);",
    "UPDATE deployments SET a = 1;",
    "DELETE FROM deployments;",
    "CREATE TABLE a (b text);\nINSERT INTO a SELECT DISTINCT service FROM deployments;",
    "ALTER TABLE a ADD b text; ALTER TABLE c ADD b text; CREATE TRIGGER t BEFORE INSERT ON d EXECUTE FUNCTION f();",
])
def test_what_locks_a_table_is_found(sql: str) -> None:
    assert len(faults_of_up(sql)) == 1, faults_of_up(sql)


@pytest.mark.parametrize("sql", [
    "CREATE TABLE a (b text NOT NULL REFERENCES c (d));\nCREATE INDEX e ON a (b);\nINSERT INTO a VALUES ('x');",
    "ALTER TABLE a ADD COLUMN b text; -- UPDATE a\nALTER TABLE a ADD COLUMN c boolean NOT NULL DEFAULT false;",
    "ALTER TABLE a ADD COLUMN b text DEFAULT 'x, y'::text, ADD COLUMN c integer NOT NULL DEFAULT -1;",
    "ALTER TABLE a ADD CONSTRAINT b CHECK (c > 0) NOT VALID;",
    "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE a SET b = 1; END $$;",
])
def test_what_is_quick_is_accepted(sql: str) -> None:
    assert faults_of_up(sql) == []


@pytest.mark.parametrize("sql", [
    "CREATE INDEX a ON b (c);",
    "CREATE INDEX CONCURRENTLY a ON b (c);",
    "DROP INDEX CONCURRENTLY a;",
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS a ON b (c);\nCREATE INDEX CONCURRENTLY IF NOT EXISTS d ON b (c);",
    "UPDATE a SET b = 1;",
    "INSERT INTO a SELECT b FROM c;",
    "DO $$\nBEGIN\n    UPDATE a SET b = 1;\nEND\n$$;",
])
def test_what_cannot_be_repeated_is_found(sql: str) -> None:
    assert len(faults_of_online(sql)) == 1, faults_of_online(sql)
