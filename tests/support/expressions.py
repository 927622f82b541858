"""GitHub's expressions, as the workflow uses them: what stands in ${{ }} and behind `if:`.

After https://docs.github.com/en/actions/reference/evaluate-expressions-in-workflows-and-actions: loose comparison, `a && b || c`,
functions. What is not known is an error, never a guess.
"""

import json
import re
from collections.abc import Callable
from typing import Any

TOKEN = re.compile(r"\s*(?:(?P<string>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?)|(?P<name>[A-Za-z_][\w-]*)|(?P<operator>\|\||&&|[!=]=|[<>]=?|[!().,\[\]*]))")
STATUS_FUNCTIONS = ("success", "failure", "always", "cancelled")

Functions = dict[str, Callable[..., Any]]


def text(value: Any) -> str:
    """A value as it is put into a string."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        return "Object" if isinstance(value, dict) else "Array"
    return str(value)


def number(value: Any) -> float:
    if value is None or value == "":
        return 0.0
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def equal(left: Any, right: Any) -> bool:
    if isinstance(left, str) and isinstance(right, str):
        return left.lower() == right.lower()
    if type(left) is type(right):
        return left == right
    return number(left) == number(right)


class Expression:
    """One expression over some contexts."""

    def __init__(self, source: str, contexts: dict[str, Any], functions: Functions):
        self.tokens = self.scan(source.strip())
        self.source, self.contexts = source, contexts
        self.functions = {"format": self.format, "tojson": lambda value: json.dumps(value, indent=2), **{name.lower(): f for name, f in functions.items()}}

    @staticmethod
    def scan(source: str) -> list[tuple[str, str]]:
        tokens, at = [], 0
        while at < len(source):
            match = TOKEN.match(source, at)
            assert match, f"can't read {source[at:]!r}"
            tokens.append((match.lastgroup or "", match[match.lastgroup or 0]))
            at = match.end()
        return tokens

    @staticmethod
    def format(template: str, *values: Any) -> str:
        return re.sub(r"\{(\d+)\}", lambda match: text(values[int(match[1])]), template)

    def value(self) -> Any:
        found = self.either()
        assert not self.tokens, f"{self.source!r}: what is {self.tokens}?"
        return found

    def next_is(self, *operators: str) -> str | None:
        if self.tokens and self.tokens[0][0] == "operator" and self.tokens[0][1] in operators:
            return self.tokens.pop(0)[1]
        return None

    def either(self) -> Any:
        left = self.both()
        while self.next_is("||"):
            right = self.both()
            left = left or right
        return left

    def both(self) -> Any:
        left = self.comparison()
        while self.next_is("&&"):
            right = self.comparison()
            left = left and right
        return left

    def comparison(self) -> Any:
        left = self.unary()
        while operator := self.next_is("==", "!="):
            left = equal(left, self.unary()) == (operator == "==")
        return left

    def unary(self) -> Any:
        if self.next_is("!"):
            return not self.unary()
        return self.primary()

    def primary(self) -> Any:
        if self.next_is("("):
            found = self.either()
            assert self.next_is(")"), self.source
            return found
        kind, token = self.tokens.pop(0)
        if kind == "string":
            return token[1:-1].replace("''", "'")
        if kind == "number":
            return float(token)
        assert kind == "name", f"{self.source!r}: what is {token}?"
        if token in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[token]
        if self.next_is("("):
            return self.call(token)
        assert token in self.contexts, f"{self.source!r}: there is no context {token} here"
        found = self.contexts[token]
        while self.next_is("."):
            _, name = self.tokens.pop(0)
            found = found.get(name) if isinstance(found, dict) else None
        return found

    def call(self, name: str) -> Any:
        arguments = []
        while not self.next_is(")"):
            arguments.append(self.either())
            self.next_is(",")
        assert name.lower() in self.functions, f"{self.source!r}: there is no function {name} here"
        return self.functions[name.lower()](*arguments)


def evaluate(source: str, contexts: dict[str, Any], functions: Functions) -> Any:
    """The value of an expression."""
    return Expression(source, contexts, functions).value()


def fill_in(template: Any, contexts: dict[str, Any], functions: Functions) -> Any:
    """A value of the workflow with its expressions evaluated. Alone, one keeps its type."""
    if not isinstance(template, str):
        return template
    if whole := re.fullmatch(r"\s*\$\{\{((?:(?!\}\}).)*)\}\}\s*", template, re.DOTALL):
        return evaluate(whole[1], contexts, functions)
    return re.sub(r"\$\{\{(.*?)\}\}", lambda match: text(evaluate(match[1], contexts, functions)), template)


def condition(source: Any, contexts: dict[str, Any], functions: Functions) -> bool:
    """Whether an `if:` holds: without a word about the status, only after success."""
    source = re.sub(r"^\s*\$\{\{(.*)\}\}\s*$", r"\1", "true" if source is None else str(source), flags=re.DOTALL)
    speaks_of_status = any(re.search(rf"\b{name}\s*\(", source) for name in STATUS_FUNCTIONS)
    return bool((speaks_of_status or functions["success"]()) and evaluate(source, contexts, functions))
