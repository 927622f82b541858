"""One stand-in for AWS for the session, and one staging environment applied to it, which takes minutes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from identities import enforce_access
from prop import Prop, running_prop
from stack import Stack, stand_in
from stub_aws import Scenario, outside, record_old_release


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "last: takes the stack down, so it comes after everything that uses it")
    config.addinivalue_line("markers", "stack: plans or applies the stack, which is minutes of waiting: test.sh runs all else meanwhile")


def pytest_itemcollected(item: pytest.Item) -> None:
    # `plan` is a plan of either environment, by name.
    if {"staging", "plan"} & set(item.fixturenames):
        item.add_marker("stack")
    # Where several processes share the tests, a file stays in one: its tests share a stand-in, an image or an archive. Only
    # what uses a scenario has all of its own.
    if "scenario" not in item.fixturenames:
        item.add_marker(pytest.mark.xdist_group(item.path.stem))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for the session."""
    return tmp_path_factory.mktemp("infra")


@pytest.fixture(scope="session")
def aws_url(work: Path) -> Iterator[str]:
    """The stand-in's address."""
    with stand_in(work / "moto.log") as url:
        enforce_access(url)
        yield url


@pytest.fixture(scope="session")
def calls(work: Path) -> Path:
    """What the scripts have called so far, and what for they were allowed or refused: see access.py."""
    return work / "moto.calls"


@pytest.fixture(scope="session")
def staging(work: Path, aws_url: str) -> Stack:
    """Staging, described and initialised, with its state's bucket and lock table, but not applied."""
    stack = Stack("staging", aws_url, work / "staging" / "terraform")
    stack.run("scripts/bootstrap.sh")
    return stack


@pytest.fixture(scope="session")
def staging_plan(staging: Stack) -> dict[str, Any]:
    """What applying staging to an empty account would do."""
    return staging.plan("first.tfplan")


@pytest.fixture(scope="session")
def stack(staging: Stack, staging_plan: dict[str, Any]) -> Stack:
    """Staging, applied."""
    staging.apply("first.tfplan")
    return staging


@pytest.fixture(scope="session")
def production(work: Path, stack: Stack) -> Stack:
    """Production, described but not applied, in the account that has staging."""
    return Stack("production", stack.url, work / "production" / "terraform")


@pytest.fixture(scope="session")
def production_plan(production: Stack) -> dict[str, Any]:
    """What applying production to that account would do."""
    return production.plan("first.tfplan")


# --- The stub `aws`


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    return Scenario(tmp_path)


@pytest.fixture
def app(scenario: Scenario) -> Iterator[str]:
    with outside(scenario) as url:
        yield url


WEBHOOK_SECRET = "It's a Secret to Everybody"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Prop]:
    """A ledger in which 1.4.1 is live in staging."""
    directory = tmp_path / "ledger"
    directory.mkdir()
    with running_prop(directory, PROP_GITHUB__WEBHOOK_SECRET=WEBHOOK_SECRET) as prop:
        record_old_release(prop)
        yield prop
