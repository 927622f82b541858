"""A client in TypeScript whose types are generated from the document."""

import os
import re
import subprocess
from pathlib import Path

import pytest

CLIENT = Path(__file__).resolve().parent / "typescript"


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=CLIENT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300)


def compile(project: str) -> subprocess.CompletedProcess:
    return run("node_modules/.bin/tsc", "--project", project, "--pretty", "false")


@pytest.fixture(scope="module", autouse=True)
def types(document):
    generated = run("node_modules/.bin/openapi-typescript", document, "--output", "generated/prop.ts")
    assert generated.returncode == 0, generated.stdout + generated.stderr


def test_typescript_client_records_a_deployment(prop):
    compiled = compile("tsconfig.json")
    assert compiled.returncode == 0, compiled.stdout
    recorded = run("node", "build/record.js", PROP_URL=prop.url, PROP_KEY=prop.key)
    assert recorded.returncode == 0, recorded.stdout + recorded.stderr
    assert recorded.stdout == "checkout 1.4.2 succeeded in staging; 3 deployments on 2 pages\n"


def test_typescript_client_with_wrong_fields_does_not_compile():
    compiled = compile("tsconfig.wrong_field.json")
    lines = (CLIENT / "wrong_field.ts").read_text().splitlines()
    wrong = [number for number, line in enumerate(lines, 1) if line.endswith("// wrong")]
    refused = [int(number) for number in re.findall(r"^wrong_field\.ts\((\d+),\d+\): error TS", compiled.stdout, re.MULTILINE)]
    assert compiled.returncode != 0
    assert refused == wrong, compiled.stdout
