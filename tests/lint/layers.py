"""The structure of src/: who imports whom, import circles, and the length of functions.

    python3 tests/lint/layers.py [FOLDER]

prints the figures and every violation. It exits with 1 if there is one. The code is read without its
comments, strings and `#[cfg(test)]` items. An import is a `use`, or a path within the code, that
leads to another file of ours. Three cases need a word:

- A macro counts where it is written: `$crate::db::Db` in a macro of src/types/ is an import there.
- `pub use child::Name` passes a name on. It is no import; who uses the name imports the child.
- A parent that registers the `routes` of what lies below it puts it together, as app.rs does with
  the parts. That is no import either; any other path to a child is one.
"""

import re
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# What each part may import. A new file or folder at the top of src/ gets a line here.
#
# `error`, `suggest`, `logging` and `config` are ground for `http` and `ledger`: they know no request.
# An error names what went wrong in the database; settings are values that may be held where they
# apply.
ALLOWED: dict[str, set[str]] = {
    "types": set(),
    "suggest": set(),
    "rules": {"types"},
    "db": {"types"},
    "logging": {"types"},
    "error": {"types", "db", "suggest"},
    "config": {"types", "db", "suggest"},
    "http": {"types", "db", "error", "suggest", "logging", "config"},
    "web": {"types", "http", "error"},
    "ledger": {"types", "db", "rules", "http", "error", "suggest", "logging", "config"},
}
WIRES = {"app", "main", "lib"}  # put the parts together, and may import all
MAX_FUNCTION_LINES = 60
MAX_COLUMNS = 100

Module = tuple[str, ...]  # ("db", "pool") is src/db/pool.rs; ("db",) is src/db/mod.rs

NOT_CODE = re.compile(
    r"""
    //[^\n]* | /\*.*?\*/
    | \bb?r(?P<hashes>\#*)".*?"(?P=hashes) | "(?:\\.|[^"\\])*"
    | '(?: \\(?:u\{\w+\}|x\w\w|.) | [^\\'] )'
    """,
    re.S | re.X,
)
TEST_ONLY = re.compile(r"#\[cfg\((?:test|all\(test\b[^\]]*)\)\](?:\s*#\[[^\]]*\])*")
TEST_FILE = re.compile(TEST_ONLY.pattern + r"\s*mod\s+(\w+)\s*;")
NESTED = re.compile(r"\bmod\s+(\w+)\s*(?=\{)|\btable!\s*(?=\{)")  # a diesel table is a module too
USE = re.compile(r"\b(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);")
INLINE = re.compile(r"(?<![\w:])(\$?\w+)((?:::\w+)+)")
MACRO = re.compile(r"#\[macro_export\]\s*(?:#\[[^\]]*\]\s*)*macro_rules!\s*(\w+)")
FUNCTION = re.compile(r"\bfn\s+(\w+)")
BACKEND = re.compile(r"\bDb::(?:Pg|Sqlite)\b|\bDb::\{[^}]*\b(?:Pg|Sqlite)\b")


def blank(text: str) -> str:
    """Spaces of the same length, so that positions and lines stay."""
    return re.sub(r"[^\n]", " ", text)


def without_comments(text: str) -> str:
    return NOT_CODE.sub(lambda found: blank(found[0]), text)


def closing(text: str, opening: int) -> int:
    """The position after the bracket that closes the one at `opening`."""
    depth = 0
    for position in range(opening, len(text)):
        if text[position] in "([{":
            depth += 1
        elif text[position] in ")]}":
            depth -= 1
            if depth == 0:
                return position + 1
    return len(text)


def body(text: str, start: int) -> tuple[int, int] | None:
    """Where the item that begins at `start` has its braces; None if it ends with a semicolon."""
    position = start
    while position < len(text):
        if text[position] == "{":
            return position, closing(text, position)
        if text[position] in ";}":
            return None
        position = closing(text, position) if text[position] in "([" else position + 1
    return None


def without_tests(text: str) -> str:
    while found := TEST_ONLY.search(text):
        braces = body(text, found.end())
        end = braces[1] if braces else text.find(";", found.end()) + 1 or len(text)
        text = text[: found.start()] + blank(text[found.start() : end]) + text[end:]
    return text


def is_below(path: Module, module: Module) -> bool:
    return path[: len(module)] == module


@dataclass(frozen=True)
class Import:
    """One file needs another."""

    importer: Module
    imported: Module
    line: int
    path: Module


@dataclass
class File:
    module: Module
    path: Path
    code: str
    test_files: list[Module] = field(default_factory=list)  # declared with `#[cfg(test)] mod name;`
    nested: list[tuple[int, int, str]] = field(default_factory=list)  # inline modules: start, end, name

    def line(self, position: int) -> int:
        return self.code.count("\n", 0, position) + 1

    def module_at(self, position: int) -> Module:
        """The module, with the inline ones around a position."""
        return (*self.module, *(name for start, end, name in self.nested if start <= position < end))


def leaves(tree: str, offset: int, prefix: Module = ()) -> Iterator[tuple[Module, str, int]]:
    """The paths of a `use`, each with the name that it gets and its position."""
    tree, offset = tree.rstrip(), offset + len(tree) - len(tree.lstrip())
    tree = tree.lstrip()
    if tree.startswith("{"):
        depth, start = 0, 1
        for position, character in enumerate(tree):
            depth += (character == "{") - (character == "}")
            if (character == "," and depth == 1) or (character == "}" and depth == 0):
                yield from leaves(tree[start:position], offset + start, prefix)
                start = position + 1
        return
    head, separator, rest = tree.partition("::")
    if separator:
        yield from leaves(rest, offset + len(head) + 2, (*prefix, head.strip()))
        return
    name, _, alias = (word.strip() for word in tree.partition(" as "))
    if name and not (name == "self" and prefix):
        prefix = (*prefix, name)
    if prefix:
        yield prefix, alias or prefix[-1], offset


class Tree:
    """The Rust files below a folder, and what they import."""

    def __init__(self, folder: Path):
        self.folder = folder
        files = [self.read(path) for path in sorted(folder.rglob("*.rs"))]
        tests = [module for file in files for module in file.test_files]
        self.files = {
            file.module: file
            for file in files
            if not any(is_below(file.module, test) for test in tests)
        }
        self.macros = {
            name: file.module for file in self.files.values() for name in MACRO.findall(file.code)
        }
        self.reexports: dict[tuple[Module, str], Module] = {}
        self.uses = {module: list(self.uses_of(file)) for module, file in self.files.items()}
        for module, uses in self.uses.items():
            for target, name, _, public in uses:
                if public and target != (*module, name):
                    self.reexports[module, name] = target
        self.imports = [found for file in self.files.values() for found in self.imports_of(file)]
        self.arrows: dict[Module, dict[Module, Import]] = {module: {} for module in self.files}
        for found in self.imports:
            self.arrows[found.importer].setdefault(found.imported, found)

    def read(self, path: Path) -> File:
        names = path.relative_to(self.folder).with_suffix("").parts
        module = names[:-1] if names[-1] == "mod" else names
        text = without_comments(path.read_text())
        parent = () if module in (("lib",), ("main",)) else module
        test_files = [(*parent, name) for name in TEST_FILE.findall(text)]
        code = without_tests(text)
        nested = [(*body(code, found.start()), found[1] or "table") for found in NESTED.finditer(code)]
        return File(module, path, code, test_files, nested)

    def absolute(self, path: Module, file: File, position: int) -> Module | None:
        """A path from the root of the crate; None if it leads to another crate, or to a local name."""
        first, module = path[0], file.module_at(position)
        if first in ("crate", "$crate"):
            return path[1:]
        if first == "prop" and file.module == ("main",):
            return path[1:]
        if first == "super":
            above = len([word for word in path if word == "super"])
            return (*module[: len(module) - above], *path[above:])
        if first == "self":
            return (*module, *path[1:])
        return (*module, *path) if (*module, first) in self.files else None

    def uses_of(self, file: File) -> Iterator[tuple[Module, str, int, bool]]:
        for use in USE.finditer(file.code):
            for path, name, position in leaves(use[2], use.start(2)):
                target = self.absolute(path, file, use.start())
                if target is not None:
                    yield target, name, position, bool(use[1])

    def defined_in(self, path: Module, followed: int = 0) -> Module | None:
        """The file that defines what a path names; names that another file passes on are followed."""
        for length in range(len(path), 0, -1):
            module = path[:length]
            if module not in self.files:
                continue
            passed_on = self.reexports.get((module, path[length])) if length < len(path) else None
            if passed_on and followed < 10:
                return self.defined_in((*passed_on, *path[length + 1 :]), followed + 1)
            return module
        return self.macros.get(path[0]) if path else None

    def imports_of(self, file: File) -> Iterator[Import]:
        paths: list[tuple[Module, int]] = []
        modules: dict[str, Module] = {}
        for target, name, position, public in self.uses[file.module]:
            if target in self.files:
                modules[name] = target
            if not (public and is_below(target, file.module)):
                paths.append((target, position))
        code = USE.sub(lambda use: blank(use[0]), file.code)
        for found in INLINE.finditer(code):
            words = (found[1], *found[2].split("::")[1:])
            target = self.absolute(words, file, found.start())
            if target is None and words[0] in modules:
                target = (*modules[words[0]], *words[1:])
            if target is not None:
                paths.append((target, found.start()))
        for target, position in paths:
            imported = self.defined_in(target)
            registers = target == (*(imported or ()), "routes") and is_below(imported, file.module)
            if imported is not None and imported != file.module and not registers:
                yield Import(file.module, imported, file.line(position), target)

    def at(self, found: Import) -> str:
        return f"{self.files[found.importer].path}:{found.line}"

    @staticmethod
    def goes_up(found: Import) -> bool:
        importer, imported = found.importer[0], found.imported[0]
        return importer != imported and importer in ALLOWED and imported not in ALLOWED[importer]

    def direction_faults(self) -> list[str]:
        """Imports against the allowed directions."""
        faults = [
            f"{file.path}: `{file.module[0]}` is new: add to ALLOWED what it may import"
            for file in self.files.values()
            if file.module[0] not in WIRES | ALLOWED.keys()
        ]
        for found in filter(self.goes_up, self.imports):
            parts = f"{found.importer[0]} must not import {found.imported[0]}"
            faults.append(f"{self.at(found)}: {parts}: {'::'.join(found.path)}")
        return faults

    def upward_arrows(self) -> set[tuple[Module, Module]]:
        """Pairs of files of which one imports the other against the allowed directions."""
        return {(one.importer, one.imported) for one in self.imports if self.goes_up(one)}

    def way(self, start: Module, end: Module) -> list[Module]:
        """The shortest way along the imports; empty if there is none."""
        before: dict[Module, Module | None] = {start: None}
        waiting = deque([start])
        while waiting:
            module = waiting.popleft()
            if module == end:
                way = [module]
                while (previous := before[way[-1]]) is not None:
                    way.append(previous)
                return way[::-1]
            for following in self.arrows[module]:
                if following not in before:
                    before[following] = module
                    waiting.append(following)
        return []

    def circles(self) -> list[list[Module]]:
        """The groups of files that all import each other, directly or through others."""
        groups: list[list[Module]] = []
        for module in self.files:
            if not any(module in group for group in groups):
                reached = [other for other in self.files if self.way(module, other)]
                group = [other for other in reached if self.way(other, module)]
                if len(group) > 1:
                    groups.append(group)
        return groups

    def circle_faults(self) -> list[str]:
        """The shortest ways round, until each import within a circle was shown."""
        ways = [
            [self.arrows[module][following], *self.steps(self.way(following, module))]
            for group in self.circles()
            for module in group
            for following in self.arrows[module].keys() & set(group)
        ]
        faults, shown = [], set()
        for way in sorted(ways, key=lambda way: (len(way), [step.importer for step in way])):
            if way[0] not in shown:
                shown |= set(way)
                names = " -> ".join("::".join(step.importer) for step in [*way, way[0]])
                steps = [f"{self.at(step)}: {'::'.join(step.path)}" for step in way]
                faults.append("\n    ".join([f"circle: {names}", *steps]))
        return faults

    def steps(self, way: list[Module]) -> list[Import]:
        return [self.arrows[one][other] for one, other in zip(way, way[1:], strict=False)]

    def backend_faults(self) -> list[str]:
        """Where a database is named outside of src/db/."""
        return [
            f"{file.path}:{file.line(found.start())}: only src/db/ may name {found[0]}"
            for file in self.files.values()
            if file.module[0] != "db"
            for found in BACKEND.finditer(file.code)
        ]

    def functions(self) -> list[tuple[int, str]]:
        """The length of each function in lines, and where it is; the longest first."""
        found = []
        for file in self.files.values():
            for function in FUNCTION.finditer(file.code):
                if braces := body(file.code, function.end()):
                    first, last = file.line(function.start()), file.line(braces[1] - 1)
                    found.append((last - first + 1, f"{file.path}:{first}: {function[1]}"))
        return sorted(found, key=lambda one: (-one[0], one[1]))

    def function_faults(self) -> list[str]:
        long = [one for one in self.functions() if one[0] > MAX_FUNCTION_LINES]
        return [f"{where} has {lines} lines" for lines, where in long]


def wide_lines(*folders: Path) -> list[str]:
    """Lines of Rust that are longer than rustfmt makes them."""
    return [
        f"{path}:{number}: {len(line)} columns"
        for folder in folders
        for path in sorted(folder.rglob("*.rs"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > MAX_COLUMNS
    ]


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "src")
    tree = Tree(folder)
    directions, circles = tree.direction_faults(), tree.circle_faults()
    backends, functions = tree.backend_faults(), tree.function_faults()
    faults = [*directions, *circles, *backends, *functions]
    print("\n".join(faults))
    longest, where = next(iter(tree.functions()), (0, "none"))
    figures = {
        "files": len(tree.files),
        "imports from file to file": sum(map(len, tree.arrows.values())),
        "of these, back up": len(tree.upward_arrows()),
        "circles": len(tree.circles()),
        "files in circles": sum(map(len, tree.circles())),
        "lines that name a database outside of db/": len(backends),
        "functions": len(tree.functions()),
        f"functions over {MAX_FUNCTION_LINES} lines": len(functions),
        "lines of the longest function": f"{longest} ({where})",
        f"lines over {MAX_COLUMNS} columns": len(wide_lines(folder)),
    }
    for name, figure in figures.items():
        print(f"{name:<42} {figure}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
