"""What does the work in turn: prop's builds, pgbench, and the server that one would write instead."""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from cluster import Cluster
from load import Run, pgbench, wrk
from servers import Program, Server
from settings import CLIENTS, CONNECTIONS, PEER, ROUNDS
from tables import Results

READ, LIST, RECORD = WORKS = ("read", "list", "record")
# What to run for each kind of work.
Contestant = dict[str, Callable[[], Run]]


def progress(text: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


def compare(contestants: dict[str, Contestant]) -> Results:
    """Runs all in turn, every other round in the opposite order. So what else happens on the machine affects all alike."""
    results: Results = {name: {work: [] for work in works} for name, works in contestants.items()}
    for number in range(ROUNDS):
        names = list(contestants)[:: -1 if number % 2 else 1]
        for work in WORKS:
            for name in names:
                if work in contestants[name]:
                    run = contestants[name][work]()
                    results[name][work].append(run)
                    progress(f"round {number + 1}, {work}, {name}: {run.rate:.0f}/s, others {run.others:.0%}")
    return results


def serving(servers: list[Server], cluster: Cluster | None, writers: int = CONNECTIONS, threads: int = 2) -> Contestant:
    """One server, or several that get the requests in turn; so many connections record."""
    connections = {READ: CONNECTIONS, LIST: CONNECTIONS, RECORD: writers}
    return {work: partial(wrk, servers, cluster, work, number, threads) for work, number in connections.items()}


def statements(cluster: Cluster, url: str, directory: Path) -> dict[str, Contestant]:
    """pgbench, with the statements of each kind of work."""
    return {f"pgbench, {CLIENTS} clients": {work: partial(pgbench, cluster, url, work, directory) for work in WORKS}}


def peers(cluster: Cluster, url: str, directory: Path, stack: ExitStack) -> dict[str, Contestant]:
    """The server that one would write instead, in three variants, unless it is left out."""
    if PEER == "none":
        return {}
    programs = (
        Program("axum + sqlx", Path(PEER), "PORT"),
        Program("axum + sqlx, unchecked", Path(PEER), "PORT", (("CHECKED", "no"),)),
    )
    checked, unchecked = (stack.enter_context(Server(program, url, directory)) for program in programs)
    return {
        "axum + sqlx": serving([checked], cluster),
        "axum + sqlx, unchecked": serving([unchecked], cluster),
        "axum + sqlx, two inserts": {RECORD: partial(wrk, [unchecked], cluster, RECORD, CONNECTIONS, record="/bare/deployments")},
    }
