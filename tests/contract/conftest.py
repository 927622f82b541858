"""The prop that is asked, and the document that it keeps to."""

import os
import subprocess
from pathlib import Path

import pytest

from prop import BINARY, ROOT, running_prop


@pytest.fixture(scope="session")
def document(tmp_path_factory) -> Path:
    """The OpenAPI document: the committed one, which `cargo test` compares with the code."""
    committed = ROOT / "docs" / "openapi.json"
    if committed.exists():
        return committed
    path = tmp_path_factory.mktemp("document") / "openapi.json"
    path.write_bytes(subprocess.run([BINARY, "openapi"], check=True, capture_output=True).stdout)
    return path


@pytest.fixture
def prop(tmp_path):
    """On a fresh SQLite file, or on the empty database that CONTRACT_DATABASE_URL names."""
    database = os.environ.get("CONTRACT_DATABASE_URL")
    with running_prop(tmp_path, **({"DATABASE_URL": database} if database else {})) as prop:
        yield prop


@pytest.fixture
def own_key_id(prop) -> str:
    """The id of the key that these tests use."""
    (own,) = [item for item in prop.get("/v1/keys")["items"] if prop.key.startswith(item["prefix"])]
    return own["id"]
