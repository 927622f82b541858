"""One clone for the session, since the first `cargo run` in it compiles prop."""

import pytest

from newcomer import Terminal, clone, environment


@pytest.fixture(scope="session")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """In a new clone, with an empty home."""
    return Terminal(clone(), environment(tmp_path_factory.mktemp("home")))
