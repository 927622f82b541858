"""Measures prop and what it is compared with. scripts/bench.sh calls this; see its --help."""

import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import growth
import tables
from cluster import Cluster
from contestants import compare, peers, progress, serving, statements
from cpu import CORES
from servers import Program, Server, migrate, start_ms
from settings import CONNECTIONS, DEPLOYMENTS, DURATION, HERE, LARGE, PG_BIN, ROOT, ROUNDS, STARTS, WRITERS


@dataclass(frozen=True)
class Footprint:
    """The time until a program is ready, and its memory in MB."""

    ready_ms: float
    idle_mb: float
    peak_mb: float


def section(title: str, *found: str) -> None:
    print("\n".join([f"### {title}\n", *found]), flush=True)


def load(programs: list[Program], cluster: Cluster) -> list[str]:
    """The URLs of databases with the same rows, one for each program."""
    progress(f"loading {DEPLOYMENTS} deployments into PostgreSQL")
    names = [f"ledger_{number}" for number in range(len(programs))]
    cluster.create(names[0])
    migrate(programs[0], cluster.url(names[0]))
    cluster.load(names[0], DEPLOYMENTS)
    for name in names[1:]:
        cluster.create(name, template=names[0])
    for program, name in zip(programs, names, strict=True):
        migrate(program, cluster.url(name))
    return [cluster.url(name) for name in names]


def on_postgres(programs: list[Program], urls: list[str], cluster: Cluster, work: Path) -> dict[str, Footprint]:
    """Each program on its database, and the others on that of the last one."""
    with ExitStack() as stack:
        servers, starts = start_all(programs, urls, work, stack)
        contestants = {name: serving([server], cluster) for name, server in servers.items()}
        results = compare(contestants | statements(cluster, urls[-1], work) | peers(cluster, urls[-1], work, stack))
        footprints = {name: footprint(server, starts[name]) for name, server in servers.items()}
    last = programs[-1].name
    section(f"PostgreSQL, {CONNECTIONS} connections", tables.rates(results), tables.ratios(results, last))
    section("Capacity", tables.capacity(results[last]))
    return footprints


def start_all(
    programs: list[Program], urls: list[str], work: Path, stack: ExitStack
) -> tuple[dict[str, Server], dict[str, list[float]]]:
    """Starts each program several times: the last servers, which go on, and the times in milliseconds."""
    servers, starts = {}, {}
    for program, url in zip(programs, urls, strict=True):
        starts[program.name] = start_ms(program, url, STARTS, work)
        servers[program.name] = stack.enter_context(Server(program, url, work))
    return servers, starts


def footprint(server: Server, starts: list[float]) -> Footprint:
    return Footprint(statistics.median(starts or [server.ready_ms]), server.idle_mb, server.memory("VmHWM"))


def several_processes(program: Program, url: str, cluster: Cluster, work: Path) -> None:
    """One process and three, to which the three threads of wrk send their requests in turn."""
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(program, url, work)) for _ in range(3)]
        results = compare({
            "1 process": serving(servers[:1], cluster, threads=3),
            "3 processes": serving(servers, cluster, threads=3),
        })  # fmt: skip
    section("One process and three", tables.rates(results), tables.ratios(results, "3 processes"))


def single_requests(programs: list[Program], urls: list[str], cluster: Cluster, work: Path) -> None:
    """The time of single requests with DEPLOYMENTS, and with LARGE, where all share one database."""
    columns = {}
    for program, url in zip(programs, urls, strict=True):
        columns[f"{program.name}, {DEPLOYMENTS}"] = answers(program, url, work)
    if LARGE:
        progress(f"loading {LARGE} deployments into PostgreSQL")
        cluster.create("large")
        migrate(programs[0], cluster.url("large"))
        cluster.load("large", LARGE)
        for program in programs:
            migrate(program, cluster.url("large"))
            columns[f"{program.name}, {LARGE}"] = answers(program, cluster.url("large"), work)
    section("Single requests", tables.growth(columns))


def answers(program: Program, url: str, work: Path) -> tuple[dict[str, growth.Answer], float]:
    progress(f"single requests to {program.name}")
    with Server(program, url, work) as server:
        return growth.answers(server)


def on_sqlite(programs: list[Program], work: Path) -> dict[str, Footprint]:
    """Each program on a copy of the same file."""
    progress(f"loading {DEPLOYMENTS} deployments into SQLite")
    files = [work / f"ledger_{number}.db" for number in range(len(programs))]
    migrate(programs[0], f"sqlite:{files[0]}")
    load_sqlite(files[0])
    for file in files[1:]:
        shutil.copy(files[0], file)
    for program, file in zip(programs, files, strict=True):
        migrate(program, f"sqlite:{file}")
    with ExitStack() as stack:
        servers, starts = start_all(programs, [f"sqlite:{file}" for file in files], work, stack)
        results = compare({name: serving([server], None, WRITERS) for name, server in servers.items()})
        footprints = {name: footprint(server, starts[name]) for name, server in servers.items()}
    compared = [tables.ratios(results, programs[-1].name)] if len(programs) > 1 else []
    section(f"SQLite, {CONNECTIONS} connections that read, {WRITERS} that record", tables.rates(results), *compared)
    return footprints


def load_sqlite(file: Path) -> None:
    parameters = ["-cmd", ".parameter init", "-cmd", f".parameter set @deployments {DEPLOYMENTS}"]
    with (HERE / "load.sqlite.sql").open() as script:
        subprocess.run(["sqlite3", "-bail", *parameters, file], stdin=script, stdout=subprocess.DEVNULL, check=True)


def print_footprints(programs: list[Program], found: dict[str, dict[str, Footprint]]) -> None:
    columns = [(program.name, database) for program in programs for database in found]
    figures = {
        "time until ready, ms": lambda footprint: footprint.ready_ms,
        "memory idle, MB": lambda footprint: footprint.idle_mb,
        "peak memory under load, MB": lambda footprint: footprint.peak_mb,
    }
    rows = [[label, *(f"{figure(found[database][name]):.1f}" for name, database in columns)] for label, figure in figures.items()]
    section("Start and memory", tables.table(["", *(f"{name}, {database}" for name, database in columns)], rows))


def versions(programs: list[Program]) -> str:
    """What each program says of itself, and its size."""
    lines = []
    for program in programs:
        version = subprocess.run([program.binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()
        lines.append(f"{program.name}: {version}, {program.binary.stat().st_size / 1e6:.1f} MB.")
    return "\n".join(lines)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    named = [argument.split("=", 1) if "=" in argument else [Path(argument).name, argument] for argument in sys.argv[1:]]
    programs = [Program(name, Path(path).resolve()) for name, path in named]
    postgres = subprocess.run([PG_BIN / "postgres", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="prop-bench-") as directory, ExitStack() as stack:
        work = Path(directory)
        work.chmod(0o711)  # PostgreSQL runs as another user when this runs as root
        cluster = Cluster(work / "cluster")
        stack.callback(cluster.stop)
        print(f"Measured on {datetime.now(UTC):%d %B %Y} with scripts/bench.sh of commit `{commit}`.\n{versions(programs)}\n")
        urls = load(programs, cluster)
        single_requests(programs, urls, cluster, work)  # before runs that record as much as each can
        found = {"PostgreSQL": on_postgres(programs, urls, cluster, work)}
        several_processes(programs[-1], urls[-1], cluster, work)
        found["SQLite"] = on_sqlite(programs, work)
        print_footprints(programs, found)
    minutes = (time.perf_counter() - begin) / 60
    print(f"{DEPLOYMENTS} deployments, {ROUNDS} x {DURATION} s each, {CORES} cores, {postgres}; {minutes:.0f} minutes.")


if __name__ == "__main__":
    main()
