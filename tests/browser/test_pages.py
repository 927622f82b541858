"""The pages behind the board: a deployment, a place, the measures of delivery. And what holds for every page."""

import os
import re
import subprocess

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from chromium import NARROW, WIDE, overflow

SOON_MS = 30_000


def path_of(prop, state: str, service="checkout", environment="production") -> str:
    """The page of the latest deployment in a state."""
    items = prop.get(f"/v1/deployments?service={service}&environment={environment}&state={state}")["items"]
    return f"/deployments/{items[0]['id']}"


def panel(page: Page, heading: str):
    return page.locator("section").filter(has=page.get_by_role("heading", name=heading, exact=True))


def test_a_live_deployment_tells_how_it_came_about_and_how_to_go_back(shop, reader):
    page = reader(shop)
    page.goto(path_of(shop, "succeeded"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Checkout 1.1.1 to production")
    steps = panel(page, "Timeline").get_by_role("listitem")
    expect(steps).to_have_text([re.compile("^Requested by dana"), re.compile("^Started by pipeline"), re.compile("^Live by pipeline after 6 min")])
    expect(steps.last).to_contain_text(re.compile(r"recorded (47 h|48 h|2 d) later"))
    gate = panel(page, "Gate")
    for sentence in ["production requires a scan; it passed.", "It had succeeded in staging, and 1 h had passed since.",
                     "Approved by alice; production requires 1 approval."]:
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
    back = panel(page, "Rolling back")
    expect(back).to_contain_text("Back to 1.0.0")
    expect(back.locator("pre")).to_contain_text('{"service":"checkout","environment":"production","rollback":true,"start":true}')
    events = panel(page, "History").get_by_role("listitem")
    expect(events).to_have_count(3)
    events.last.locator("summary").click()
    expect(events.last.locator("pre")).to_contain_text('"to": "succeeded"')


def test_the_shown_command_rolls_back(prop, reader):
    """As it is printed, run by a shell."""
    for version in ["1", "2"]:
        deployment = prop.post("/v1/deployments", {
            "service": "checkout", "environment": "staging", "version": version, "start": True, "create_missing": True})
        prop.post(f"/v1/deployments/{deployment['id']}/transitions", {"to": "succeeded"})
    page = reader(prop)
    page.goto(f"/deployments/{deployment['id']}")
    command = panel(page, "Rolling back").locator("pre").inner_text()
    subprocess.run(["bash", "-euc", command], env={"PATH": os.environ["PATH"], "PROP_KEY": prop.key}, check=True, capture_output=True)
    running = prop.get("/v1/services/checkout/environments/staging")["running"]
    assert (running["version"], running["kind"]) == ("1", "rollback")
    # The page of what was live shows the rollback, too, once it is through.
    prop.post(f"/v1/deployments/{running['id']}/transitions", {"to": "succeeded"})
    expect(page.get_by_role("main")).to_contain_text("rolled back", timeout=SOON_MS)


def test_a_deployment_that_waits_tells_what_for(shop, reader):
    page = reader(shop)
    page.goto(path_of(shop, "awaiting_approval"))
    expect(panel(page, "Timeline").get_by_role("listitem").last).to_contain_text("Awaits approval")
    gate = panel(page, "Gate")
    expect(gate).to_contain_text("Needs 1 approval (0 of 1).")
    expect(gate).to_contain_text("There is a freeze: Quarter end.")
    expect(panel(page, "Approvals")).to_contain_text("Nobody has said anything")


def test_a_deployment_past_the_gate_shows_what_it_passed(shop, reader):
    page = reader(shop)
    page.goto(path_of(shop, "succeeded", "accounts"))
    expect(page.locator(".headline")).to_contain_text("past the gate")
    expect(panel(page, "Gate")).to_contain_text("It started although the gate said no.")
    expect(panel(page, "Gate")).to_contain_text("Release 1.1.1 has not succeeded in staging yet.")


def test_a_deployment_that_does_not_exist_is_told_so(shop, reader):
    page = reader(shop, expected="404")
    page.goto("/deployments/019c2d2f-7a10-7cc3-b3a1-6f0d5a1c9e42")
    expect(page.get_by_role("heading", level=1)).to_have_text("There is no such thing")
    page.get_by_role("link", name="Back to the board").click()
    expect(page.get_by_role("rowheader")).to_have_count(3)


def test_a_place_shows_its_history_in_pictures_and_words(shop, reader):
    page = reader(shop)
    page.goto("/")
    page.get_by_role("link", name="History of Checkout in Production").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Checkout in production")
    expect(panel(page, "Live")).to_contain_text("1.1.1")
    expect(panel(page, "Rolling out")).to_contain_text("nothing")
    expect(panel(page, "To roll back to")).to_contain_text("1.0.0")
    expect(panel(page, "Cadence").get_by_role("img")).to_have_accessible_name("Deployments per day; 4 in all")
    bars = panel(page, "Cadence").locator("svg.chart rect.mark")
    expect(bars).to_have_count(4)
    expect(panel(page, "Duration").get_by_role("img")).to_have_accessible_name("How long 4 deployments took; half of them at most 6 min")
    expect(panel(page, "Duration").locator("svg.chart path.mark")).to_have_count(4)
    expect(panel(page, "Incidents")).to_contain_text("Card payments fail")
    rows = panel(page, "5 deployments").get_by_role("rowheader")
    expect(rows).to_have_text(["1.2.0", "1.1.1", "1.0.0", "1.1.0", "1.0.0"])
    rows.nth(1).get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Checkout 1.1.1 to production")


def test_delivery_is_measured_for_all_and_for_one_over_a_time_by_choice(shop, reader):
    page = reader(shop)
    page.goto("/dora")
    measures = shop.get("/v1/metrics/dora")
    frequency = panel(page, "Deployment frequency")
    expect(frequency).to_contain_text(f"{measures['deployment_frequency']['n']} deployments")
    expect(frequency.get_by_role("img")).to_have_accessible_name("Deployment frequency by week")
    rate = measures["change_fail_rate"]
    expect(panel(page, "Change fail rate")).to_contain_text(f"{rate['failed']} of {rate['n']} deployments")
    expect(panel(page, "Recovery time").locator(".figure")).to_have_text("58 min")
    panel(page, "Change fail rate").locator("summary").click()
    expect(panel(page, "Change fail rate").get_by_role("link", name="checkout 1.1.0")).to_be_visible()
    page.get_by_label("of").focus()
    page.get_by_label("of").select_option("catalog")
    expect(page).to_have_url(re.compile(r"/dora\?service=catalog&days=90$"))
    one = shop.get("/v1/metrics/dora?service=catalog")
    expect(frequency).to_contain_text(f"{one['deployment_frequency']['n']} deployments")
    expect(page.get_by_label("of")).to_be_focused()
    page.get_by_label("over").select_option("7")
    expect(frequency.get_by_role("img")).to_have_accessible_name("Deployment frequency by day")
    page.reload()
    expect(page.get_by_label("over")).to_have_value("7")


PAGES = {
    "board": lambda prop: "/",
    "live": lambda prop: path_of(prop, "succeeded"),
    "waiting": lambda prop: path_of(prop, "awaiting_approval"),
    "running": lambda prop: path_of(prop, "running", "accounts", "staging"),
    "ungated": lambda prop: path_of(prop, "succeeded", "accounts"),
    "place": lambda prop: "/services/checkout/environments/production",
    "dora": lambda prop: "/dora",
    "sign-in": None,
}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
def test_no_page_is_in_anybodys_way(shop, reader, viewport, dark):
    """Nothing for axe to find, nothing to scroll sideways for."""
    for name, find in PAGES.items():
        page = reader(shop, key="" if find else None, viewport=viewport, dark=dark, expected=None if find else "401")
        page.goto(find(shop) if find else "/")
        expect(page.get_by_role("heading", level=1)).to_be_attached()
        expect(page.locator(".loading")).to_have_count(0)
        found = Axe().run(page)
        assert found.violations_count == 0, f"{name}: {found.generate_report()}"
        assert overflow(page) == 0, name
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor").split("(")[1].split(",")[0]
        assert (int(paper) < 64) == dark, name


def test_a_page_needs_nothing_from_elsewhere(shop, reader):
    page = reader(shop)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    for path in ["/", path_of(shop, "succeeded"), "/services/checkout/environments/production", "/dora"]:
        page.goto(path)
        expect(page.locator(".loading")).to_have_count(0)
    assert asked and all(url.startswith(shop.url + "/") for url in asked), asked
    assert page.evaluate("document.querySelectorAll('[onclick], [onload], style, script:not([src])').length") == 0
