"""Chromium, as Debian has it, for tests of pages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser, until the block ends; the test fails where there is none."""
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if program is None:
        pytest.fail("this test opens pages in Chromium: `apt-get install chromium`, or name its program in CHROMIUM")
    options = ["--no-sandbox"] if os.geteuid() == 0 else []  # root may not use the sandbox
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=options)
        try:
            yield browser
        finally:
            browser.close()
