"""What a document can't say, and schemathesis must know to judge answers fairly."""

import os
import re
import uuid

import schemathesis


# Invisible characters beyond the Basic Multilingual Plane, as src/types/invisible.rs refuses them. Each dialect of patterns writes
# them in another way, so the document says it in words.
INVISIBLE = re.compile(
    "[\U000110BD\U000110CD\U00013430-\U0001343F\U0001BCA0-\U0001BCA3\U0001D173-\U0001D17A\U000E0000-\U000E0FFF]")


def without_invisible(value):
    """The value with a visible character in place of each of those."""
    if isinstance(value, str):
        return INVISIBLE.sub("x", value)
    if isinstance(value, list):
        return [without_invisible(item) for item in value]
    if isinstance(value, dict):
        return {name: without_invisible(item) for name, item in value.items()}
    return value


@schemathesis.hook
def before_call(context, case, kwargs):
    # A run that revoked its own key would be answered 401 from there on.
    if case.operation.label == "DELETE /v1/keys/{id}" and case.path_parameters.get("id") == os.environ["PROP_KEY_ID"]:
        case.path_parameters["id"] = str(uuid.UUID(int=0))

    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    case.body = without_invisible(case.body)
    # A cursor is right when the list itself handed it out, which is more than its form. The wrong ones are sent all the
    # same, by the cases that are to be refused.
    if case.query:
        case.query.pop("cursor", None)
    # A key that came with another request before is rightly refused: each request gets a key of its own.
    if case.headers and "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
    # Likewise an entity tag is right only as long as it is the current one; `*` always is.
    if case.headers and "If-Match" in case.headers:
        case.headers["If-Match"] = "*"


# What one field says of another, or of the ledger, and no schema can say. The document states each in the description of the
# operation or of its 422 (or 400) response; `test_document.py` checks that. For each operation: the code of the problem, and the
# field or parameter that it names.
REFUSED = {
    "create_environment": {("invalid_value", "/predecessor"), ("predecessor_circle", "/predecessor")},
    "update_environment": {("invalid_value", "/predecessor"), ("predecessor_circle", "/predecessor")},
    "create_freeze": {("invalid_value", "/ends_at"), ("invalid_time_zone", "/weekly/time_zone")},
    "update_freeze": {("invalid_value", "/ends_at")},
    "override_freeze": {("invalid_value", ""), ("invalid_value", "/expires_at")},
    "create_incident": {("invalid_value", "/detected_at")},
    "update_incident": {("invalid_value", "/resolved_at"), ("invalid_value", "/resolved")},
    "create_release": {("invalid_value", "/at")},
    "record_scan": {("invalid_value", "/at")},
    "create_approval": {
        ("invalid_value", "/source"), ("missing_field", "/approver"), ("missing_field", "/run_url"), ("invalid_value", "/at"),
        ("invalid_value", "/approver")},
    "create_key": {("invalid_value", "/name")},
    "create_deployment": {
        ("invalid_value", "/source"), ("invalid_value", "/state"), ("invalid_value", "/finished_at"), ("invalid_value", "/at"),
        ("invalid_value", "/fixes"), ("invalid_value", "/version"), ("missing_field", "/version"),
        ("invalid_value", "/requested_by")},
    "move_deployment": {("invalid_value", "/at")},
    # `None` is any parameter.
    "get_dora_metrics": {("invalid_window", None), ("invalid_query", "tier")},
    "evaluate_gate": {("invalid_query", None)},
}


@schemathesis.check
def a_valid_request_is_refused_only_as_stated(ctx, response, case):
    """A request that fits its schema may be refused only for one of the reasons in REFUSED."""
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code not in (400, 412, 422):
        return
    problem = response.json()
    operation = case.operation.definition.raw["operationId"]
    stated = REFUSED.get(operation, set())
    pointers = [error["pointer"] for error in problem.get("errors", [])] or [""]
    unstated = [(problem["code"], pointer) for pointer in pointers if not stated & {(problem["code"], pointer), (problem["code"], None)}]
    if unstated:
        raise AssertionError(f"{operation} refuses what its schema allows, for a reason that is not stated: {unstated}: {problem['detail']}")
