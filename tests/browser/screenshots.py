"""Takes the screenshots in docs/images. Run it by hand, then look at them.

    .venv/browser/bin/python tests/browser/screenshots.py

The pages load no fonts. Install Inter and JetBrains Mono (Debian: fonts-inter fonts-jetbrains-mono), so that the
screenshots look as the pages do on most machines.
"""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "support"))

from chromium import NARROW, Reader, launch  # noqa: E402
from ledgers import demo  # noqa: E402
from prop import Prop, running_prop  # noqa: E402

IMAGES = ROOT / "docs" / "images"
SMALL = {"width": 1280, "height": 560}


def latest(prop: Prop, state: str) -> str:
    found = prop.get(f"/v1/deployments?service=checkout&environment=production&state={state}")["items"][0]
    return f"/deployments/{found['id']}"


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, running_prop(Path(directory)) as prop, sync_playwright() as playwright:
        demo(prop)
        browser = launch(playwright)
        place = "/services/checkout/environments/production"
        pictures = [
            ("board", "/", {"viewport": SMALL}, False),
            ("board-dark", "/", {"viewport": SMALL, "dark": True}, False),
            ("board-narrow", "/", {"viewport": NARROW}, False),
            ("deployment", latest(prop, "succeeded"), {}, True),
            ("waiting", latest(prop, "awaiting_approval"), {"dark": True}, True),
            ("place", place, {}, True),
            ("delivery", "/dora?days=30", {}, True),
        ]
        for name, path, options, whole in pictures:
            reader = Reader(browser, prop, device_scale_factor=1.5, **options)
            reader.page.goto(path)
            expect(reader.page.locator(".loading")).to_have_count(0)
            reader.page.screenshot(path=IMAGES / f"{name}.png", full_page=whole)
            reader.leave()
            print(IMAGES / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
