"""What a document can't say, and schemathesis must know to judge answers fairly."""

import os
import uuid

import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    # A run that revoked its own key would be answered 401 from there on.
    if case.operation.label == "DELETE /v1/keys/{id}" and case.path_parameters.get("id") == os.environ["PROP_KEY_ID"]:
        case.path_parameters["id"] = str(uuid.UUID(int=0))

    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
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
