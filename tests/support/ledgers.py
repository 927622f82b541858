"""Ledgers to look at: with the demo's week of history, and with as many services as a large company has."""

import hashlib
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

from prop import ROOT, Prop

ENVIRONMENTS = ["testing", "staging", "production"]
PEOPLE = ["dana", "erin", "farid", "grace", "pipeline"]


def demo(prop: Prop) -> None:
    """What scripts/demo.sh makes."""
    environment = {"PATH": os.environ["PATH"], "PROP_KEY": prop.key}
    subprocess.run([ROOT / "scripts" / "demo.sh", prop.url], env=environment, check=True, capture_output=True)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def many(prop: Prop, services: int) -> None:
    """Services that are live in three environments, most of them with a newer release on its way to production."""
    for slug in ENVIRONMENTS:
        prop.post("/v1/environments", {"slug": slug, "name": slug.capitalize(), "tier": slug})
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: one_of_many(prop, n), range(services)))


def one_of_many(prop: Prop, n: int) -> None:
    service = f"service-{n:03}"
    prop.post("/v1/services", {"slug": service, "name": f"Service {n}", "owner": f"team-{n % 12}"})
    # Every fifth is the same everywhere; of the others, production is behind.
    for index, environment in enumerate(ENVIRONMENTS):
        version = f"1.{n % 7}.{0 if n % 5 == 0 or environment == 'production' else 1}"
        body = {
            "service": service, "environment": environment, "version": version, "create_missing": True, "start": True,
            "git_sha": digest(f"commit {service} {version}")[:40], "image_digest": f"sha256:{digest(f'{service} {version}')}",
            "requested_by": PEOPLE[(n + index) % len(PEOPLE)],
        }
        deployment = prop.post("/v1/deployments", body)
        # One rollout in fifty goes on.
        if not (environment == "testing" and n % 50 == 0):
            prop.post(f"/v1/deployments/{deployment['id']}/transitions", {"to": "succeeded"})
