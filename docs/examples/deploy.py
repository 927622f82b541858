#!/usr/bin/env python3
"""Rolls a release out and records it in prop, whose gate decides before anything changes.

    deploy.py SERVICE ENVIRONMENT VERSION IMAGE_DIGEST COMMAND [ARGUMENT]...

COMMAND rolls the release out; its exit code decides whether the deployment succeeded.
PROP_URL  where prop is
PROP_KEY  a key with the scope deploy, from your secret store
RUN_ID    the name of this pipeline run: the same one again is the same deployment

Exit codes: 0 deployed, 1 prop did not record it, 2 an argument is missing, 4 the gate blocked it,
else that of COMMAND. Requires Python 3.9 or later and nothing else.
"""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request


class Rejected(Exception):
    """prop answered with a problem (RFC 9457)."""

    def __init__(self, problem: dict):
        self.code = problem.get("code")
        if reasons := problem.get("reasons"):
            lines = [problem["title"], *(f"  - {reason['detail']}" for reason in reasons)]
        else:
            lines = [problem.get("detail", "no detail")]
        super().__init__("\n".join(lines))


def post(path: str, body: dict) -> dict:
    request = urllib.request.Request(
        os.environ["PROP_URL"] + path,
        data=json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {os.environ['PROP_KEY']}",
            "Content-Type": "application/json",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        try:
            problem = json.load(error)
        except ValueError:  # a proxy answered, not prop
            problem = {"detail": str(error)}
        raise Rejected(problem) from None


def roll_out(command: list[str]) -> int:
    """Runs the command; its exit code, or the one that shells use if a signal ended it."""
    try:
        code = subprocess.run(command, check=False).returncode
    except OSError as error:
        print(error, file=sys.stderr)
        return 127
    return code if code >= 0 else 128 - code


def deploy(service: str, environment: str, version: str, digest: str, command: list[str]) -> int:
    post(
        "/v1/releases",
        {"service": service, "version": version, "image_digest": digest, "create_missing": True},
    )
    # Creates and starts the deployment in one request: prop records it as running, or says why not.
    deployment = post(
        "/v1/deployments",
        {
            "service": service,
            "environment": environment,
            "version": version,
            "external_id": os.environ["RUN_ID"],
            "start": True,
        },
    )
    if deployment["state"] != "running":
        run, state = os.environ["RUN_ID"], deployment["state"]
        print(f"prop: the deployment of run {run} has ended already: {state}", file=sys.stderr)
        return 1
    outcome = {"to": "failed", "reason": "The pipeline was interrupted."}
    try:
        code = roll_out(command)
        if code == 0:
            outcome = {"to": "succeeded"}
        else:
            outcome = {"to": "failed", "reason": f"The rollout ended with exit code {code}."}
        return code
    finally:
        # Whatever happened: a deployment that stays running blocks the next one.
        post(f"/v1/deployments/{deployment['id']}/transitions", outcome)


def main() -> int:
    if len(sys.argv) < 6 or not {"PROP_URL", "PROP_KEY", "RUN_ID"} <= os.environ.keys():
        print(__doc__, file=sys.stderr)
        return 2
    # SIGTERM, which a cancelled pipeline sends, ends the program the way an exception does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return deploy(*sys.argv[1:5], sys.argv[5:])
    except Rejected as error:
        print(f"prop: {error}", file=sys.stderr)
        return 4 if error.code == "gate_blocked" else 1
    except OSError as error:
        print(f"prop does not answer: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
