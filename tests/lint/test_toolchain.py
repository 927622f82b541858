"""rust-toolchain.toml names the Rust version; every file that has to repeat it agrees."""

import json
import re

import pytest
from repository import ROOT, toml

CHANNEL: str = toml("rust-toolchain.toml")["toolchain"]["channel"]


def test_the_channel_is_one_release() -> None:
    assert re.fullmatch(r"1\.\d+\.\d+", CHANNEL), "a floating channel would change under a build"


@pytest.mark.parametrize("manifest", ["Cargo.toml", "scripts/bench/peer/Cargo.toml"])
def test_cargo_names_the_same_version(manifest: str) -> None:
    minimum = toml(manifest)["package"]["rust-version"]
    assert CHANNEL.startswith(f"{minimum}.")


def test_the_image_is_built_with_the_same_version() -> None:
    bases = re.findall(r"^FROM rust:([\d.]+)-", (ROOT / "docker/Dockerfile").read_text(), re.M)
    assert bases == [CHANNEL]


def test_the_dev_container_has_the_same_version() -> None:
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert container["image"] == f"rust:{CHANNEL}-trixie"


@pytest.mark.parametrize(
    "path",
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob(".github/workflows/*.yml")],
    ids=lambda path: path.name,
)
def test_no_document_or_workflow_names_another_version(path) -> None:
    if path.name == "CHANGELOG.md":
        pytest.skip("names what past versions were built with")
    named = re.findall(r"\bRust (1\.\d+(?:\.\d+)?)|RUSTUP_TOOLCHAIN: *(\S+)", path.read_text())
    assert all(CHANNEL == version or CHANNEL.startswith(f"{version}.") for version, _ in named)
    assert not any(toolchain for _, toolchain in named), "rustup reads rust-toolchain.toml"
