"""What went live is tagged, and ECR's lifecycle policy keeps what has such a tag."""

import json
import re
from fnmatch import fnmatch

from stub_aws import NEW, OLD, Run, Scenario, run, settings

from plans import Plan


def deploy(scenario: Scenario, app: str, *arguments: str) -> Run:
    return run(scenario, "deploy.sh", *arguments, **settings(app, None))


def tags(scenario: Scenario) -> dict[str, list[str]]:
    return {image["digest"]: image["tags"] for image in scenario.read()["images"]}


def test_what_goes_live_is_tagged_and_what_fails_is_not(scenario: Scenario, app: str) -> None:
    scenario.set(fates=["breaker"])
    assert deploy(scenario, app, "staging", "1.4.2").code == 6
    assert not [tag for tag in tags(scenario)[NEW] if tag.startswith("live-")]
    assert deploy(scenario, app, "staging", "1.4.2").code == 0
    assert tags(scenario)[NEW][0] == f"live-staging-{NEW[7:19]}"


def test_the_tag_is_no_version_and_no_commit(scenario: Scenario, app: str) -> None:
    assert deploy(scenario, app, "staging", "1.4.2").code == 0
    ended = deploy(scenario, app, "staging", NEW, "--json")
    assert ended.code == 0 and ended.result["version"] == "1.4.2"
    # It was tagged already, which is no reason to warn.
    assert "Cannot tag" not in ended.err
    assert len([tag for tag in tags(scenario)[NEW] if tag.startswith("live-")]) == 1


def test_a_deployment_that_cannot_tag_has_succeeded(scenario: Scenario, app: str) -> None:
    scenario.set(deny=["ecr put-image"])
    ended = deploy(scenario, app, "staging", "1.4.2")
    assert ended.code == 0 and "AWS denies ecr:PutImage" in ended.err


def test_a_dry_run_tags_nothing(scenario: Scenario, app: str) -> None:
    assert deploy(scenario, app, "staging", "1.4.2", "--dry-run").code == 0
    assert "ecr put-image" not in scenario.calls()


def expired(policy: list[dict], images: list[tuple[str, list[str]]]) -> set[str]:
    """Which images of (name, tags), the newest first, ECR expires by the rules with a count.

    https://docs.aws.amazon.com/AmazonECR/latest/userguide/LifecyclePolicies.html: "An image that matches the tagging requirements of a
    rule can't be expired by a rule with a lower priority", and images are counted from the youngest to the oldest.
    """
    gone, claimed = set(), set()
    for rule in sorted(policy, key=lambda rule: rule["rulePriority"]):
        if rule["selection"]["countType"] != "imageCountMoreThan":
            continue
        (pattern,) = rule["selection"]["tagPatternList"]
        matching = [name for name, names in images if any(fnmatch(tag, pattern) for tag in names)]
        gone |= set(matching[rule["selection"]["countNumber"] :]) - claimed
        claimed |= set(matching)
    return gone


def test_builds_and_deployments_elsewhere_expire_nothing_that_production_needs(staging_plan: dict) -> None:
    """Every build goes live in staging; production has two old ones, of which one is live and the other is what a rollback needs."""
    (made,) = Plan(staging_plan).all("aws_ecr_lifecycle_policy").values()
    rules = json.loads(made["policy"])["rules"]
    assert len({rule["rulePriority"] for rule in rules}) == len(rules)
    images = [(f"new-{number}", [f"0.2.0-{number:012x}", f"live-staging-{number:012x}"]) for number in range(300)]
    images += [("live", ["0.1.1-x", "live-staging-a", "live-production-a"]), ("before", ["0.1.0-x", "live-staging-b", "live-production-b"])]
    images += [("never-live", ["0.0.9-x"])]
    gone = expired(rules, images)
    assert not gone & {"live", "before"} and "never-live" in gone
    assert "new-49" not in gone and "new-299" in gone


def test_the_script_and_the_policy_mean_the_same_tag(staging_plan: dict) -> None:
    (made,) = Plan(staging_plan).all("aws_ecr_lifecycle_policy").values()
    patterns = re.findall(r"live-[a-z-]+\*", made["policy"])
    assert patterns == ["live-production-*", "live-staging-*"]
    assert fnmatch(f"live-staging-{OLD[7:19]}", patterns[1])
