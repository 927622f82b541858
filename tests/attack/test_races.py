"""Twenty clients do the same at the same moment: one of them wins, every time.

ROUNDS says how many times each race is run; few, unless it is set."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

import pytest

from attacker import Answer, Database, Ledger, attacked, digest
from test_history import delivery

ROUNDS = int(os.environ.get("ROUNDS", "3"))
CLIENTS = 20


@pytest.fixture
def racers(database: Database, tmp_path: Path) -> Iterator[list[Ledger]]:
    """Two processes on one PostgreSQL, or one on SQLite."""
    with attacked(tmp_path / "one", database) as one:
        one.place("shop", {"testing": {}, "staging": {}, "production": {"required_approvals": 1}})
        if database.is_sqlite:
            yield [one]
            return
        with attacked(tmp_path / "two", database, PROP_BOOTSTRAP_KEY=one.key) as two:
            yield [one, two]


def run(racers: list[Ledger], prepare: Callable[[Ledger, int], Callable[[Ledger, int], Answer]], won: int = 201) -> None:
    """Runs a race of CLIENTS clients ROUNDS times, which one of them wins: `prepare` says what each client sends."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        for number in range(ROUNDS):
            race = prepare(racers[0], number)
            servers = [server for server, _ in zip(cycle(racers), range(CLIENTS))]
            statuses = Counter(answer.status for answer in pool.map(race, servers, range(CLIENTS)))
            assert statuses[won] == 1, (number, statuses)
            assert all(status < 500 for status in statuses), (number, statuses)


def waiting(ledger: Ledger, number: int, environment: str = "staging") -> str:
    """The path of a deployment that has not started, of a release of its own."""
    ledger.release("shop", f"1.{number}.0", digest(str(number)))
    body = {"service": "shop", "environment": environment, "version": f"1.{number}.0"}
    return f"/v1/deployments/{ledger.post('/v1/deployments', body)['id']}"


def finish(ledger: Ledger) -> None:
    """Ends what runs in staging."""
    running = ledger.get("/v1/deployments?service=shop&state=running")["items"]
    for deployment in running:
        ledger.post(f"/v1/deployments/{deployment['id']}/transitions", {"to": "failed"})


def test_of_many_that_start_one_runs(racers: list[Ledger]) -> None:
    def prepare(ledger: Ledger, number: int) -> Callable:
        finish(ledger)
        ledger.release("shop", f"1.{number}.0")
        return lambda server, _: server.deploy(service="shop", environment="staging", version=f"1.{number}.0", start=True)

    run(racers, prepare)


def test_a_deployment_starts_once(racers: list[Ledger]) -> None:
    with ThreadPoolExecutor(CLIENTS) as pool:
        for number in range(ROUNDS):
            finish(racers[0])
            path = waiting(racers[0], number)
            servers = [racers[n % len(racers)] for n in range(CLIENTS)]
            answers = list(pool.map(lambda server: server.send("POST", f"{path}/transitions", {"to": "running"}), servers))
            assert {answer.status for answer in answers} == {200}
            events = racers[0].get(f"{path}/events")["items"]
            assert [event["action"] for event in events].count("deployment.started") == 1


def test_one_approval_lets_one_deployment_start(racers: list[Ledger]) -> None:
    def prepare(ledger: Ledger, number: int) -> Callable:
        for deployment in ledger.get("/v1/deployments?environment=production&state=running")["items"]:
            ledger.post(f"/v1/deployments/{deployment['id']}/transitions", {"to": "failed"})
        version = f"1.{number}.0"
        ledger.release("shop", version, digest(str(number)))
        bob = ledger.new_key(f"bob-{number}", "approve")
        ledger.approve(bob, "shop", version, "production").expect(201)
        return lambda server, _: server.deploy(service="shop", environment="production", version=version, start=True)

    run(racers, prepare)


def test_one_override_lets_one_deployment_pass(racers: list[Ledger]) -> None:
    def prepare(ledger: Ledger, number: int) -> Callable:
        for freeze in ledger.get("/v1/freezes?open=true")["items"]:
            ledger.send("PATCH", f"/v1/freezes/{freeze['id']}", {"ended": True}).expect(200)
        version = f"1.{number}.0"
        ledger.release("shop", version)
        freeze = ledger.post("/v1/freezes", {"environment": "staging", "reason": "Audit."})
        override = {"service": "shop", "environment": "staging", "version": version, "reason": "Agreed."}
        ledger.post(f"/v1/freezes/{freeze['id']}/overrides", override)
        return lambda server, _: server.deploy(service="shop", environment="staging", version=version)

    run(racers, prepare)


def test_one_key_of_idempotency_does_it_once(racers: list[Ledger]) -> None:
    with ThreadPoolExecutor(CLIENTS) as pool:
        for number in range(ROUNDS):
            servers = [racers[n % len(racers)] for n in range(CLIENTS)]
            body = {"slug": f"service-{number}"}
            answers = list(pool.map(
                lambda server: server.send("POST", "/v1/services", body, Idempotency_Key=f"key-{number}"), servers))
            assert len({answer.text for answer in answers if answer.status == 201}) == 1
            others = {answer.code for answer in answers if answer.status != 201}
            assert others <= {"idempotency_in_progress"}


def test_one_release_is_made(racers: list[Ledger]) -> None:
    def prepare(_: Ledger, number: int) -> Callable:
        body = {"service": "shop", "version": f"2.{number}.0"}
        return lambda server, _: server.send("POST", "/v1/releases", body)

    run(racers, prepare)


def test_one_first_deployment_makes_its_service(racers: list[Ledger]) -> None:
    def prepare(_: Ledger, number: int) -> Callable:
        return lambda server, _: server.deploy(
            service=f"new-{number}", environment="staging", version="1", start=True, create_missing=True)

    run(racers, prepare)


def test_one_external_id_is_one_deployment(racers: list[Ledger]) -> None:
    def prepare(ledger: Ledger, number: int) -> Callable:
        ledger.release("shop", f"1.{number}.0")
        return lambda server, _: server.deploy(
            service="shop", environment="staging", version=f"1.{number}.0", external_id=f"run-{number}")

    run(racers, prepare)


def test_one_delivery_is_applied_once(racers: list[Ledger]) -> None:
    racers[0].post("/v1/services", {"slug": "bank", "repository_url": "https://github.com/acme/bank"})
    with ThreadPoolExecutor(CLIENTS) as pool:
        for number in range(ROUNDS):
            body = delivery("bank", number + 1, "staging", "success")
            answers = list(pool.map(lambda n: racers[n % len(racers)].deliver("deployment_status", body), range(CLIENTS)))
            assert {answer.status for answer in answers} == {202}
            found = racers[0].get(f"/v1/deployments?service=bank&limit=100")["items"]
            assert len(found) == number + 1


def test_one_change_of_a_revision_is_taken(racers: list[Ledger]) -> None:
    def prepare(ledger: Ledger, number: int) -> Callable:
        revision = ledger.get("/v1/services/shop")["revision"]
        return lambda server, client: server.send(
            "PATCH", "/v1/services/shop", {"name": f"Shop {number} {client}"}, If_Match=f'"{revision}"')

    run(racers, prepare, won=200)


def test_predecessors_never_form_a_circle(racers: list[Ledger]) -> None:
    names = ["testing", "staging", "production"]

    def race(server: Ledger, client: int) -> Answer:
        name = names[client % 3]
        return server.send("PATCH", f"/v1/environments/{name}", {"predecessor": names[(client + 1) % 3]})

    with ThreadPoolExecutor(CLIENTS) as pool:
        for number in range(ROUNDS):
            for name in names:
                racers[0].send("PATCH", f"/v1/environments/{name}", {"predecessor": None}).expect(200)
            answers = list(pool.map(race, [racers[n % len(racers)] for n in range(CLIENTS)], range(CLIENTS)))
            assert {answer.status for answer in answers} <= {200, 409, 422}
            before = {item["slug"]: item["predecessor"] for item in racers[0].get("/v1/environments")["items"]}
            assert None in (before[name] for name in names), (number, before)
