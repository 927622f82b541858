"""The OpenAPI document is one, by the rules of its own specification."""

import json

from openapi_spec_validator import OpenAPIV31SpecValidator


def test_the_document_is_valid_openapi_3_1(document):
    content = json.loads(document.read_text())
    assert content["openapi"].startswith("3.1.")
    assert [error.message for error in OpenAPIV31SpecValidator(content).iter_errors()] == []
