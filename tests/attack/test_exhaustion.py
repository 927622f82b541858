"""Clients without a key try to use up the memory, the connections or the threads of the process."""

import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from attacker import MEGABYTE, MEMORY_LIMIT, Ledger
from prop import BINARY, running_prop


def connect(ledger: Ledger) -> socket.socket:
    address = urlsplit(ledger.url)
    return socket.create_connection((address.hostname, address.port), timeout=30)


@contextmanager
def connections(ledger: Ledger, count: int) -> Iterator[list[socket.socket]]:
    opened = [connect(ledger) for _ in range(count)]
    try:
        yield opened
    finally:
        for connection in opened:
            connection.close()


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side has closed it; what it sent before is thrown away."""
    connection.setblocking(False)
    try:
        while connection.recv(1 << 20):
            pass
        return True
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_h3_made_up_methods_are_one_series(ledger: Ledger) -> None:
    for number in range(200):
        with connect(ledger) as connection:
            connection.sendall(b"M" * 100_000 + b"%d / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % number)
            while connection.recv(1 << 16):
                pass
    with connect(ledger) as connection:
        for number in range(2_000):
            connection.sendall(b"X%d / HTTP/1.1\r\nHost: x\r\n\r\n" % number)
            assert connection.recv(1 << 16)
    assert len(ledger.send("GET", "/metrics", key=None).text) < 100_000
    assert len(ledger.output()) < 2 * MEGABYTE
    assert ledger.memory() < MEMORY_LIMIT


def test_h4_slow_readers_cost_little_and_are_dropped(ledger: Ledger) -> None:
    request = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n" * 10
    with connections(ledger, 200) as opened:
        for connection in opened:
            connection.sendall(request)
        time.sleep(3)
        started = time.monotonic()
        ledger.send("GET", "/livez", key=None).expect(200)
        assert time.monotonic() - started < 2
        assert ledger.memory() < MEMORY_LIMIT


def test_m5_a_body_that_never_ends_holds_no_connection(ledger: Ledger) -> None:
    heads = [b"GET /livez", b"GET /nothing/here", b"POST /v1/services"]
    with connections(ledger, 60) as opened:
        for number, connection in enumerate(opened):
            connection.sendall(heads[number % 3] + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        deadline, left = time.monotonic() + 20, opened
        while left and time.monotonic() < deadline:
            time.sleep(1)
            still = []
            for connection in left:
                try:
                    connection.setblocking(True)
                    connection.sendall(b"1\r\nx\r\n")
                except OSError:
                    continue
                if not is_closed(connection):
                    still.append(connection)
            left = still
        assert not left, f"{len(left)} of 60 are still open"


def test_l12_unknown_keys_are_asked_for_once(ledger: Ledger) -> None:
    key = subprocess.run([BINARY, "key", "generate"], check=True, capture_output=True, text=True).stdout.strip()
    before = ledger.statements()
    for _ in range(200):
        assert ledger.send("GET", "/v1/services", key=key).status == 401
    assert ledger.statements() - before < 40


def test_l14_a_limit_of_files_ends_no_process(tmp_path: Path) -> None:
    # The limit is inherited by the process that this test starts.
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MEGABYTE, limit[1]))
    try:
        with running_prop(tmp_path) as prop:
            statuses = []
            for number in range(3_000):
                body = {"service": f"s{number}", "environment": "staging", "version": "1", "create_missing": True,
                        "reason": "x" * 900}
                status, answer = prop.request("POST", "/v1/deployments", body)
                statuses.append(status)
                if status != 201:
                    break
            assert (statuses[-1], answer["code"]) == (503, "database_unavailable")
            assert prop.request("GET", "/v1/services")[0] == 200
            assert prop.request("GET", "/readyz")[0] == 503
            assert prop.process.poll() is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_l3_a_crowd_of_waiting_deployments_makes_no_large_status(ledger: Ledger) -> None:
    ledger.place("shop", {"production": {"required_approvals": 1}})
    ledger.release("shop", "1.0.0", "sha256:" + "a" * 64)
    for _ in range(300):
        ledger.deploy(service="shop", environment="production", version="1.0.0").expect(201)
    assert len(ledger.send("GET", "/v1/status").text) < 40_000
