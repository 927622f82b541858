"""Whoever holds the keys of a pipeline, or a second login, tries to talk the gate open."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from attacker import Ledger, digest

EVIL, GOOD = digest("evil"), digest("good")


@pytest.fixture
def shop(ledger: Ledger) -> Ledger:
    """A service whose production asks for everything, with a key that deploys and attests."""
    ledger.place("shop", {
        "staging": {},
        "production": {"predecessor": "staging", "soak_minutes": 1440, "require_scan": True, "required_approvals": 2},
    })
    ledger.ci = ledger.new_key("ci", "read", "deploy", "attest")
    return ledger


def observed(ledger: Ledger, environment: str, version: str, **more: str) -> None:
    """The key reports a success that prop was not asked for."""
    made = ledger.deploy(ledger.ci, service="shop", environment=environment, version=version, observed=True, **more).expect(201)
    ledger.send("POST", f"/v1/deployments/{made['id']}/transitions", {"to": "succeeded", "observed": True}, ledger.ci).expect(200)


def scan(ledger: Ledger, release: str) -> None:
    body = {"tool": "none", "status": "passed", "summary": {"critical": 9}}
    ledger.send("PUT", f"/v1/releases/{release}/scan", body, ledger.ci).expect(200)


def test_h1_what_bypassed_the_gate_is_no_way_back(shop: Ledger) -> None:
    evil = shop.release("shop", "evil", EVIL, shop.ci)
    shop.release("shop", "good", GOOD, shop.ci)
    shop.post("/v1/freezes", {"environment": "production", "reason": "Quarter end."})
    shop.post("/v1/incidents", {"service": "shop", "environment": "production", "title": "Cards fail", "severity": "critical"})
    observed(shop, "production", "evil")
    observed(shop, "production", "good")
    scan(shop, evil)
    expected = ["frozen", "not_in_predecessor", "open_incident", "approval_missing"]
    assert shop.gate("shop", "production", "evil", shop.ci) == expected
    assert shop.gate("shop", "production", "evil", shop.ci, rollback="true") == expected
    for rollback in (False, True):
        answer = shop.deploy(shop.ci, service="shop", environment="production", version="evil", start=True, rollback=rollback)
        answer.expect(409, 422)


def test_h1_another_image_of_a_good_release_is_no_way_back(shop: Ledger) -> None:
    shop.post("/v1/environments", {"slug": "testing", "tier": "testing", "required_approvals": 1})
    shop.release("shop", "1.0.0", None, shop.ci)
    approver = shop.new_key("alice", "approve")
    shop.approve(approver, "shop", "1.0.0", "testing").expect(201)
    made = shop.deploy(shop.ci, service="shop", environment="testing", version="1.0.0", start=True).expect(201)
    shop.send("POST", f"/v1/deployments/{made['id']}/transitions", {"to": "succeeded"}, shop.ci).expect(200)
    shop.release("shop", "2.0.0", GOOD, shop.ci)
    observed(shop, "testing", "2.0.0")
    # What was live had no image yet: this one was never approved.
    shop.release("shop", "1.0.0", EVIL, shop.ci)
    assert shop.gate("shop", "testing", "1.0.0", shop.ci, rollback="true") == ["approval_missing"]


def test_h2_a_success_of_last_year_is_not_soaked(shop: Ledger) -> None:
    shop.release("shop", "v2", GOOD, shop.ci)
    made = shop.deploy(shop.ci, service="shop", environment="staging", version="v2", observed=True,
                       at="2026-01-01T00:00:00Z").expect(201)
    body = {"to": "succeeded", "observed": True, "at": "2026-01-01T01:00:00Z"}
    shop.send("POST", f"/v1/deployments/{made['id']}/transitions", body, shop.ci).expect(200)
    assert "soaking" in shop.gate("shop", "production", "v2", shop.ci)


def test_m1_one_person_is_one_approver(shop: Ledger) -> None:
    shop.release("shop", "v1", GOOD, shop.ci)
    alice, mirror = shop.new_key("alice", "approve"), shop.new_key("mirror", "mirror")
    shop.approve(alice, "shop", "v1", "production").expect(201)
    run = "https://github.com/acme/shop/actions/runs/1"
    shop.approve(mirror, "shop", "v1", "production", source="github", approver="Alice", run_url=run).expect(200, 201)
    assert "approval_missing" in shop.gate("shop", "production", "v1", shop.ci)


def test_m4_an_older_success_does_not_become_live(shop: Ledger) -> None:
    for version, at in (("2.0.0", "2026-03-01T20:05:00Z"), ("1.0.0", "2026-03-01T10:05:00Z")):
        shop.deploy(shop.ci, service="shop", environment="staging", version=version, state="succeeded", finished_at=at,
                    create_missing=True).expect(201)
    live = shop.get("/v1/services/shop/environments/staging")["live"]
    assert live["version"] == "2.0.0"
    backwards = {"at": "2026-03-01T10:05:00Z", "finished_at": "2026-03-01T10:04:00Z", "state": "succeeded"}
    answer = shop.deploy(shop.ci, service="shop", environment="staging", version="1.0.0", **backwards)
    assert answer.status == 422


def test_m15_a_scan_and_an_override_are_of_one_image(shop: Ledger) -> None:
    release = shop.release("shop", "v1", None, shop.ci)
    scan(shop, release)
    shop.release("shop", "v1", EVIL, shop.ci)
    assert "scan_missing" in shop.gate("shop", "production", "v1", shop.ci)

    freeze = shop.post("/v1/freezes", {"environment": "staging", "reason": "Audit."})
    override = {"service": "shop", "environment": "staging", "version": "v3", "reason": "Agreed."}
    answer = shop.send("POST", f"/v1/freezes/{freeze['id']}/overrides", override)
    assert answer.status == 404, "there is no such release yet"
    shop.release("shop", "v3", None, shop.ci)
    shop.send("POST", f"/v1/freezes/{freeze['id']}/overrides", override).expect(201)
    answer = shop.deploy(shop.ci, service="shop", environment="staging", version="v3", image_digest=EVIL, start=True)
    assert answer.code == "gate_blocked"


def test_m16_a_deploying_key_makes_no_production(shop: Ledger) -> None:
    before = shop.get("/v1/environments")
    answer = shop.deploy(shop.ci, service="shop", environment="prod-eu-production", version="v1", image_digest=EVIL, start=True,
                         create_missing=True)
    assert (answer.status, answer.code) == (403, "missing_scope")
    assert shop.get("/v1/environments") == before


def test_l7_who_loses_the_first_race_learns_why(ledger: Ledger) -> None:
    def first(_: int) -> tuple[int, str | None]:
        answer = ledger.deploy(service="new", environment="staging", version="1", start=True, create_missing=True)
        return answer.status, answer.code

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(first, range(20)))
    assert answers.count((201, None)) == 1
    assert answers.count((409, "gate_blocked")) == 19, answers
