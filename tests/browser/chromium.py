"""Debian's Chromium as a reader has it. Errors in it are collected."""

import os
import re
import shutil
import subprocess

from playwright.sync_api import Browser, Playwright

# Chromium's sandbox does not work as root. The other arguments keep it from requests of its own.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update"]

WIDE = {"width": 1280, "height": 800}
NARROW = {"width": 390, "height": 844}

LISTEN = "document.addEventListener('securitypolicyviolation', e => console.error(`blocked: ${e.violatedDirective} ${e.blockedURI}`))"


def launch(playwright: Playwright) -> Browser:
    return playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)


class Reader:
    """A browser context with a page. Its tab has the admin key, unless `key` is another one or None. Errors that match
    `expected` are part of the test; any other fails it."""

    def __init__(self, browser: Browser, prop, key: str | None = "", dark=False, viewport=WIDE, expected: str | None = None, **options):
        self.expected, self.errors = expected, []
        self.context = browser.new_context(
            base_url=prop.url, viewport=viewport, color_scheme="dark" if dark else "light", reduced_motion="reduce", locale="en-GB", **options
        )
        self.context.add_init_script(LISTEN)
        if key is not None:
            self.context.add_init_script(f"sessionStorage.setItem('prop.key', '{key or prop.key}')")
        self.page = self.context.new_page()
        self.page.on("console", lambda message: message.type in ("error", "warning") and self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.set_default_timeout(20_000)

    def leave(self) -> None:
        self.context.close()
        surprises = [error for error in self.errors if not (self.expected and re.search(self.expected, error))]
        assert not surprises, surprises


CLIPBOARD = ["clipboard-read", "clipboard-write"]


def clipboard(page) -> str:
    """The text on the clipboard. The page's reader needs the permissions `CLIPBOARD`."""
    return page.evaluate("navigator.clipboard.readText()")


def in_a_shell(prop, command: str) -> None:
    """Runs a command that a page shows, with the key in the environment as the page asks for."""
    environment = {"PATH": os.environ["PATH"], "PROP_KEY": prop.key}
    subprocess.run(["bash", "-euc", command], env=environment, check=True, capture_output=True)


def overflow(page) -> int:
    """By how many pixels the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
