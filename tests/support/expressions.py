"""Workflows and expressions as GitHub reads them: by its own parser and its own evaluator, in a process of Node (tests/workflows)."""

import atexit
import json
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

SERVER = Path(__file__).resolve().parents[1] / "workflows/serve.js"

Functions = dict[str, Callable[..., Any]]
EXPRESSION = "$expression"


def read(file: Path) -> dict[str, Any]:
    """A workflow. What is an expression in it is for `fill_in` and `condition`."""
    return ask({"file": str(file)})["value"]


def fill_in(value: Any, contexts: dict[str, Any], functions: Functions) -> Any:
    """A part of a workflow with the values of its expressions."""
    if isinstance(value, list):
        return [fill_in(one, contexts, functions) for one in value]
    if not isinstance(value, dict):
        return value
    if EXPRESSION in value:
        return evaluate(value[EXPRESSION], contexts, functions)
    return {name: fill_in(one, contexts, functions) for name, one in value.items()}


def condition(value: Any, contexts: dict[str, Any], functions: Functions) -> bool:
    """Whether an `if:` holds; without one, only after success."""
    return bool(fill_in(value, contexts, functions) if value is not None else functions["success"]())


def text(value: Any) -> str:
    """A value as it is put into a variable."""
    if value is None or isinstance(value, bool):
        return {None: "", True: "true", False: "false"}[value]
    return str(value)


def evaluate(expression: str, contexts: dict[str, Any], functions: Functions) -> Any:
    """The value of an expression. A function without arguments is called before, any other once its argument is known."""
    values = {name: {} if name == "hashFiles" else function() for name, function in functions.items()}
    while unknown := (answer := ask({"expression": expression, "contexts": contexts, "functions": values})).get("unknown"):
        name, argument = unknown
        values[name][argument] = functions[name](argument)
    return answer["value"]


def ask(request: dict[str, Any]) -> dict[str, Any]:
    process = server()
    assert process.stdin and process.stdout
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    assert line, "Node.js 20 and the packages of tests/workflows are missing: npm ci --prefix tests/workflows"
    answer = json.loads(line)
    assert "error" not in answer, f"{request.get('expression') or request.get('file')}: {answer['error']}"
    return answer


@cache
def server() -> subprocess.Popen[str]:
    process = subprocess.Popen(["node", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(process.kill)
    return process
