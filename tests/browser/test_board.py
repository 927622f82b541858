"""The board: what is live where, by eye, by keyboard and by screen reader. And how it stays up to date."""

import re
from contextlib import ExitStack

import pytest
from playwright.sync_api import Page, expect

from chromium import CLIPBOARD, NARROW, clipboard, in_a_shell, overflow
from ledgers import digest
from prop import generate_key, running_prop

UNREACHABLE = "net::ERR_|Failed to load resource"
# Two polls of the board, and some time for a busy machine.
SOON_MS = 20_000


def cell(page: Page, service: str, environment: str):
    """A place on the board, found as a screen reader finds it."""
    expect(page.get_by_role("columnheader", name=environment)).to_be_attached(timeout=SOON_MS)
    columns = page.get_by_role("columnheader").all_inner_texts()
    index = next(n for n, name in enumerate(columns) if name.startswith(environment))
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=service))
    return row.get_by_role("cell").nth(index - 1)


def go_live(prop, service: str, environment: str, version: str) -> dict:
    body = {"service": service, "environment": environment, "version": version, "start": True, "create_missing": True}
    deployment = prop.post("/v1/deployments", {**body, "image_digest": f"sha256:{digest(version)}", "git_sha": digest(version)[:40]})
    return prop.post(f"/v1/deployments/{deployment['id']}/transitions", {"to": "succeeded"})


def test_it_shows_what_is_live_since_when_by_whom_and_what_needs_attention(shop, reader):
    page = reader(shop)
    page.goto("/")
    expect(page.get_by_role("columnheader")).to_have_text(["Service", "Testing", "Staging", "Production"])
    expect(page.get_by_role("rowheader")).to_have_text([re.compile("^Accounts.*identity"), re.compile("^Catalogue"), re.compile("^Checkout")])
    accounts = cell(page, "Accounts", "Production")
    for text in ["1.1.1", "28 h", "erin", "minor incident: Sign-ins are slow", "frozen until", "Quarter end", "bypassed the gate"]:
        expect(accounts).to_contain_text(text)
    checkout = cell(page, "Checkout", "Production")
    for text in ["1.1.1", "1 release behind staging (6 h)", "1.2.0 waiting for approval", "dana"]:
        expect(checkout).to_contain_text(text)
    expect(cell(page, "Accounts", "Staging")).to_contain_text("1.2.0 rolling out")
    expect(page.locator("#fresh")).to_have_text(re.compile("up to date|checked"))
    live = {place["environment"]: place["live"] for place in shop.get("/v1/status")["services"][2]["places"]}["production"]
    expect(checkout.get_by_text(live["git_sha"][:7], exact=True)).to_be_visible()


def test_an_approved_deployment_says_what_blocks_it(prop, reader):
    body = {"service": "shop", "environment": "testing", "version": "1.0.0", "create_missing": True}
    prop.post("/v1/deployments", body)
    page = reader(prop)
    page.goto("/")
    place = cell(page, "shop", "testing")
    expect(place).to_contain_text("1.0.0 approved · ")
    prop.post("/v1/freezes", {"reason": "Inventory", "ends_at": "2099-01-01T00:00:00Z"})
    expect(place).to_contain_text("1.0.0 approved, blocked: frozen until ", timeout=SOON_MS)


def test_a_failed_deployment_is_visible_until_a_later_one_succeeds(prop, reader):
    go_live(prop, "shop", "testing", "1.0.0")
    body = {"service": "shop", "environment": "testing", "version": "1.1.0", "start": True, "create_missing": True}
    failed = prop.post("/v1/deployments", body)
    prop.post(f"/v1/deployments/{failed['id']}/transitions", {"to": "failed"})
    page = reader(prop)
    page.goto("/")
    expect(page.get_by_role("link", name=re.compile("1.1.0 failed just now · "))).to_be_visible()
    page.get_by_role("button", name="1 failed").click()
    expect(page).to_have_url(re.compile(r"\?q=is%3Afailed$"))
    expect(page.get_by_role("rowheader")).to_have_count(1)
    go_live(prop, "shop", "testing", "1.1.1")
    expect(page.get_by_text("1.1.0 failed")).to_have_count(0, timeout=SOON_MS)


def test_a_digest_is_reached_by_mouse_keyboard_and_screen_reader(shop, reader):
    page = reader(shop)
    page.goto("/")
    place = cell(page, "Checkout", "Production")
    link, tip = place.get_by_role("link", name="1.1.1"), place.get_by_role("tooltip", include_hidden=True)
    image = shop.get("/v1/services/checkout/environments/production")["live"]["image_digest"]
    expect(link).to_have_accessible_description(re.compile(image))
    expect(tip).to_be_hidden()
    link.hover()
    expect(tip).to_be_visible()
    expect(tip).to_contain_text(image)
    tip.hover()
    expect(tip).to_be_visible()
    page.mouse.move(0, 0)
    expect(tip).to_be_hidden()
    link.focus()
    expect(tip).to_be_visible()
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()


def test_everything_works_by_keyboard(shop, reader):
    page = reader(shop)
    page.goto("/")
    expect(page.get_by_role("rowheader")).to_have_count(3)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("check is:waiting")
    expect(page.get_by_role("rowheader")).to_have_text([re.compile("^Checkout")])
    expect(page.get_by_role("status")).to_have_text("1 of 3 services")
    page.keyboard.press("Escape")
    expect(page.get_by_role("rowheader")).to_have_count(3)
    # Through the marks to the first place: the sticky header never covers the focus.
    for _ in range(20):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            "(() => { const e = document.activeElement, b = e.getBoundingClientRect(); return {text: e.innerText,"
            " outline: getComputedStyle(e).outlineStyle, seen: e.contains(document.elementFromPoint(b.x + b.width / 2, b.y + b.height / 2))} })()"
        )
        assert focused["outline"] != "none" and focused["seen"], focused
        if focused["text"] == "1.0.0":
            break
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/deployments/"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Accounts 1.0.0 to testing")


def test_a_filter_is_kept_in_the_address_and_marks_are_part_of_it(shop, reader):
    page = reader(shop)
    page.goto("/?q=identity")
    expect(page.get_by_role("rowheader")).to_have_text([re.compile("^Accounts")])
    page.get_by_role("searchbox").fill("")
    mark = page.get_by_role("button", name="1 waiting")
    mark.click()
    expect(mark).to_have_attribute("aria-pressed", "true")
    expect(page).to_have_url(re.compile(r"\?q=is%3Awaiting$"))
    expect(page.get_by_role("rowheader")).to_have_text([re.compile("^Checkout")])
    page.reload()
    expect(page.get_by_role("rowheader")).to_have_text([re.compile("^Checkout")])
    page.get_by_role("button", name="1 waiting").click()
    expect(page.get_by_role("rowheader")).to_have_count(3)


def test_a_deployment_appears_by_itself_and_nothing_else_moves(prop, reader):
    go_live(prop, "checkout", "staging", "1.0.0")
    go_live(prop, "billing", "staging", "1.0.0")
    page = reader(prop)
    answers = []
    page.on("response", lambda response: "/v1/status" in response.url and answers.append(response.status))
    page.goto("/")
    expect(cell(page, "checkout", "staging")).to_contain_text("1.0.0")
    with page.expect_response(lambda response: "/v1/status" in response.url and response.status == 304, timeout=SOON_MS):
        pass
    assert answers == [200, 304], "what has not changed is not sent again"
    page.evaluate("document.querySelectorAll('tbody tr').forEach(row => (row.kept = true))")
    page.get_by_role("link", name="1.0.0").nth(1).focus()
    started = prop.post("/v1/deployments", {"service": "checkout", "environment": "staging", "version": "1.1.0", "start": True, "create_missing": True})
    expect(cell(page, "checkout", "staging")).to_contain_text("1.1.0 rolling out", timeout=SOON_MS)
    expect(page.get_by_role("link", name="1.0.0").nth(1)).to_be_focused()
    prop.post(f"/v1/deployments/{started['id']}/transitions", {"to": "succeeded"})
    expect(cell(page, "checkout", "staging").get_by_role("link", name="1.1.0")).to_be_visible(timeout=SOON_MS)
    kept = page.evaluate("[...document.querySelectorAll('tbody tr')].map(row => [row.querySelector('.service').innerText, row.kept === true])")
    assert kept == [["billing", True], ["checkout", False]]
    go_live(prop, "accounts", "production", "1.0.0")
    expect(page.get_by_role("rowheader")).to_have_text(["accounts", "billing", "checkout"], timeout=SOON_MS)
    expect(cell(page, "accounts", "production")).to_contain_text("1.0.0")


def test_a_filter_without_a_match_says_so_and_can_be_cleared(shop, reader):
    page = reader(shop)
    page.goto("/")
    expect(page.get_by_role("rowheader")).to_have_count(3)
    sentence, button = page.get_by_text("No service matches this filter."), page.get_by_role("button", name="Clear filter")
    expect(sentence).to_be_hidden()
    page.get_by_role("searchbox").fill("no-such-service")
    expect(sentence).to_be_visible()
    expect(page.get_by_role("status")).to_have_text("0 of 3 services")
    button.click()
    expect(page.get_by_role("rowheader")).to_have_count(3)
    expect(sentence).to_be_hidden()
    expect(page.get_by_role("searchbox")).to_be_focused()
    expect(page).to_have_url(f"{shop.url}/")


def test_the_two_steps_of_an_empty_board_end_with_a_live_deployment(prop, reader):
    page = reader(prop, permissions=CLIPBOARD)
    page.goto("/")
    expect(page.get_by_role("heading", level=1)).to_have_text("No deployments yet")
    expect(page.get_by_role("main")).to_contain_text(f"./scripts/demo.sh {prop.url}")
    steps = page.get_by_role("listitem")
    expect(steps).to_have_count(2)
    expect(steps.last).to_have_text("This page shows it within five seconds.")
    page.evaluate("window.isKept = true")
    steps.first.get_by_role("button", name="Copy command").click()
    expect(steps.first.get_by_role("button")).to_contain_text("Copied")
    in_a_shell(prop, clipboard(page))
    hello = cell(page, "hello", "development")
    expect(hello.get_by_role("link", name="1.0.0")).to_be_visible()
    expect(hello).not_to_contain_text("rolling out")
    assert page.evaluate("window.isKept"), "the page was not reloaded"
    assert prop.get("/v1/services/hello/environments/development")["live"]["version"] == "1.0.0"


def test_it_says_when_the_server_is_unreachable_and_recovers(tmp_path, reader):
    key = generate_key()
    with ExitStack() as first:
        prop = first.enter_context(running_prop(tmp_path, PROP_BOOTSTRAP_KEY=key))
        go_live(prop, "checkout", "staging", "1.0.0")
        page = reader(prop, expected=UNREACHABLE)
        page.goto("/")
        expect(cell(page, "checkout", "staging")).to_contain_text("1.0.0")
        expect(page.get_by_role("alert")).to_be_hidden()
    alert = page.get_by_role("alert")
    expect(alert).to_have_text(re.compile(r"The server can't be reached\. This is what was known at \d\d:\d\d:\d\d\."), timeout=SOON_MS)
    expect(cell(page, "checkout", "staging")).to_contain_text("1.0.0")
    expect(page.locator("#fresh")).to_have_text(re.compile(r"checked \d+ s ago"))
    with running_prop(tmp_path, int(prop.url.rsplit(":", 1)[1]), PROP_BOOTSTRAP_KEY=key) as again:
        go_live(again, "checkout", "staging", "2.0.0")
        expect(cell(page, "checkout", "staging")).to_contain_text("2.0.0", timeout=60_000)
        expect(alert).to_be_hidden()


def test_without_a_key_it_asks_for_one_and_keeps_it_for_the_tab(shop, reader):
    page = reader(shop, key=None, expected="401")
    page.goto("/")
    field = page.get_by_label("API key")
    expect(field).to_be_focused()
    field.fill("prop_wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert").filter(has_text="Unknown key.")).to_be_visible()
    expect(field).to_be_focused()
    field.fill(f"  {shop.key} ")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("rowheader")).to_have_count(3)
    page.reload()
    expect(page.get_by_role("rowheader")).to_have_count(3)
    stored = page.evaluate("({session: sessionStorage.length, local: localStorage.length, cookie: document.cookie})")
    assert stored == {"session": 1, "local": 0, "cookie": ""} and shop.key not in page.url
    other = page.context.new_page()
    other.goto("/")
    expect(other.get_by_label("API key")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0


def test_a_key_that_may_not_read_or_is_revoked_is_rejected_with_a_reason(prop, reader):
    go_live(prop, "checkout", "staging", "1.0.0")
    page = reader(prop, key=None, expected="401|403")
    page.goto("/")
    deployer = prop.new_key("deployer", "deploy")
    page.get_by_label("API key").fill(deployer)
    page.keyboard.press("Enter")
    expect(page.get_by_text("This key does not have the read scope.")).to_be_visible()
    looker = prop.post("/v1/keys", {"name": "looker", "scopes": ["read"]})
    page.get_by_label("API key").fill(looker["key"])
    page.keyboard.press("Enter")
    expect(cell(page, "checkout", "staging")).to_contain_text("1.0.0")
    # The board of a key that is revoked while it is open does not stay on the screen.
    status, _ = prop.request("DELETE", f"/v1/keys/{looker['id']}")
    assert status in (200, 204)
    expect(page.get_by_text("This key was revoked.")).to_be_visible(timeout=SOON_MS)
    expect(page.get_by_role("table")).to_have_count(0)


def test_where_reading_is_public_nobody_signs_in(tmp_path, reader):
    with running_prop(tmp_path, PROP_PUBLIC_READ="true") as prop:
        deployment = go_live(prop, "checkout", "staging", "1.0.0")
        page = reader(prop, key=None)
        for path, text in [("/", "1.0.0"), (f"/deployments/{deployment['id']}", "checkout 1.0.0 to staging"),
                           ("/services/checkout/environments/staging", "checkout in staging"), ("/dora", "Delivery")]:
            page.goto(path)
            expect(page.get_by_role("main")).to_contain_text(text)
            expect(page.get_by_role("button", name="Sign out")).to_be_hidden()


def test_text_from_the_ledger_stays_text(prop, reader):
    evil = "<script>alert(1)</script>"
    image = "<img src=x onerror=alert(2)>"
    prop.post("/v1/services", {"slug": "checkout", "name": evil, "owner": image, "repository_url": "https://github.example.org/a/b"})
    prop.post("/v1/environments", {"slug": "production", "name": f"{image}Production", "tier": "production", "required_approvals": 1})
    deployment = prop.post("/v1/deployments", {
        "service": "checkout", "environment": "production", "version": "1", "observed": True, "requested_by": evil, "reason": image,
        "create_missing": True, "run_url": "https://ci.example.org/?a='><script>alert(3)</script>".replace("<", "%3C").replace(">", "%3E")})
    prop.post(f"/v1/deployments/{deployment['id']}/transitions", {"to": "succeeded"})
    prop.post("/v1/incidents", {"service": "checkout", "environment": "production", "title": evil, "severity": "minor"})
    prop.post("/v1/freezes", {"environment": "production", "reason": image})
    prop.post("/v1/approvals", {"service": "checkout", "environment": "production", "version": "1", "decision": "approved", "comment": evil})
    page = reader(prop)
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    for path in ["/", "/?q=" + "%3Cscript%3E", f"/deployments/{deployment['id']}", "/services/checkout/environments/production", "/dora?service=checkout"]:
        page.goto(path)
        expect(page.get_by_role("main").get_by_text(evil).first).to_be_attached()
        assert page.locator("main script, main img").count() == 0, path
        assert page.evaluate("[...document.querySelectorAll('main a')].every(a => ['http:', 'https:'].includes(a.protocol))"), path


def test_200_services_come_in_one_small_answer_and_are_filtered(company, reader):
    page = reader(company)
    asked = []
    page.on("requestfinished", lambda request: "/v1/" in request.url and asked.append(request))
    page.goto("/")
    expect(page.get_by_role("rowheader")).to_have_count(200)
    assert [request.url for request in asked] == [f"{company.url}/v1/status"]
    assert asked[0].sizes()["responseBodySize"] < 60_000
    page.get_by_role("searchbox").fill("service-17")
    expect(page.get_by_role("rowheader")).to_have_count(10)
    page.get_by_role("searchbox").fill("team-3 is:behind")
    expect(page.get_by_role("status")).to_have_text(re.compile(r"^\d+ of 200 services$"))
    # The names of the columns stay in sight.
    page.get_by_role("searchbox").fill("")
    page.mouse.wheel(0, 5_000)
    expect(page.get_by_role("columnheader", name="Production")).to_be_in_viewport()
    assert overflow(page) == 0


def test_it_works_on_a_small_screen(company, reader):
    page = reader(company, viewport=NARROW)
    page.goto("/")
    expect(page.get_by_role("rowheader")).to_have_count(200)
    assert overflow(page) == 0
    page.get_by_role("searchbox").fill("service-007")
    place = cell(page, "Service 7", "Production")
    expect(place.get_by_text("Production")).to_be_visible()
    place.get_by_role("link", name="1.0.0").click()
    expect(page).to_have_url(re.compile("/deployments/"))


def test_many_environments_scroll_within_the_board(prop, reader):
    for n in range(9):
        go_live(prop, "checkout", f"environment-{n}", "1.0.0")
    page = reader(prop)
    page.goto("/")
    expect(page.get_by_role("columnheader")).to_have_count(10)
    assert overflow(page) == 0
    page.get_by_role("link", name="1.0.0").last.focus()
    expect(page.get_by_role("link", name="1.0.0").last).to_be_in_viewport()
    expect(page.get_by_role("rowheader")).to_be_in_viewport()
