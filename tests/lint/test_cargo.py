"""The dependencies in Cargo.toml: each is used, sorted, and compiled once."""

import re
import subprocess

import pytest
from repository import ROOT, toml

MANIFEST = toml("Cargo.toml")
PEER = "scripts/bench/peer"
IGNORED = set(MANIFEST["package"]["metadata"]["cargo-machete"]["ignored"])


def sources(*folders: str) -> str:
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.rs")]
    return "\n".join(path.read_text() for path in files)


def is_used(crate: str, code: str) -> bool:
    """As cargo-machete decides it: by a path that begins with the crate's name."""
    name = crate.replace("-", "_")
    return re.search(rf"\b{name}::|\buse {name}\b|\bextern crate {name}\b", code) is not None


@pytest.mark.parametrize("crate", MANIFEST["dependencies"])
def test_a_dependency_is_used(crate: str) -> None:
    """cargo-machete finds the same, but takes minutes to compile."""
    assert is_used(crate, sources("src")) != (crate in IGNORED)


@pytest.mark.parametrize("crate", MANIFEST["dev-dependencies"])
def test_a_test_dependency_is_used(crate: str) -> None:
    assert is_used(crate, sources("src", "tests"))


@pytest.mark.parametrize("crate", toml(f"{PEER}/Cargo.toml")["dependencies"])
def test_a_dependency_of_the_peer_is_used(crate: str) -> None:
    assert is_used(crate, sources(f"{PEER}/src"))


def test_the_peer_is_no_part_of_prop() -> None:
    """Its dependencies would be in the lock file, and a build of prop would resolve them."""
    assert toml(f"{PEER}/Cargo.toml")["workspace"] == {}
    assert "sqlx" not in (ROOT / "Cargo.lock").read_text()


def test_what_is_ignored_is_a_dependency() -> None:
    assert IGNORED <= set(MANIFEST["dependencies"])


@pytest.mark.parametrize(
    "manifest, table",
    [("Cargo.toml", "dependencies"), ("Cargo.toml", "dev-dependencies"), (f"{PEER}/Cargo.toml", "dependencies")],
)
def test_dependencies_are_sorted_within_their_group(manifest: str, table: str) -> None:
    text = (ROOT / manifest).read_text()
    body = re.search(rf"^\[{table}\]\n(.*?)(?=^\[|\Z)", text, re.M | re.S)[1]
    # A comment that stands on a line of its own begins a group.
    groups = re.split(r"^#.*\n", body, flags=re.M)
    for group in groups:
        names = re.findall(r"^([\w-]+) *=", group, re.M)
        assert names == sorted(names)


def features(edges: str) -> set[str]:
    """Each crate with the features that a build with these dependencies turns on."""
    command = ["cargo", "tree", "--locked", "--prefix=none", f"--edges={edges}", "--format={p} {f}"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return {line.removesuffix(" (*)").rstrip() for line in output.splitlines()}


def test_a_test_build_turns_on_no_more_features() -> None:
    """Else `cargo run` and `cargo test` each compile the crate and all that depends on it."""
    build = features("normal,build")
    crates = {tuple(line.split()[:2]) for line in build}
    in_test_build = {line for line in features("normal,build,dev") if tuple(line.split()[:2]) in crates}
    assert in_test_build <= build
