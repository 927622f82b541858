"""The ledgers that are attacked: each test gets a fresh one."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from attacker import Database, Ledger, attacked
from postgres import programs, running_postgres

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def cluster() -> Iterator[int]:
    """The port of a PostgreSQL for all tests."""
    if not programs():
        pytest.skip("there is no PostgreSQL")
    with running_postgres() as port:
        yield port


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """An empty database of either kind."""
    if request.param == "sqlite":
        return Database(f"sqlite:{tmp_path}/prop.db")
    return new_postgres(request.getfixturevalue("cluster"))


@pytest.fixture
def postgres(cluster: int) -> Database:
    """An empty database of PostgreSQL."""
    return new_postgres(cluster)


def new_postgres(port: int) -> Database:
    name = f"attack_{next(_numbers)}"
    Database(f"postgres://prop@127.0.0.1:{port}/prop").run(f"CREATE DATABASE {name}")
    return Database(f"postgres://prop@127.0.0.1:{port}/{name}")


@pytest.fixture
def ledger(database: Database, tmp_path: Path) -> Iterator[Ledger]:
    """A prop on it."""
    with attacked(tmp_path, database) as ledger:
        yield ledger
