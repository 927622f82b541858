"""Chromium, and prop servers with different ledgers."""

import pytest
from playwright.sync_api import sync_playwright

from chromium import Reader, launch
from ledgers import demo, many
from prop import running_prop


@pytest.fixture(scope="session")
def chromium():
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def prop(tmp_path):
    """A prop with an empty ledger."""
    with running_prop(tmp_path) as prop:
        yield prop


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """A prop with the demo's week of history; for tests that only read."""
    with running_prop(tmp_path_factory.mktemp("shop")) as prop:
        demo(prop)
        yield prop


@pytest.fixture(scope="session")
def company(tmp_path_factory):
    """A prop with 200 services; for tests that only read."""
    with running_prop(tmp_path_factory.mktemp("company")) as prop:
        many(prop, 200)
        yield prop


@pytest.fixture
def reader(chromium):
    """Creates readers: each has a browser context of its own, and errors in it fail the test."""
    readers = []

    def make(prop, **options):
        readers.append(Reader(chromium, prop, **options))
        return readers[-1].page

    yield make
    for one in readers:
        one.leave()
