"""How long single requests take, one after the other, on a ledger of a given size."""

import http.client
import os
import statistics
import time
from dataclasses import dataclass

from servers import Server
from settings import DURATION

PLACE = "service=service-7&environment=environment-2"
# The last one is the one that prop may still work on after its deadline.
REQUESTS = {
    "newest 50 of a place": f"/v1/deployments?{PLACE}&limit=50",
    "newest 50 of an environment": "/v1/deployments?environment=environment-2&limit=50",
    "newest 50 of all": "/v1/deployments?limit=50",
    "rejected deployments (none)": "/v1/deployments?state=rejected",
    "failed deployments of a service": "/v1/deployments?service=service-7&state=failed&limit=50",
    "status of all places": "/v1/status",
    "the gate's decision": f"/v1/gate?{PLACE}&version=1.0.0",
    "events of a service": "/v1/events?service=service-7&limit=50",
    "events of an environment": "/v1/events?environment=environment-2&limit=50",
    "events of an actor (none)": "/v1/events?actor=nobody",
    "DORA over a year": "/v1/metrics/dora?tier=development&since=2025-10-01T00:00:00Z&until=2026-10-01T00:00:00Z",
}
# So that each of the pool's connections has prepared the statement, and PostgreSQL has settled on a plan.
UNTIMED, TIMED = 50, 30
SECONDS = DURATION


@dataclass(frozen=True)
class Answer:
    """The median time of a request, and the status of its responses."""

    ms: float
    status: int

    def __str__(self) -> str:
        ms = f"{self.ms:.1f}" if self.ms < 100 else f"{self.ms:.0f}"
        return ms if self.status == 200 else f"{self.status} after {ms}"


def answers(server: Server) -> tuple[dict[str, Answer], float]:
    """Of each request, and the server's peak memory in MB after the last one."""
    found = {name: _answer(server, path) for name, path in REQUESTS.items()}
    return found, server.memory("VmHWM")


def _answer(server: Server, path: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"Authorization": f"Bearer {os.environ['PROP_KEY']}"}
    times, begin = [], time.perf_counter()
    while len(times) < UNTIMED + TIMED and (not times or time.perf_counter() < begin + SECONDS):
        start = time.perf_counter()
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        response.read()
        times.append((time.perf_counter() - start) * 1000)
        if response.status != 200:
            break
    connection.close()
    timed = times[UNTIMED:] if len(times) > UNTIMED else times
    return Answer(statistics.median(timed), response.status)
