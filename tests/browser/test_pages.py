"""The pages behind the board: a deployment, a place, the measures of delivery. And what every page must do."""

import re
import sqlite3

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from chromium import CLIPBOARD, NARROW, WIDE, clipboard, in_a_shell, overflow

SOON_MS = 30_000


def path_of(prop, state: str, service="checkout", environment="production") -> str:
    """The page of the latest deployment in a state."""
    items = prop.get(f"/v1/deployments?service={service}&environment={environment}&state={state}")["items"]
    return f"/deployments/{items[0]['id']}"


def panel(page: Page, heading: str):
    return page.locator("section").filter(has=page.get_by_role("heading", name=heading, exact=True))


def test_a_live_deployment_shows_its_steps_and_how_to_roll_back(shop, reader):
    page = reader(shop)
    page.goto(path_of(shop, "succeeded"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Checkout 1.1.1 to production")
    steps = panel(page, "Timeline").get_by_role("listitem")
    expect(steps).to_have_text([re.compile("^Requested by dana"), re.compile("^Started by pipeline"), re.compile("^Live by pipeline after 6 min")])
    expect(steps.last).to_contain_text(re.compile(r"reported (47 h|48 h|2 d) later"))
    gate = panel(page, "Gate")
    for sentence in ["Checked at the start", "Scan passed (production requires one).", "Image digest recorded.",
                     "Succeeded in staging.", "Approved by alice (production requires 1 approval)."]:
        expect(gate).to_contain_text(sentence)
    expect(panel(page, "Approvals")).to_contain_text("alice approved")
    expect(panel(page, "Approvals")).to_contain_text("Used by this deployment.")
    expect(panel(page, "Scan")).to_contain_text("scan passed")
    expect(panel(page, "Scan").get_by_role("listitem")).to_have_text(["0 critical", "0 high", "2 medium", "7 low", "0 unknown"])
    here = shop.get("/v1" + path_of(shop, "succeeded"))
    before = shop.get(f"/v1/deployments/{here['previous_id']}")
    expect(panel(page, "Commits").get_by_role("link")).to_have_attribute(
        "href", f"https://github.example.org/shop/checkout/compare/{before['git_sha']}...{here['git_sha']}")
    expect(panel(page, "Release").get_by_role("link", name="pipeline run")).to_have_attribute("href", here["run_url"])
    back = panel(page, "Roll back")
    expect(back).to_contain_text("Back to 1.0.0, the previous good release")
    expect(back.locator("pre")).to_contain_text('{ "service": "checkout", "environment": "production", "rollback": true, "start": true }')
    events = panel(page, "History").get_by_role("listitem")
    expect(events.locator("code")).to_have_text([
        "deployment.requested", "deployment.started", "deployment.succeeded", "deployment.consumed"])
    events.nth(2).locator("summary").click()
    expect(events.nth(2).locator("pre")).to_contain_text('"to": "succeeded"')


def test_the_shown_command_rolls_back(prop, reader):
    for version in ["1", "2"]:
        deployment = prop.post("/v1/deployments", {
            "service": "checkout", "environment": "staging", "version": version, "start": True, "create_missing": True})
        prop.post(f"/v1/deployments/{deployment['id']}/transitions", {"to": "succeeded"})
    page = reader(prop)
    page.goto(f"/deployments/{deployment['id']}")
    in_a_shell(prop, panel(page, "Roll back").locator("pre").inner_text())
    running = prop.get("/v1/services/checkout/environments/staging")["running"]
    assert (running["version"], running["kind"]) == ("1", "rollback")
    # The page of what was live shows the rollback, too, once it is through.
    prop.post(f"/v1/deployments/{running['id']}/transitions", {"to": "succeeded"})
    expect(page.get_by_role("main")).to_contain_text("rolled back", timeout=SOON_MS)


def test_a_running_deployment_shows_how_to_report_each_result(prop, reader):
    page = reader(prop, permissions=CLIPBOARD)
    purposes = {"succeeded": "It succeeded: {} is live", "failed": "It failed", "cancelled": "To cancel it"}
    for version, (state, purpose) in enumerate(purposes.items(), 1):
        deployment = prop.post("/v1/deployments", {
            "service": "checkout", "environment": "staging", "version": str(version), "start": True, "create_missing": True})
        page.goto(f"/deployments/{deployment['id']}")
        result = panel(page, "Report the result")
        expect(result).to_contain_text("prop does not watch the rollout.")
        expect(result.locator(".command")).to_have_count(3)
        result.locator(".command").filter(has_text=purpose.format(version)).get_by_role("button", name="Copy command").click()
        expect(result.get_by_role("button", name="Copied command")).to_be_visible()
        in_a_shell(prop, clipboard(page))
        assert prop.get(f"/v1/deployments/{deployment['id']}")["state"] == state
    # The commands go away by themselves with the last result.
    expect(result).to_have_count(0, timeout=SOON_MS)
    expect(page.locator(".headline")).to_contain_text("cancelled")


def test_a_deployment_of_the_script_says_who_reports_its_result(prop, reader):
    deployment = prop.post("/v1/deployments", {
        "service": "checkout", "environment": "staging", "version": "1", "start": True, "create_missing": True, "source": "script"})
    page = reader(prop)
    page.goto(f"/deployments/{deployment['id']}")
    expect(panel(page, "Report the result")).to_contain_text("deploy.sh reports the result when it ends. If it was interrupted,")


def test_the_gate_says_when_there_was_nothing_to_check(prop, reader):
    page = reader(prop)
    prop.post("/v1/environments", {"slug": "careful", "name": "Careful", "tier": "staging", "required_approvals": 1})
    for environment, sentence, approvals in [("staging", "staging has no checks.", "staging needs no approval."),
                                             ("careful", "No check applied at this step.", "No approvals.")]:
        deployment = prop.post("/v1/deployments", {
            "service": "checkout", "environment": environment, "version": "1", "create_missing": True})
        page.goto(f"/deployments/{deployment['id']}")
        expect(panel(page, "Gate")).to_contain_text(sentence)
        expect(panel(page, "Approvals")).to_contain_text(approvals)


@pytest.mark.parametrize("is_secure", [True, False], ids=["https", "http"])
def test_copy_buttons_copy_all_of_a_value(shop, reader, is_secure):
    """Browsers offer `navigator.clipboard` on https and localhost only; without it, the copy works too."""
    page = reader(shop, permissions=CLIPBOARD)
    if not is_secure:
        page.add_init_script("window.all = navigator.clipboard; Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.goto(path_of(shop, "succeeded"))
    here = shop.get("/v1" + path_of(shop, "succeeded"))
    values = {"commit": here["git_sha"], "image digest": here["image_digest"], "deployment id": here["id"]}
    command = panel(page, "Roll back").locator("pre").text_content()
    for name, value in {**values, "command": command}.items():
        button = page.get_by_role("button", name=f"Copy {name}")
        button.click()
        copied = page.get_by_role("button", name=f"Copied {name}")
        expect(copied).to_be_visible()
        expect(copied).to_be_focused()
        assert clipboard(page) == value if is_secure else page.evaluate("window.all.readText()") == value
        expect(button).to_be_visible()


def test_a_copy_button_says_when_the_browser_does_not_allow_it(shop, reader):
    page = reader(shop)
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined }); document.execCommand = () => false")
    page.goto(path_of(shop, "succeeded"))
    page.get_by_role("button", name="Copy command").click()
    expect(panel(page, "Roll back")).to_contain_text("Copy failed")


def test_a_waiting_deployment_shows_what_blocks_it(shop, reader):
    page = reader(shop)
    page.goto(path_of(shop, "awaiting_approval"))
    expect(panel(page, "Timeline").get_by_role("listitem").last).to_contain_text(re.compile(r"Waiting for approval since .+ \("))
    gate = panel(page, "Gate")
    expect(gate).to_contain_text("It can’t start now:")
    query = "service=checkout&environment=production&version=1.2.0&requested_by=dana"
    reasons = shop.get(f"/v1/gate?{query}")["reasons"]
    assert [reason["code"] for reason in reasons] == ["frozen", "approval_missing"]
    for reason in reasons:
        expect(gate).to_contain_text(reason["detail"])
    expect(panel(page, "Approvals")).to_contain_text("No approvals.")
    expect(panel(page, "Report the result")).to_have_count(0)


def test_a_deployment_that_bypassed_the_gate_shows_what_blocked_it(shop, reader):
    page = reader(shop)
    page.goto(path_of(shop, "succeeded", "accounts"))
    expect(page.locator(".headline")).to_contain_text("bypassed the gate")
    expect(panel(page, "Gate")).to_contain_text("It started although the gate blocked it.")
    here = shop.get("/v1" + path_of(shop, "succeeded", "accounts"))
    assert "not_in_predecessor" in [reason["code"] for reason in here["decision"]["reasons"]]
    for reason in here["decision"]["reasons"]:
        expect(panel(page, "Gate")).to_contain_text(reason["detail"])


def test_a_stored_url_that_is_none_does_not_hide_the_page(prop, reader, tmp_path):
    """An earlier version took such texts; `new URL` throws at the first, and the page was not shown."""
    deployment = prop.post("/v1/deployments", {
        "service": "checkout", "environment": "staging", "version": "1", "git_sha": "a" * 40, "create_missing": True})
    page = reader(prop)
    for url in ["https://[", "https://a:b", "javascript:alert(1)"]:
        with sqlite3.connect(tmp_path / "prop.db", timeout=10) as ledger:
            ledger.execute("UPDATE services SET repository_url = ?", [url])
            ledger.execute("UPDATE deployments SET run_url = ?, revision = revision + 1", [url])
        page.goto(f"/deployments/{deployment['id']}")
        expect(page.get_by_role("heading", level=1)).to_have_text("checkout 1 to staging")
        expect(panel(page, "Release")).to_contain_text("pipeline run")
        expect(panel(page, "Release").get_by_role("link", name="pipeline run")).to_have_count(0)


def test_an_unknown_deployment_is_not_found(shop, reader):
    page = reader(shop, expected="404")
    page.goto("/deployments/019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42")
    expect(page.get_by_role("heading", level=1)).to_have_text("Not found")
    page.get_by_role("link", name="Back to the board").click()
    expect(page.get_by_role("rowheader")).to_have_count(3)


def test_an_unknown_address_is_a_page(shop, reader):
    for viewport, dark in [(WIDE, False), (NARROW, True)]:
        page = reader(shop, viewport=viewport, dark=dark, expected="404")
        assert page.goto("/no/such/page").status == 404
        expect(page.get_by_role("heading", level=1)).to_have_text("Not found")
        assert_accessible(page, "unknown address", dark)
    page.get_by_role("link", name="Go to the board").click()
    expect(page.get_by_role("rowheader")).to_have_count(3)


def test_a_place_shows_its_history_in_charts_and_words(shop, reader):
    page = reader(shop)
    page.goto("/")
    page.get_by_role("link", name="History of Checkout in Production").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Checkout in production")
    expect(panel(page, "Live")).to_contain_text("1.1.1")
    expect(panel(page, "Rolling out")).to_contain_text("none")
    target = panel(page, "Rollback target")
    expect(target).to_contain_text(re.compile(r"1\.0\.0.*went live", re.S))
    expect(target.locator(".chip")).to_have_count(0)
    expect(panel(page, "Cadence").get_by_role("img")).to_have_accessible_name("Deployments per day; 4 in all")
    bars = panel(page, "Cadence").locator("svg.chart rect.mark")
    expect(bars).to_have_count(4)
    expect(panel(page, "Duration").get_by_role("img")).to_have_accessible_name("Duration of 4 deployments, median 6 min")
    expect(panel(page, "Duration").locator("svg.chart path.mark")).to_have_count(4)
    expect(panel(page, "Duration")).to_contain_text("Median 6 min (4–6 min)")
    expect(panel(page, "Incidents")).to_contain_text(re.compile("Card payments fail .* ago, resolved after 1 h"))
    rows = panel(page, "5 deployments").get_by_role("rowheader")
    expect(rows).to_have_text(["1.2.0", "1.1.1", "1.0.0", "1.1.0", "1.0.0"])
    rows.nth(1).get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Checkout 1.1.1 to production")


def test_delivery_is_measured_for_all_or_one_service_over_a_chosen_period(shop, reader):
    page = reader(shop)
    page.goto("/dora")
    measures = shop.get("/v1/metrics/dora")
    frequency = panel(page, "Deployment frequency")
    expect(frequency).to_contain_text(f"{measures['deployment_frequency']['n']} deployments")
    expect(frequency.get_by_role("img")).to_have_accessible_name("Deployment frequency per week")
    rate = measures["change_fail_rate"]
    expect(panel(page, "Change fail rate")).to_contain_text(f"{rate['failed']} of {rate['n']} deployments")
    expect(panel(page, "Recovery time").locator(".figure")).to_have_text("58 min")
    panel(page, "Change fail rate").locator("summary").click()
    expect(panel(page, "Change fail rate").get_by_role("link", name="checkout 1.1.0")).to_be_visible()
    page.get_by_label("Service").focus()
    page.get_by_label("Service").select_option("catalog")
    expect(page).to_have_url(re.compile(r"/dora\?service=catalog&days=90$"))
    one = shop.get("/v1/metrics/dora?service=catalog")
    expect(frequency).to_contain_text(f"{one['deployment_frequency']['n']} deployments")
    expect(page.get_by_label("Service")).to_be_focused()
    page.get_by_label("Period").select_option("7")
    expect(frequency.get_by_role("img")).to_have_accessible_name("Deployment frequency per day")
    page.reload()
    expect(page.get_by_label("Period")).to_have_value("7")


PAGES = {
    "board": lambda prop: "/",
    "live": lambda prop: path_of(prop, "succeeded"),
    "waiting": lambda prop: path_of(prop, "awaiting_approval"),
    "running": lambda prop: path_of(prop, "running", "accounts", "staging"),
    "ungated": lambda prop: path_of(prop, "succeeded", "accounts"),
    "place": lambda prop: "/services/checkout/environments/production",
    "dora": lambda prop: "/dora",
    "no match": lambda prop: "/?q=no-such-service",
    "sign-in": None,
}


def assert_accessible(page: Page, name: str, dark: bool) -> None:
    """axe finds nothing, the page does not scroll sideways, and it follows the colour scheme."""
    expect(page.get_by_role("heading", level=1)).to_be_attached()
    expect(page.locator(".loading")).to_have_count(0)
    found = Axe().run(page)
    assert found.violations_count == 0, f"{name}: {found.generate_report()}"
    assert overflow(page) == 0, name
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor").split("(")[1].split(",")[0]
    assert (int(paper) < 64) == dark, name


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
def test_every_page_is_accessible_and_fits_the_screen(shop, reader, viewport, dark):
    for name, find in PAGES.items():
        page = reader(shop, key="" if find else None, viewport=viewport, dark=dark, expected=None if find else "401")
        page.goto(find(shop) if find else "/")
        assert_accessible(page, name, dark)


def test_the_empty_board_is_accessible_and_fits_the_screen(prop, reader):
    for viewport in [WIDE, NARROW]:
        for dark in [False, True]:
            page = reader(prop, viewport=viewport, dark=dark)
            page.goto("/")
            assert_accessible(page, "empty board", dark)


def test_a_page_loads_nothing_from_other_sites(shop, reader):
    page = reader(shop)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    for path in ["/", path_of(shop, "succeeded"), "/services/checkout/environments/production", "/dora"]:
        page.goto(path)
        expect(page.locator(".loading")).to_have_count(0)
    assert asked and all(url.startswith(shop.url + "/") for url in asked), asked
    assert page.evaluate("document.querySelectorAll('[onclick], [onload], style, script:not([src])').length") == 0
