"""Debian's Chromium, without a network: opens pages, and keeps what they said and asked for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

# Not even names are resolved, but for this machine.
ALONE = ("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--disable-background-networking", "--no-sandbox")
LOCAL = ("file:", "data:", "blob:", "about:", "http://127.0.0.1:")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the system's Chromium with a profile that is thrown away; skip the test where there is none."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no Chromium here: install Debian's package 'chromium'")
    with sync_playwright() as driver, driver.chromium.launch(executable_path=path, args=list(ALONE)) as browser:
        yield browser


@dataclass
class Visit:
    """A page, and what went wrong on it."""

    page: Page
    trouble: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def ask(self, script: str, value: Any = None) -> Any:
        """Return what a script finds on the page."""
        return self.page.evaluate(script, value)

    def assert_well(self) -> None:
        """No error or warning on the console, no dialog, nothing asked of another machine."""
        assert self.trouble == []
        assert [address for address in self.asked if not address.startswith(LOCAL)] == []


@contextmanager
def visit(browser: Browser, address: str, width: int = 1440, scheme: Any = "light") -> Iterator[Visit]:
    """Open a page in a window of its own."""
    with browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme) as window:
        page = window.new_page()
        here = Visit(page)
        page.on(
            "console",
            lambda said: here.trouble.append(said.text) if said.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: here.trouble.append(str(error)))
        page.on("dialog", lambda dialog: (here.trouble.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: here.asked.append(request.url))
        page.goto(address)
        yield here
