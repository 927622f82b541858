"""The OpenAPI document is one, by the rules of its own specification."""

import json

from openapi_spec_validator import OpenAPIV31SpecValidator

from schemathesis_hooks import REFUSED


def test_the_document_is_valid_openapi_3_1(document):
    content = json.loads(document.read_text())
    assert content["openapi"].startswith("3.1.")
    assert [error.message for error in OpenAPIV31SpecValidator(content).iter_errors()] == []


def test_each_refusal_of_a_valid_request_is_stated(document):
    """What schemathesis may see refused although it fits the schema: the code and the field are in the operation's text."""
    content = json.loads(document.read_text())
    operations = {operation["operationId"]: operation for item in content["paths"].values() for operation in item.values()}
    unstated = []
    for name, refusals in REFUSED.items():
        operation = operations[name]
        responses = operation["responses"]
        text = " ".join([operation["description"], *(responses[status]["description"] for status in ["400", "422"] if status in responses)])
        for code, field in refusals:
            words = [code, (field or "").rsplit("/")[-1]]
            unstated += [f"{name}: `{word}`" for word in words if word and f"`{word}`" not in text]
    assert unstated == []
