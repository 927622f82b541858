"""Swagger UI, from the key to the answer."""

import json
import re

from playwright.sync_api import Locator, Page, expect


def operation(page: Page, method: str, path: str) -> Locator:
    """An operation, opened."""
    block = page.locator(f".opblock-{method}").filter(has=page.locator(f'[data-path="{path}"]'))
    block.locator(".opblock-summary-control").click()
    return block


def execute(block: Locator) -> tuple[str, dict]:
    """The status and the body of the answer, as the page shows them."""
    block.get_by_role("button", name="Execute").click()
    answer = block.locator(".live-responses-table .response")
    expect(answer.locator(".highlight-code").first).to_be_visible()
    return answer.locator(".response-col_status").inner_text().split()[0], json.loads(answer.locator("code").first.inner_text())


def test_it_authorizes_records_a_deployment_and_reads_it_back(prop, reader):
    page = reader(prop, key=None, expected="401")
    page.goto("/docs/")
    expect(page.get_by_role("heading", name=re.compile("^prop "))).to_be_visible()

    # Without a key the answer says so.
    status, problem = execute(operation(page, "get", "/v1/status"))
    assert (status, problem["code"]) == ("401", "unauthenticated")

    page.get_by_role("button", name="Authorize").first.click()
    bearer = page.locator(".auth-container").filter(has=page.get_by_role("textbox", name="auth-bearer-value"))
    bearer.get_by_role("textbox").fill(prop.key)
    bearer.get_by_role("button", name=re.compile("Apply|Authorize")).click()
    page.get_by_role("button", name="Close").last.click()

    # The example of the document is what is sent: it works as it is.
    create = operation(page, "post", "/v1/deployments")
    status, recorded = execute(create)
    assert status == "201" and recorded["state"] == "running", recorded
    assert prop.get(f"/v1/deployments/{recorded['id']}")["service"] == "checkout"

    read = operation(page, "get", "/v1/deployments/{id}")
    read.locator("tr[data-param-name='id'] input").fill(recorded["id"])
    status, found = execute(read)
    assert status == "200" and found == recorded
