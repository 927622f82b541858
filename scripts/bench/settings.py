"""What is measured, as scripts/bench.sh passes it in the environment."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "scripts" / "bench"
DEPLOYMENTS = int(os.environ["DEPLOYMENTS"])
LARGE = int(os.environ["LARGE"])
DURATION = int(os.environ["DURATION"])
ROUNDS = int(os.environ["ROUNDS"])
STARTS = int(os.environ["STARTS"])
CONNECTIONS = int(os.environ["CONNECTIONS"])
PEER = os.environ["PEER"]
PG_BIN = Path(os.environ["PG_BIN"])

# How many clients pgbench has, and how many connections record deployments on SQLite.
CLIENTS = 16
WRITERS = 16
