"""Plays GitHub's REST API, as far as the scripts use it: environments with their rules, variables, secrets, reviews, comments.

It holds what it was sent, refuses what GitHub refuses, and lets a token do no more than its job's permissions say.
"""

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from nacl.public import PrivateKey, SealedBox
from serving import serving

REPOSITORY = "prop-ledger/prop"
PEOPLE = {"alice": 101, "bob": 102, "carol": 103}
TEAMS = {"prop-ledger/platform": 201}


class Refused(Exception):
    """What GitHub says instead of doing it."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message


@dataclass
class Environment:
    """A GitHub environment."""

    wait_timer: int = 0
    prevent_self_review: bool = False
    reviewers: list[dict] = field(default_factory=list)
    policy: dict | None = None
    branches: dict[int, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)

    def admits(self, branch: str) -> bool:
        return not self.policy or branch in self.branches.values()


@dataclass
class GitHub:
    """A repository on GitHub."""

    private: bool = False
    plan_has_reviewers: bool = True
    environments: dict[str, Environment] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    reviews: dict[str, list[dict]] = field(default_factory=dict)  # by run
    comments: dict[int, dict] = field(default_factory=dict)
    hooks: dict[int, dict] = field(default_factory=dict)  # webhooks of the repository
    tokens: dict[str, dict[str, str]] = field(default_factory=lambda: {"admin": {"administration": "write"}})
    calls: list[tuple[str, str]] = field(default_factory=list)
    key: PrivateKey = field(default_factory=PrivateKey.generate)
    groups: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # of concurrency: run and job, in order of arrival
    url: str = ""
    serial: int = 0

    def next(self) -> int:
        self.serial += 1
        return self.serial

    def changing_calls(self) -> list[tuple[str, str]]:
        return [call for call in self.calls if call[0] != "GET"]

    # --- Concurrency groups

    def has_turn(self, group: dict, job: tuple[str, str]) -> bool:
        """Whether the job is the first of its concurrency group. Until it ends, it keeps its turn, also while it waits for a review.

        With `queue: max`, jobs wait in order of arrival: https://docs.github.com/en/actions/how-tos/write-workflows/choose-when-workflows-run/control-workflow-concurrency
        That a job keeps its turn while it waits for a review is not documented. It was seen in
        https://github.com/dotnet/docs/issues/28144 and https://github.com/vstorm-co/agenticos/issues/1832.
        """
        assert group["queue"] == "max" and not group["cancel-in-progress"], "nothing else is played"
        queue = self.groups.setdefault(group["group"], [])
        if job not in queue:
            queue.append(job)
        return queue[0] == job

    def end_turn(self, group: dict, job: tuple[str, str]) -> None:
        self.groups[group["group"]].remove(job)

    # --- What people do, in the browser

    def review(self, run: str, environment: str, reviewer: str, state: str, actor: str, comment: str = "") -> None:
        """Somebody approves or rejects what waits for the environment; GitHub lets only those who may."""
        rules = self.environments[environment]
        assert PEOPLE[reviewer] in [one["id"] for one in rules.reviewers], f"{reviewer} is no reviewer of {environment}"
        assert not (rules.prevent_self_review and reviewer == actor), f"{reviewer} can't review a run of their own"
        of_run = self.reviews.setdefault(run, [])
        of_run.insert(0, {"state": state, "comment": comment, "user": {"login": reviewer, "id": PEOPLE[reviewer]}, "environments": [{"id": 1, "name": environment}]})

    # --- The API

    def answer(self, method: str, path: str, body: Any, token: str) -> tuple[int, Any]:
        self.calls.append((method, path))
        if token not in self.tokens:
            raise Refused(401, "Bad credentials")
        path, _, query = path.partition("?")
        for pattern, permission, function in ROUTES:
            if match := re.fullmatch(f"/repos/{REPOSITORY}{pattern}" if not pattern.startswith("!") else pattern[1:], path):
                self.check(token, permission, method)
                return function(self, method, body, *match.groups(), **({"query": query} if function in (comments, hooks) else {}))
        raise Refused(404, "Not Found")

    def check(self, token: str, permission: str, method: str) -> None:
        has = self.tokens[token]
        level = has.get("administration") or has.get(permission, "none")
        if permission and (level == "none" or (method != "GET" and level != "write")):
            raise Refused(403, "Resource not accessible by integration")


def repository(github: GitHub, _method: str, _body: Any) -> tuple[int, Any]:
    return 200, {"full_name": REPOSITORY, "default_branch": "main", "private": github.private}


def user(_github: GitHub, _method: str, _body: Any, login: str) -> tuple[int, Any]:
    return (200, {"login": login, "id": PEOPLE[login]}) if login in PEOPLE else missing()


def team(_github: GitHub, _method: str, _body: Any, organisation: str, slug: str) -> tuple[int, Any]:
    name = f"{organisation}/{slug}"
    return (200, {"slug": slug, "id": TEAMS[name]}) if name in TEAMS else missing()


def missing() -> Any:
    raise Refused(404, "Not Found")


def environment(github: GitHub, method: str, body: Any, name: str) -> tuple[int, Any]:
    if method == "PUT":
        if body.get("reviewers") and github.private and not github.plan_has_reviewers:
            raise Refused(422, "Failed to create the environment protection rule. Please ensure the billing plan supports the required reviewers protection rule.")
        found = github.environments.setdefault(name, Environment())
        found.wait_timer, found.prevent_self_review = body["wait_timer"], body["prevent_self_review"]
        found.reviewers, found.policy = body["reviewers"] or [], body["deployment_branch_policy"]
    elif name not in github.environments:
        missing()
    found = github.environments[name]
    rules: list[dict] = [{"id": 1, "type": "wait_timer", "wait_timer": found.wait_timer}] if found.wait_timer else []
    if found.reviewers:
        listed = [{"type": one["type"], "reviewer": {"id": one["id"]}} for one in found.reviewers]
        rules.append({"id": 2, "type": "required_reviewers", "prevent_self_review": found.prevent_self_review, "reviewers": listed})
    rules += [{"id": 3, "type": "branch_policy"}] if found.policy else []
    return 200, {"name": name, "protection_rules": rules, "deployment_branch_policy": found.policy}


def branch_policies(github: GitHub, method: str, body: Any, name: str, number: str | None = None) -> tuple[int, Any]:
    branches = github.environments[name].branches if name in github.environments else missing()
    if method == "POST":
        branches[github.next()] = body["name"]
    elif method == "DELETE":
        branches.pop(int(number or 0))
        return 204, None
    return 200, {"branch_policies": [{"id": key, "name": value} for key, value in branches.items()]}


def place(github: GitHub, name: str | None) -> GitHub | Environment:
    if not name:
        return github
    return github.environments[name] if name in github.environments else missing()


def variables(github: GitHub, method: str, body: Any, where: str | None, name: str | None = None) -> tuple[int, Any]:
    kept = place(github, where).variables
    if method == "POST":
        assert body["name"] not in kept, "a variable is made once, and then changed"
        kept[body["name"]] = body["value"]
        return 201, {}
    if name not in kept:
        missing()
    if method == "PATCH":
        kept[name] = body["value"]
        return 204, None
    return 200, {"name": name, "value": kept[name]}


def secrets(github: GitHub, method: str, body: Any, where: str | None, name: str) -> tuple[int, Any]:
    kept = place(github, where).secrets
    if name == "public-key":
        return 200, {"key_id": "1", "key": b64encode(bytes(github.key.public_key)).decode()}
    if method == "PUT":
        assert body["key_id"] == "1"
        is_new = name not in kept
        kept[name] = SealedBox(github.key).decrypt(b64decode(body["encrypted_value"])).decode()
        return (201 if is_new else 204), None
    return (200, {"name": name}) if name in kept else missing()


def approvals(github: GitHub, _method: str, _body: Any, run: str) -> tuple[int, Any]:
    return 200, github.reviews.get(run, [])


def comments(github: GitHub, method: str, body: Any, number: str, query: str = "") -> tuple[int, Any]:
    if method == "POST":
        key = github.next()
        github.comments[key] = {"id": key, "issue": number, "body": body["body"], "user": {"login": "github-actions[bot]", "type": "Bot"}}
        return 201, github.comments[key]
    page = int(re.search(r"page=(\d+)$", query)[1])
    found = [one for one in github.comments.values() if one["issue"] == number]
    return 200, found[100 * (page - 1) : 100 * page]


def comment(github: GitHub, _method: str, body: Any, key: str) -> tuple[int, Any]:
    github.comments[int(key)]["body"] = body["body"]
    return 200, github.comments[int(key)]


def hooks(github: GitHub, method: str, body: Any, query: str = "") -> tuple[int, Any]:
    """https://docs.github.com/en/rest/repos/webhooks"""
    if method == "POST":
        assert body["name"] == "web"
        if any(hook["config"]["url"] == body["config"]["url"] for hook in github.hooks.values()):
            raise Refused(422, "Hook already exists on this repository")
        key = github.next()
        github.hooks[key] = {"id": key, "name": "web", "active": body["active"], "events": body["events"], "config": body["config"]}
        return 201, shown_hook(github.hooks[key])
    page = int(re.search(r"page=(\d+)$", query)[1])
    return 200, [shown_hook(hook) for hook in github.hooks.values()][100 * (page - 1) : 100 * page]


def hook(github: GitHub, method: str, body: Any, key: str, config: str | None = None) -> tuple[int, Any]:
    """A whole new `config` removes a secret that it does not repeat; the address of `config` changes what it is sent."""
    assert method == "PATCH"
    found = github.hooks[int(key)]
    if config:
        found["config"] |= body
    else:
        found |= body
    return 200, shown_hook(found)


def shown_hook(hook: dict) -> dict:
    """Nobody can read a secret."""
    return hook | {"config": hook["config"] | ({"secret": "********"} if "secret" in hook["config"] else {})}


# A path, the permission that a token needs for it, and what answers.
ROUTES: list[tuple[str, str, Callable]] = [
    ("", "metadata", repository),
    (r"!/users/([^/]+)", "", user),
    (r"!/orgs/([^/]+)/teams/([^/]+)", "", team),
    (r"/environments/([^/]+)", "administration", environment),
    (r"/environments/([^/]+)/deployment-branch-policies(?:/(\d+))?", "administration", branch_policies),
    (r"(?:/actions|/environments/([^/]+))/variables(?:/([^/]+))?", "administration", variables),
    (r"(?:/actions|/environments/([^/]+))/secrets/([^/]+)", "administration", secrets),
    (r"/hooks", "repository_hooks", hooks),
    (r"/hooks/(\d+)(/config)?", "repository_hooks", hook),
    (r"/actions/runs/(\d+)/approvals", "actions", approvals),
    (r"/issues/(\d+)/comments", "pull-requests", comments),
    (r"/issues/comments/(\d+)", "pull-requests", comment),
]


@contextmanager
def running_github(github: GitHub) -> Iterator[GitHub]:
    """Serves it on a port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            try:
                status, answer = github.answer(self.command, self.path, body, token)
            except Refused as refused:
                status, answer = refused.status, {"message": refused.message}
            data = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = respond

        def log_message(self, *_args: Any) -> None:
            pass

    with serving(Handler) as url:
        github.url = url
        yield github
