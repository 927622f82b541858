"""Links, anchors and the paths in the prose of every Markdown file, and the length of the README."""

import re
from functools import cache
from glob import has_magic
from pathlib import Path, PurePosixPath
from posixpath import normpath
from urllib.parse import unquote, urlsplit

import pytest

from documents import ROOT, Document, markdown_files, tracked_files

README_WORDS = 1600
HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*(:\d+)?", re.IGNORECASE)
# `src/db/pool.rs`, `tests/api`, `migrations/{postgres,sqlite}/`: what begins with a folder of ours and has no placeholder.
PATH = re.compile(r"(\./)?(\.cargo|\.ci|\.devcontainer|\.github|docker|docs|migrations|scripts|src|terraform|tests)/[\w./*{},-]*")
# Paths there are those of other repositories.
OF_OTHERS = {"docs/actions.md"}


@cache
def files_and_folders() -> frozenset[str]:
    files = tracked_files()
    folders = {str(parent) for file in files for parent in PurePosixPath(file).parents}
    return frozenset(files | folders)


@cache
def document(file: str) -> Document:
    return Document((ROOT / file).read_text())


def fault(file: str, link: str, read=document, exist=files_and_folders) -> str | None:
    """What is wrong with a link in `file`; None if nothing is. A target must be tracked, not only be there."""
    parts = urlsplit(link)
    if parts.scheme == "mailto":
        return None if "@" in parts.path else "no address"
    if parts.scheme or parts.netloc:
        good = parts.scheme in ("http", "https") and HOST.fullmatch(parts.netloc) and " " not in link
        return None if good else "malformed URL"
    if parts.path.startswith("/"):
        return "absolute path"
    target = normpath(str(PurePosixPath(file).parent / unquote(parts.path))) if parts.path else file
    if target not in exist():
        return "no such file"
    if not parts.fragment:
        return None
    if lines := re.fullmatch(r"L(\d+)(-L(\d+))?", parts.fragment):
        last = int(lines[3] or lines[1])
        return None if last <= len((ROOT / target).read_text().splitlines()) else "no such line"
    if not target.endswith(".md"):
        return "anchor in a file that has none"
    return None if unquote(parts.fragment) in read(target).anchors else "no such anchor"


def alternatives(path: str) -> list[str]:
    """`a/{b,c}` is `a/b` and `a/c`."""
    braces = re.search(r"\{([^{}]*)\}", path)
    if not braces:
        return [path]
    return [one for choice in braces[1].split(",") for one in alternatives(path[: braces.start()] + choice + path[braces.end() :])]


def missing_paths(code: str, exist=files_and_folders) -> list[str]:
    """The paths in a code span that name nothing tracked. A code span may be a command: each word is checked."""
    found = []
    for word in code.split():
        # `src/db/pool.rs:12` is line 12; `scripts/test.sh,` ends a clause.
        word = re.sub(r":\d+$", "", word.rstrip(",;"))
        if PATH.fullmatch(word):
            found += [path for path in alternatives(word.removeprefix("./").rstrip("/")) if not matches(path, exist())]
    return found


def matches(path: str, existing: frozenset[str]) -> bool:
    if not has_magic(path):
        return normpath(path) in existing
    return any(PurePosixPath(one).match(path) for one in existing)


@pytest.mark.parametrize("file", markdown_files())
def test_links_and_anchors_resolve(file: str) -> None:
    faults = [f"{file}:{line}: {wrong}: {link}" for line, link in document(file).links if (wrong := fault(file, link))]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("file", [file for file in markdown_files() if file not in OF_OTHERS])
def test_paths_in_code_spans_exist(file: str) -> None:
    faults = [f"{file}:{line}: `{path}`" for line, code in document(file).code for path in missing_paths(code)]
    assert not faults, "\n".join(faults)


def test_the_readme_is_short() -> None:
    """As `wc -w` counts."""
    assert len((ROOT / "README.md").read_text().split()) < README_WORDS


# --- The checks themselves

SAMPLE = """
# prop, and `why`: a *ledger*

## Set-up, in order
### Set-up, in order
## Ünïcode & symbols_2 [link](other.md)
<a id="by-hand"></a>
![alt](images/a.png) <img src="images/b.png">
"""


def test_anchors_are_those_of_github() -> None:
    expected = {"prop-and-why-a-ledger", "set-up-in-order", "set-up-in-order-1", "ünïcode--symbols_2-link", "by-hand"}
    assert Document(SAMPLE).anchors == expected
    assert [link for _, link in Document(SAMPLE).links] == ["other.md", "images/a.png", "images/b.png"]
    assert Document("a\nb [c](d)\n").links == [(2, "d")]


@pytest.mark.parametrize(
    ("link", "wrong"),
    [
        ("other.md", None), ("../README.md", None), ("other.md#by-hand", None), ("#here", None), ("https://example.org/a#b", None),
        ("mailto:security@example.org", None), ("../src", None),
        ("absent.md", "no such file"), ("../../README.md", "no such file"), ("other.md#elsewhere", "no such anchor"), ("#there", "no such anchor"),
        ("../src/main.rs#main", "anchor in a file that has none"), ("/README.md", "absolute path"), ("https://", "malformed URL"),
        ("htp://example.org", "malformed URL"), ("https://exa mple.org", "malformed URL"), ("mailto:nobody", "no address"),
        ("../LICENSE#L1", None), ("../LICENSE#L1-L99999", "no such line"),
    ],
)  # fmt: skip
def test_a_broken_link_is_found(link: str, wrong: str | None) -> None:
    documents = {"docs/a.md": Document("# Here"), "docs/other.md": Document('<a id="by-hand"></a>')}
    existing = frozenset({"README.md", "LICENSE", "docs", "docs/a.md", "docs/other.md", "src", "src/main.rs"})
    assert fault("docs/a.md", link, documents.get, lambda: existing) == wrong


@pytest.mark.parametrize(
    ("code", "missing"),
    [
        ("src/main.rs", []), ("src/", []), ("src/*.rs", []), ("docs/{a,b}.md", ["docs/b.md"]), ("src/gone.rs", ["src/gone.rs"]),
        ("./scripts/gone.sh staging", ["scripts/gone.sh"]), ("src/main.rs:12", []), ("scripts/<name>.sh", []), ("prop.toml", []),
    ],
)  # fmt: skip
def test_a_path_that_names_nothing_is_found(code: str, missing: list[str]) -> None:
    existing = frozenset({"src", "src/main.rs", "docs", "docs/a.md", "scripts"})
    assert missing_paths(code, lambda: existing) == missing


def test_every_top_level_folder_is_checked() -> None:
    folders = {Path(file).parts[0] for file in tracked_files() if "/" in file}
    assert {folder for folder in folders if not PATH.fullmatch(f"{folder}/x")} == set()
