"""Deployments where the machine that deploys cannot reach the service."""

import pytest
import scripts
from stub_aws import OLD, Scenario, run, settings


@pytest.mark.parametrize(("variables", "code"), [({}, 6), ({"OUTSIDE_CHECKS": ""}, 6), ({"OUTSIDE_CHECKS": "no"}, 0)])
def test_a_service_out_of_reach_is_rolled_back_unless_nobody_asks_it(scenario: Scenario, app: str, variables: dict[str, str], code: int) -> None:
    scenario.set(lie="down")
    ended = run(scenario, "deploy.sh", "staging", "1.4.2", **settings(app, None), **variables)
    assert ended.code == code, ended
    assert (scenario.live_digest() == OLD) is (code == 6)
    assert ("OUTSIDE_CHECKS" in ended.err) is (code == 0)


def test_targets_that_are_not_healthy_still_fail(scenario: Scenario, app: str) -> None:
    scenario.set(targets=["unhealthy"])
    assert run(scenario, "deploy.sh", "staging", "1.4.2", **settings(app, None), OUTSIDE_CHECKS="no").code == 6


def test_the_smoke_test_then_checks_nothing() -> None:
    nowhere = "http://127.0.0.1:1"
    assert scripts.run("smoke.sh", nowhere, SMOKE_SECONDS="0").returncode == 1
    ended = scripts.run("smoke.sh", nowhere, SMOKE_SECONDS="0", OUTSIDE_CHECKS="no")
    assert ended.returncode == 0 and "nothing was checked" in ended.stderr
