"""A run of wrk or pgbench: what it reached, and what it cost."""

import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cluster import Cluster
from cpu import Use
from pgbench import SCRIPTS
from servers import Server
from settings import CLIENTS, DEPLOYMENTS, DURATION, HERE, PG_BIN


@dataclass(frozen=True)
class Run:
    """The figures of one run. CPU times are microseconds for each request; `others` is a share of the machine."""

    rate: float
    p50_ms: float | None
    p99_ms: float | None
    server_us: float
    database_us: float
    client_us: float
    others: float

    @property
    def cpu_us(self) -> float:
        """Of all that take part: this doesn't depend on what else runs on the machine."""
        return self.server_us + self.database_us + self.client_us


@dataclass(frozen=True)
class Reached:
    """What the client counted."""

    requests: int
    rate: float
    p50_ms: float | None = None
    p99_ms: float | None = None


# Each run begins with caches and connections that its own requests have warmed, whoever ran before.
WARM_UP_SECONDS = 1


def _measured(client: Callable[[int], Reached], servers: list[int], cluster: Cluster | None) -> Run:
    if cluster:
        cluster.settle()
    client(WARM_UP_SECONDS)
    postmaster = cluster.postmaster if cluster else None
    before, start = Use.now(servers, postmaster), time.perf_counter()
    reached = client(DURATION)
    use = Use.now(servers, postmaster).since(before)
    seconds = time.perf_counter() - start
    each = 1e6 / max(reached.requests, 1)
    return Run(
        reached.rate, reached.p50_ms, reached.p99_ms, use.server * each, use.database * each, use.client * each, use.others(seconds)
    )


def wrk(
    servers: list[Server], cluster: Cluster | None, work: str, connections: int, threads: int = 2, record: str = "/v1/deployments"
) -> Run:
    """A run of scripts/bench/WORK.lua. Each thread of wrk sends its requests to one of the servers, in turn."""

    def client(seconds: int) -> Reached:
        # Longer than prop's own limit, so that slow responses are measured too.
        limits = [f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "15s"]
        environment = {
            **os.environ,
            "LUA_PATH": f"{HERE}/?.lua",
            "BENCH_PORTS": " ".join(str(server.port) for server in servers),
            "BENCH_RECORD": record,
        }
        command = ["wrk", *limits, "-s", HERE / f"{work}.lua", f"http://127.0.0.1:{servers[0].port}"]
        output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
        return reached_by_wrk(output)

    return _measured(client, [server.pid for server in servers], cluster)


def reached_by_wrk(output: str) -> Reached:
    """From the line that common.lua prints."""
    found = re.search(r"^RESULT (\d+) (\S+) (\S+) (\S+) (\d+)$", output, re.MULTILINE)
    if not found or int(found[5]) or not int(found[1]):
        raise SystemExit(f"bench.sh: requests failed:\n{output[-2000:]}")
    return Reached(int(found[1]), float(found[2]), float(found[3]), float(found[4]))


def pgbench(cluster: Cluster, url: str, work: str, directory: Path) -> Run:
    """A run of the statements that the work takes."""

    def client(seconds: int) -> Reached:
        script = directory / f"{work}.sql"
        script.write_text(SCRIPTS[work])
        variables = ["-D", f"deployments={DEPLOYMENTS}", "-D", "one=1", "-D", "page=51"]
        clients = ["-c", str(CLIENTS), "-j", "2", "-T", str(seconds)]
        command = [PG_BIN / "pgbench", "-n", "-M", "prepared", *clients, *variables, "-f", script, url]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"bench.sh: pgbench failed:\n{done.stderr[-2000:]}")
        return reached_by_pgbench(done.stdout)

    return _measured(client, [], cluster)


def reached_by_pgbench(output: str) -> Reached:
    """From pgbench's report. It has no percentiles."""
    done = re.search(r"^number of transactions actually processed: (\d+)", output, re.MULTILINE)
    failed = re.search(r"^number of failed transactions: (\d+)", output, re.MULTILINE)
    rate = re.search(r"^tps = ([\d.]+)", output, re.MULTILINE)
    if not done or not rate or (failed and int(failed[1])):
        raise SystemExit(f"bench.sh: transactions failed:\n{output[-2000:]}")
    return Reached(int(done[1]), float(rate[1]))
