"""The history says who, when and in which order; nobody makes it say something else."""

import json
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from attacker import Answer, Database, Ledger, attacked, digest
from prop import ROOT

REPOSITORY = "https://github.com/acme/"


def delivery(repository: str, number: int, environment: str, state: str, **more: str) -> dict:
    """What GitHub sends of a deployment's status."""
    at = "2026-02-03T04:05:06Z"
    return {
        "action": "created",
        "deployment": {"id": number, "sha": "f95f852bd8fca8fcc58a9a2d6c842781e32a215e", "ref": "main", "task": "deploy",
                       "environment": environment, "description": None, "created_at": at, "updated_at": at, "payload": {},
                       "creator": {"login": "octocat", "type": "User"}},
        "deployment_status": {"id": number * 10, "state": state, "description": "", "environment": environment, "created_at": at,
                              "updated_at": at, "target_url": "", "log_url": "", "creator": {"login": "octocat", "type": "User"},
                              **more},
        "repository": {"id": 1, "name": repository, "full_name": f"acme/{repository}", "html_url": REPOSITORY + repository,
                       "owner": {"login": "acme"}},
        "sender": {"login": "octocat", "type": "User"},
    }


def service(ledger: Ledger, slug: str) -> None:
    ledger.post("/v1/services", {"slug": slug, "repository_url": REPOSITORY + slug})


def live(ledger: Ledger, slug: str, environment: str) -> dict | None:
    answer = ledger.send("GET", f"/v1/services/{slug}/environments/{environment}")
    return answer.json["live"] if answer.status == 200 else None


def test_m2_numbers_of_github_are_githubs(ledger: Ledger) -> None:
    service(ledger, "shop")
    ci = ledger.new_key("ci", "read", "deploy")
    squat = {"service": "decoy", "environment": "staging", "version": "1", "source": "github", "external_id": "4711",
             "create_missing": True}
    assert ledger.deploy(ci, **squat).status == 422
    answer = ledger.deliver("deployment_status", delivery("shop", 4711, "production", "success")).expect(202)
    assert answer["outcome"] == "applied"
    assert live(ledger, "shop", "production")
    assert not live(ledger, "decoy", "staging")


def test_m3_deliveries_across_services_never_fail(ledger: Ledger) -> None:
    service(ledger, "one")
    service(ledger, "two")

    def send(sender: int) -> list[int]:
        repositories = ["one", "two"] if sender % 2 else ["two", "one"]
        states = ["queued", "in_progress", "success", "failure", "inactive"]
        return [ledger.deliver("deployment_status", delivery(repositories[n % 2], 1 + n % 2, "staging", states[n % 5])).status
                for n in range(15)]

    with ThreadPoolExecutor(4) as pool:
        statuses = {status for answers in pool.map(send, range(4)) for status in answers}
    assert statuses == {202}


def test_m13_a_null_character_is_recorded(ledger: Ledger) -> None:
    service(ledger, "shop")
    for number, spoiled in enumerate(("description", "sha", "action", "full_name", "login"), 1):
        text = json.dumps(delivery("shop", number, "staging", "success", description="all good"))
        value = {"description": "all good", "sha": "f95f852b", "action": "created", "full_name": "acme/shop", "login": "octocat"}
        text = text.replace(value[spoiled], value[spoiled] + "\\u0000", 1)
        answer = ledger.deliver("deployment_status", text.encode())
        assert answer.status == 202, f"{spoiled}: {answer}"
        assert ledger.get(f"/v1/deliveries/{answer.json['id']}")


def test_m18_a_secret_of_one_repository_signs_for_no_other(database: Database, tmp_path: Path) -> None:
    secrets = [
        {"secret": "the-secret-of-shop-and-nobody-else", "repositories": ["acme/shop"]},
        {"secret": "an-older-one-of-the-whole-company"}, {"secret": "the-newer-one-of-the-company"},
    ]
    settings = {"PROP_GITHUB__WEBHOOK_SECRETS": json.dumps(secrets)}
    with attacked(tmp_path, database, **settings) as ledger:
        service(ledger, "shop")
        service(ledger, "bank")
        for repository, secret, expected in (
            ("shop", 0, 202), ("bank", 0, 401), ("bank", 1, 202), ("bank", 2, 202), ("shop", 2, 202),
        ):
            body = delivery(repository, 10 * secret + len(repository), "staging", "success")
            answer = ledger.deliver("deployment_status", body, secrets[secret]["secret"])
            assert answer.status == expected, (repository, secret, answer)


def test_m9_keys_are_not_for_everybody(database: Database, tmp_path: Path) -> None:
    with attacked(tmp_path, database, PROP_PUBLIC_READ="true") as ledger:
        ledger.new_key("mirror", "mirror")
        reader = ledger.new_key("reader", "read")
        for key in (None, reader):
            assert "mirror" not in ledger.send("GET", "/v1/events?limit=100", key=key).text
            assert "mirror" not in ledger.send("GET", "/v1/events?entity=key", key=key).text
        assert "mirror" in ledger.send("GET", "/v1/events?entity=key").text


def test_m11_an_event_says_which_key_and_request(ledger: Ledger) -> None:
    for name in ("prop", "PROP", "github:octocat", "GitHub:octocat", "anonymous"):
        assert ledger.send("POST", "/v1/keys", {"name": name, "scopes": ["read"]}).status == 422, name
    made = ledger.post("/v1/keys", {"name": "pipeline", "scopes": ["read", "deploy"]})
    for name in ("pipeline", "Pipeline"):
        assert ledger.send("POST", "/v1/keys", {"name": name, "scopes": ["read"]}).status == 409, name
    answer = ledger.send("POST", "/v1/deployments", {"service": "shop", "environment": "staging", "version": "1",
                         "create_missing": True}, made["key"], X_Request_Id="leak-17")
    deployment = answer.expect(201)["id"]
    (event,) = ledger.get(f"/v1/deployments/{deployment}/events")["items"]
    assert (event["key_id"], event["request_id"]) == (made["id"], "leak-17")


@pytest.fixture(scope="session")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, str]]:
    """The variables with which the clock of a process is ahead by so many seconds."""
    library = tmp_path_factory.mktemp("clock") / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, ROOT / "tests" / "process" / "clock.c"], check=True)
    return lambda seconds: {"LD_PRELOAD": str(library), "CLOCK_AHEAD_SECONDS": str(seconds)}


def guarded(ledger: Ledger) -> tuple[str, str]:
    """The keys of an approver and of a pipeline, where production needs one approval of release 1."""
    ledger.place("shop", {"production": {"required_approvals": 1}})
    ledger.release("shop", "1", digest("1"))
    return ledger.new_key("bob", "approve"), ledger.new_key("ci", "read", "deploy")


def test_m10_a_rejection_counts_though_a_replicas_clock_is_ahead(postgres: Database, tmp_path: Path, clock: Callable) -> None:
    with attacked(tmp_path / "here", postgres) as here:
        bob, ci = guarded(here)
        with attacked(tmp_path / "ahead", postgres, PROP_BOOTSTRAP_KEY=here.key, **clock(3)) as ahead:
            ahead.approve(bob, "shop", "1", "production").expect(201)
            here.approve(bob, "shop", "1", "production", "rejected").expect(201)
        assert here.gate("shop", "production", "1", ci) == ["approval_rejected"]
        assert here.deploy(ci, service="shop", environment="production", version="1", start=True).status == 409


def test_m10_a_rejection_counts_though_the_clock_has_jumped_back(database: Database, tmp_path: Path, clock: Callable) -> None:
    with attacked(tmp_path, database) as before:
        bob, ci = guarded(before)
        before.approve(bob, "shop", "1", "production").expect(201)
        key = before.key
    with attacked(tmp_path, database, PROP_BOOTSTRAP_KEY=key, **clock(-7200)) as after:
        after.approve(bob, "shop", "1", "production", "rejected").expect(201)
        assert after.gate("shop", "production", "1", ci) == ["approval_rejected"]


def test_m14_a_change_has_its_revision_and_its_event(ledger: Ledger) -> None:
    ledger.place("shop", {"staging": {}})
    ledger.release("shop", "1")
    path = f"/v1/deployments/{ledger.deploy(service='shop', environment='staging', version='1').expect(201)['id']}"
    before = ledger.send("GET", path)
    ledger.release("shop", "1", digest("1"))
    after = ledger.send("GET", path, If_None_Match=before.headers["etag"])
    assert after.status == 200 and after.json["image_digest"] == digest("1")
    actions = [event["action"] for event in ledger.get(f"{path}/events")["items"]]
    assert actions[0] == "deployment.completed", actions


def soon(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


def test_l2_nothing_was_noticed_in_the_future(ledger: Ledger) -> None:
    ledger.place("shop", {"production": {}})
    incident = {"service": "shop", "environment": "production", "title": "Cards fail", "severity": "critical"}
    for at in ("9999-01-01T00:00:00Z", soon(600)):
        assert ledger.send("POST", "/v1/incidents", {**incident, "detected_at": at}).status == 422
    made = ledger.send("POST", "/v1/incidents", {**incident, "detected_at": soon(5)}).expect(201)
    ledger.send("PATCH", f"/v1/incidents/{made['id']}", {"resolved": True}).expect(200)


def test_l9_a_client_two_seconds_ahead_is_taken(ledger: Ledger) -> None:
    def report(at: str) -> Answer:
        return ledger.deploy(service="shop", environment="staging", version="1", create_missing=True, observed=True, at=at)

    assert report(soon(3)).status == 201
    assert report(soon(600)).status == 422
