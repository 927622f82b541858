"""Running a script of ours as its user would."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The AWS CLI is in the virtual environment that runs the tests.
TOOLS = Path(sys.executable).parent


def run(
    script: str,
    *arguments: str,
    typed: str = "",
    path: Path | None = None,
    cwd: Path | None = None,
    timeout: float = 120,
    **environment: str,
):
    """Runs scripts/`script`, with nothing of the caller's environment but a PATH, on which `path` comes first."""
    directories = [*([str(path)] if path else []), str(TOOLS), os.environ["PATH"]]
    return subprocess.run(
        [ROOT / "scripts" / script, *arguments],
        input=typed,
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
        env={"PATH": ":".join(directories), **environment},
    )
