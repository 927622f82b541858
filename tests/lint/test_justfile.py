"""Every recipe of the justfile has a comment, and runs a command that exists."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from repository import ROOT

JUST = Path(sys.executable).parent / "just"


def just(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([JUST, *arguments], cwd=ROOT, check=True, capture_output=True, text=True)


RECIPES: dict[str, Any] = json.loads(just("--dump", "--dump-format", "json").stdout)["recipes"]
# What the recipes call beside this repository's scripts; not every machine that runs the lints has all.
PROGRAMS = {"cargo", "docker"}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_a_comment_and_is_one_command(name: str) -> None:
    assert RECIPES[name]["doc"], "`just` lists the comment"
    assert len(RECIPES[name]["body"]) == 1


@pytest.mark.parametrize("name", RECIPES.keys() - {"default"})
def test_a_recipe_runs_a_command_that_exists(name: str) -> None:
    required = [
        parameter["name"]
        for parameter in RECIPES[name]["parameters"]
        if parameter["kind"] != "star" and parameter["default"] is None
    ]
    # --dry-run prints the line that the shell would run.
    line = just("--dry-run", name, *required).stderr
    program = shlex.split(line)[0]
    script = ROOT / program
    assert program in PROGRAMS or (script.is_file() and os.access(script, os.X_OK)), line
    for file in (word for word in shlex.split(line) if word.endswith((".json", ".yaml"))):
        assert (ROOT / file).is_file(), line


def test_just_lists_every_recipe() -> None:
    assert just().stdout.count("#") == len(RECIPES)
