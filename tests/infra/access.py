"""Who may call what in the stand-in for AWS: every call is noted, and policies are followed as AWS follows them.

moto, once told to (`POST /moto-api/reset-auth`), knows whose key it is and which policies he has. Of these it takes the actions
only: a call is about the resource `*`, and a statement with a condition refuses all (its own list of what is missing stands in
moto/iam/access_control.py). Here the resource and the values of condition keys are taken from the request.

What this can't show: service control policies, permission boundaries and sessions, which this stack has none of; endpoint
policies; and the resources of a call whose request does not name them.
"""

import hashlib
import json
import os
from typing import Any

from moto import settings
from moto.core.authorization import ActionAuthenticatorMixin
from moto.ecs.models import ecs_backends
from moto.iam.access_control import AssumedRoleAccessKey, IAMRequestBase

import iam

# The keys of the account's root user, who may do everything: those of fixtures, whose calls are not noted.
ROOT = {"nobody", "test"}

# What a bucket's sub-resources in a request are called in policies:
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
SUBRESOURCES = {
    "accelerate": "AccelerateConfiguration", "acl": "BucketAcl", "cors": "BucketCORS", "encryption": "EncryptionConfiguration",
    "lifecycle": "LifecycleConfiguration", "location": "BucketLocation", "logging": "BucketLogging", "object-lock": "BucketObjectLockConfiguration",
    "ownershipControls": "BucketOwnershipControls", "policy": "BucketPolicy", "publicAccessBlock": "BucketPublicAccessBlock",
    "replication": "ReplicationConfiguration", "requestPayment": "BucketRequestPayment", "tagging": "BucketTagging",
    "versioning": "BucketVersioning", "website": "BucketWebsite",
}  # fmt: skip


def install() -> None:
    """Makes moto, in this process, note calls and follow policies."""
    ActionAuthenticatorMixin._authenticate_and_authorize_action = authorize


def authorize(response: Any, request_class: type[IAMRequestBase], resource: str = "*") -> None:
    """Takes the place of moto's own check, which every call passes."""
    scope = response.headers.get("Authorization", "").partition("Credential=")[2].partition(",")[0].split("/")
    if scope[0] in ROOT or settings.INITIAL_NO_AUTH_ACTION_COUNT == float("inf") or len(scope) < 4:
        return
    service, operation, request = request_of(response, scope[3], resource)
    needed = iam.needs_of(service, operation, request, scope[2], response.current_account)
    if (service, operation) == ("ecs", "RunTask"):
        needed += passed_by_task(response, request, scope[2], needed[0].context)
    caller = request_class(
        account_id=response.current_account,
        method=response.method,
        path=response.raw_path,
        data=response.data,
        body=response.raw_body,
        headers=response.headers,
        action=operation,
    )
    policies = [document_of(policy) for policy in caller._access_key.collect_policies()]
    refused = [need for need in needed if not iam.allowing(policies, need)]
    note(caller, f"{iam.PREFIXES.get(service, service)}:{operation}", needed, refused, request.get("MasterUserPassword"))
    if refused:
        caller._action = refused[0].action
        caller._raise_access_denied()


def request_of(response: Any, service: str, resource: str) -> tuple[str, str, dict[str, Any]]:
    """Service, operation and parameters of a request, whichever way the service writes them."""
    if service == "s3":
        bucket, _, key = resource.removeprefix("arn:aws:s3:::").partition("/")
        return service, s3_operation(response, bool(key)), {"Bucket": bucket} | ({"Key": key} if key else {})
    operation = response.headers.get("X-Amz-Target", "").rpartition(".")[2] or response._get_action()
    request: dict[str, Any] = {name: value[0] for name, value in response.normalized_request.values.lists()}
    if "json" in response.headers.get("Content-Type", "") and response.raw_body:
        request = json.loads(response.raw_body)
    return service, operation, request | dict(getattr(response, "uri_match", None) or {})


def s3_operation(response: Any, has_key: bool) -> str:
    verb = {"GET": "Get", "HEAD": "Get", "PUT": "Put", "DELETE": "Put", "POST": "Put"}[response.method]
    for name, action in SUBRESOURCES.items():
        if name in response.querystring and not has_key:
            return "DeleteBucketPolicy" if (response.method, name) == ("DELETE", "policy") else verb + action
    return response._get_action()


def passed_by_task(response: Any, request: dict[str, Any], region: str, context: dict[str, str]) -> list[iam.Need]:
    """A task runs with the roles of its definition: who starts it passes them."""
    definition = ecs_backends[response.current_account][region].describe_task_definition(request["taskDefinition"])
    return [iam.passing(role, "ecs-tasks.amazonaws.com", context) for role in (definition.execution_role_arn, definition.task_role_arn) if role]


def document_of(policy: Any) -> str:
    """moto has inline policies of users, of roles and managed policies in three forms."""
    if isinstance(policy, str):
        return policy
    if isinstance(policy, dict):
        return policy["policy_document"]
    return next(version.document for version in policy.versions if version.is_default)


def note(caller: IAMRequestBase, call: str, needed: list[iam.Need], refused: list[iam.Need], password: str | None) -> None:
    """Writes down a call; of a password, only what distinguishes it from others."""
    key = caller._access_key
    line = {
        "by": key._session_name if isinstance(key, AssumedRoleAccessKey) else key._owner_user_name, "call": call,
        "needs": [[need.action, need.resources, need.context] for need in needed], "refused": [need.action for need in refused],
        "password": password and hashlib.sha256(password.encode()).hexdigest(),
    }  # fmt: skip
    with open(os.environ["STAND_IN_CALLS"], "a") as file:
        file.write(json.dumps(line) + "\n")
