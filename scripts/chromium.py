"""The system's Chromium, which takes the pictures and runs the tests of pages; playwright's own download is never used."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from wherefrom.errors import ConfigurationError

_NAMES = ("chromium", "chromium-browser", "google-chrome")
#: Why there is none, and what to do.
ABSENT = "no Chromium on PATH (apt-get install chromium)"


def find_chromium() -> str | None:
    """Its path, or None."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


@contextmanager
def browsing() -> Iterator[Browser]:
    """A browser without a window.

    Raises:
        ConfigurationError: there is none.
    """
    path = find_chromium()
    if path is None:
        raise ConfigurationError(ABSENT)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()
