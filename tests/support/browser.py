"""A real browser: Debian's Chromium, headless, driven over its own protocol."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

# A browser that only does what its page tells it; root may not use the sandbox.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)


@contextmanager
def chromium(*flags: str) -> Iterator[Browser]:
    """Run Chromium with a fresh profile. Each `new_context()` is a person of its own, without a cache.

    No wider than a module: while it runs, its thread has an event loop, and asynchronous tests want theirs.
    """
    path = shutil.which("chromium")
    assert path is not None, "Chromium is not installed: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*FLAGS, *flags])
        try:
            yield browser
        finally:
            browser.close()
