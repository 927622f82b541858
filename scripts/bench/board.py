#!/usr/bin/env python3
"""Measures how long the board takes to show 200 services in Chromium, from a release build of prop on SQLite.

    cargo build --release --locked && ./scripts/test.sh browser && .venv/browser/bin/python scripts/bench/board.py [LOADS]

Each load uses a new browser context with an empty cache. Prints a Markdown table.
"""

import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests" / "support"), str(ROOT / "tests" / "browser")]

import prop as support  # noqa: E402
from chromium import Reader, launch  # noqa: E402
from ledgers import many  # noqa: E402

SERVICES = 200

# Saves the time at which the board was painted: one frame after its rows were in the document.
WATCH = """new MutationObserver((_, observer) => {
    if (!document.querySelector('tbody tr')) return
    observer.disconnect()
    requestAnimationFrame(() => requestAnimationFrame(() => (window.painted = performance.now())))
}).observe(document, { childList: true, subtree: true })"""

TIMES = """(() => {
    const [answer] = performance.getEntriesByType('resource').filter(entry => entry.name.endsWith('/v1/status'))
    return { painted: window.painted, server: answer.responseEnd - answer.requestStart, bytes: answer.encodedBodySize }
})()"""


def load(browser: Browser, prop: support.Prop) -> dict[str, float]:
    reader = Reader(browser, prop)
    page = reader.page
    page.add_init_script(WATCH)
    session = reader.context.new_cdp_session(page)
    session.send("Performance.enable")
    page.goto("/")
    expect(page.locator("tbody tr")).to_have_count(SERVICES)
    while not (found := page.evaluate(TIMES))["painted"]:
        page.wait_for_timeout(20)
    metrics = {metric["name"]: metric["value"] * 1000 for metric in session.send("Performance.getMetrics")["metrics"]}
    reader.leave()
    return {
        "response of /v1/status, request to last byte": found["server"],
        "scripts": metrics["ScriptDuration"],
        "server and scripts": found["server"] + metrics["ScriptDuration"],
        "style and layout": metrics["RecalcStyleDuration"] + metrics["LayoutDuration"],
        "from navigation to the painted board": found["painted"],
        "KB transferred for the data": found["bytes"] / 1000,
    }


def main() -> None:
    loads = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    support.BINARY = ROOT / "target" / "release" / "prop"
    with tempfile.TemporaryDirectory() as directory, support.running_prop(Path(directory)) as prop, sync_playwright() as playwright:
        many(prop, SERVICES)
        browser = launch(playwright)
        load(browser, prop)
        runs = [load(browser, prop) for _ in range(loads)]
        browser.close()
    print(f"| {SERVICES} services in 3 environments, {loads} loads | best | median | worst |\n|---|--:|--:|--:|")
    for name in runs[0]:
        values = [run[name] for run in runs]
        unit = "" if name.startswith("KB") else " ms"
        print(f"| {name} | {min(values):.0f}{unit} | {statistics.median(values):.0f}{unit} | {max(values):.0f}{unit} |")


if __name__ == "__main__":
    main()
