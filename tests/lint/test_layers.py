"""The structure of src/, as docs/architecture.md describes it; and layers.py itself, on small trees."""

from pathlib import Path

import pytest
from layers import MAX_FUNCTION_LINES, Tree, wide_lines
from repository import ROOT


@pytest.fixture(scope="module")
def src() -> Tree:
    return Tree(ROOT / "src")


def report(faults: list[str]) -> str:
    return "\n".join(fault.replace(f"{ROOT}/", "") for fault in faults)


def test_a_part_imports_only_what_lies_below_it(src: Tree) -> None:
    assert not (faults := src.direction_faults()), report(faults)


def test_no_files_import_each_other_in_a_circle(src: Tree) -> None:
    assert not (faults := src.circle_faults()), report(faults)


def test_only_db_names_a_database(src: Tree) -> None:
    assert not (faults := src.backend_faults()), report(faults)


def test_no_function_is_too_long(src: Tree) -> None:
    assert not (faults := src.function_faults()), report(faults)


# --- layers.py itself


@pytest.fixture
def tree(tmp_path: Path):
    """Makes a tree of the files with these contents."""

    def make(files: dict[str, str]) -> Tree:
        for name, code in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code)
        return Tree(tmp_path)

    return make


def arrows(tree: Tree) -> set[str]:
    return {
        f"{'::'.join(importer)} -> {'::'.join(imported)}"
        for importer, following in tree.arrows.items()
        for imported in following
    }


POOL = {"db/mod.rs": "pub mod pool;\npub struct Db;", "db/pool.rs": "pub struct Pool;"}


@pytest.mark.parametrize(
    ("code", "imported"),
    [
        ("use crate::db::Db;", {"db"}),
        ("use crate::db::pool::Pool;", {"db::pool"}),
        ("pub use crate::db::pool::Pool;", {"db::pool"}),
        ("use crate::db::{Db, pool::{self, Pool as Connections}};", {"db", "db::pool"}),
        ("use crate::{\n    db::pool,\n};", {"db::pool"}),
        ("use crate::db::*;", {"db"}),
        ("fn f() { crate::db::pool::open() }", {"db::pool"}),
        ("fn f(x: &crate::db::Db) {}", {"db"}),
        ("fn f() { use crate::db::pool; }", {"db::pool"}),
        # A path through a module that was imported leads further than the import.
        ("use crate::db;\nfn f() { db::pool::open() }", {"db", "db::pool"}),
        ("macro_rules! m { () => { $crate::db::pool::open() } }", {"db::pool"}),
        ("use std::fmt;\nuse diesel::db::Db;\nuse ::db::Db;", set()),
        ("// use crate::db::Db;\n/* crate::db::Db */", set()),
        ('const A: &str = "use crate::db::Db;";\nconst B: &str = r#"" crate::db::Db"#;', set()),
        ("const A: char = '\"';\nfn f<'a>(x: &'a str) -> &'a str { crate::db::pool::open(x) }", {"db::pool"}),
        ("#[cfg(test)]\nmod tests {\n    use crate::db::Db;\n}", set()),
        ("#[cfg(test)]\nuse crate::db::Db;\nuse crate::db::pool::Pool;", {"db::pool"}),
        ("#[cfg(test)]\n#[derive(Debug)]\nfn f() { crate::db::open() }", set()),
    ],
)
def test_imports_are_found(tree, code: str, imported: set[str]) -> None:
    assert arrows(tree(POOL | {"ledger.rs": code})) == {f"ledger -> {name}" for name in imported}


@pytest.mark.parametrize(
    ("code", "imported"),
    [
        ("use super::Db;", {"db"}),
        ("use super::pool::Pool;", {"db::pool"}),
        ("use super::super::error::Error;", {"error"}),
        ("use self::inner::A;\nmod inner { pub struct A; }", set()),
        # Within an inline module, and a table of diesel, `super` is the file itself.
        ("mod inner {\n    use super::A;\n}", set()),
        ("mod inner {\n    use super::super::Db;\n}", {"db"}),
        ("diesel::table! {\n    use super::A;\n    a (id) { id -> A, }\n}", set()),
    ],
)
def test_relative_paths_are_found(tree, code: str, imported: set[str]) -> None:
    made = tree(POOL | {"error.rs": "", "db/types.rs": code})
    assert arrows(made) == {f"db::types -> {name}" for name in imported}


def test_a_file_of_tests_is_left_out(tree) -> None:
    made = tree({
        "rules/dora.rs": "pub struct Window;\n#[cfg(test)]\nmod tests;",
        "rules/dora/tests.rs": "use super::Window;\nuse crate::db::Db;",
        "db/mod.rs": "pub struct Db;",
    })  # fmt: skip
    assert ("rules", "dora", "tests") not in made.files and arrows(made) == set()


def test_a_macro_belongs_to_the_file_that_defines_it(tree) -> None:
    made = tree({
        "db/types.rs": "#[macro_export]\nmacro_rules! identifier { () => { $crate::db::types::A } }",
        "types/ids.rs": "use crate::identifier;\nidentifier!();",
    })  # fmt: skip
    assert arrows(made) == {"types::ids -> db::types"}


def test_a_name_that_is_passed_on_belongs_to_its_own_file(tree) -> None:
    """Else a parent that passes on its children's names would be in a circle with each of them."""
    made = tree({
        "rules/dora.rs": "mod figures;\npub use figures::{Figures, Share as Part};\npub struct Window;",
        "rules/dora/figures.rs": "use super::Window;\npub struct Figures(Window);",
        "ledger.rs": "use crate::rules::dora::{Figures, Part};",
    })  # fmt: skip
    assert arrows(made) == {"rules::dora::figures -> rules::dora", "ledger -> rules::dora::figures"}
    assert made.circle_faults() == []


CHILD = {"ledger/keys.rs": "use super::Error;\npub fn routes() {}\npub fn find() {}"}


def test_a_parent_that_registers_routes_does_not_import_its_child(tree) -> None:
    made = tree(CHILD | {
        "ledger/mod.rs": "mod keys;\nfn routes(c: C) { c.configure(keys::routes).configure(views::place::routes); }",
        "ledger/views/mod.rs": "pub mod place;",
        "ledger/views/place.rs": "use crate::ledger::keys::routes;",
    })  # fmt: skip
    assert arrows(made) == {"ledger::keys -> ledger", "ledger::views::place -> ledger::keys"}


def test_a_parent_and_a_child_that_call_each_other_are_a_circle(tree) -> None:
    made = tree(CHILD | {"ledger/mod.rs": "mod keys;\n\nfn f() { keys::find() }"})
    (fault,) = made.circle_faults()
    assert "circle: ledger -> ledger::keys -> ledger" in fault
    assert "ledger/mod.rs:3: ledger::keys::find" in fault and "ledger/keys.rs:1: ledger::Error" in fault


def test_a_circle_through_several_files_is_reported_with_each_import(tree) -> None:
    made = tree({
        "config.rs": "use crate::http::auth::Token;",
        "http/auth.rs": "\nuse crate::http::context::State;",
        "http/context.rs": "fn f(http: crate::config::Http) {}",
        "http/docs.rs": "use crate::http::context::State;",
    })  # fmt: skip
    assert [sorted(group) for group in made.circles()] == [[("config",), ("http", "auth"), ("http", "context")]]
    (fault,) = made.circle_faults()
    assert [line.split("/", 1)[1].rsplit("/", 1)[-1] for line in fault.splitlines()[1:]] == [
        "config.rs:1: http::auth::Token",
        "auth.rs:2: http::context::State",
        "context.rs:1: config::Http",
    ]


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("types/ids.rs", "error.rs", False),
        ("rules/gate.rs", "types/ids.rs", True),
        ("rules/gate.rs", "db/types.rs", False),
        ("db/pool.rs", "rules/gate.rs", False),
        ("http/context.rs", "db/pool.rs", True),
        ("http/context.rs", "error.rs", True),
        ("http/context.rs", "rules/gate.rs", False),
        ("http/context.rs", "ledger/keys.rs", False),
        ("ledger/keys.rs", "http/context.rs", True),
        ("ledger/keys.rs", "app.rs", False),
        ("web/mod.rs", "http/context.rs", True),
        ("http/docs.rs", "web/mod.rs", False),
        ("config.rs", "http/context.rs", False),
        ("app.rs", "ledger/keys.rs", True),
        ("main.rs", "ledger/keys.rs", True),
    ],
)
def test_directions(tree, importer: str, imported: str, allowed: bool) -> None:
    path = imported.removesuffix(".rs").removesuffix("/mod").replace("/", "::")
    root = "prop" if importer == "main.rs" else "crate"
    made = tree({importer: f"use {root}::{path}::A;", imported: "pub struct A;"})
    assert len(made.imports) == 1
    assert (made.direction_faults() == []) == allowed
    assert len(made.upward_arrows()) == (0 if allowed else 1)


def test_a_new_part_needs_a_line_in_allowed(tree) -> None:
    (fault,) = tree({"cache/mod.rs": ""}).direction_faults()
    assert "cache/mod.rs: `cache` is new" in fault


def test_databases_are_named_in_db_alone(tree) -> None:
    made = tree({
        "db/mod.rs": "fn f() { Db::Pg(c) }",
        "ledger/keys.rs": "// Db::Pg\nfn f() {\n    if let Db::Sqlite(c) = db {}\n}\nuse crate::db::Db::{self, Pg};",
    })  # fmt: skip
    assert [fault.split("keys.rs:")[1].split(":")[0] for fault in made.backend_faults()] == ["3", "5"]


def test_long_functions_are_found_by_their_lines(tree) -> None:
    def function(name: str, lines: int) -> str:
        return f"/// Says {{ nothing.\n#[must_use]\npub fn {name}(\n    x: [u8; 2],\n) {{\n" + '    f("}");\n' * (lines - 4) + "}\n"

    code = (
        "trait T { fn declared(&self) -> [u8; 4]; }\n"
        + function("short", MAX_FUNCTION_LINES)
        + function("long", MAX_FUNCTION_LINES + 1)
        + "#[cfg(test)]\nmod tests {\n"
        + function("tested", 200)
        + "}\n"
    )
    made = tree({"app.rs": code})
    assert [(lines, where.rsplit(" ", 1)[1]) for lines, where in made.functions()] == [(61, "long"), (60, "short")]
    assert [fault.split("app.rs:")[1] for fault in made.function_faults()] == ["66: long has 61 lines"]


def test_wide_lines_are_counted(tree, tmp_path: Path) -> None:
    tree({"app.rs": "// " + "é" * 97 + "\n// " + "x" * 98 + "\n"})
    assert [fault.split("app.rs:")[1] for fault in wide_lines(tmp_path)] == ["2: 101 columns"]
