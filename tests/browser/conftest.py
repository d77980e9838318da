"""A headless browser and a JupyterLab for each file of tests of this folder."""

import os
import sys
from pathlib import Path

import pytest
from conftest import ENVIRONMENT
from lesson_runs import with_base

from browser import lab


# Playwright keeps an event loop running in this thread until it is stopped, and a test that starts its own then fails:
# so a browser lives as long as one file of tests, not as long as the session.
@pytest.fixture(scope="module")
def browser(chromium):
    """The browser, driven by Playwright, which brings its own driver; nothing is downloaded."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Install the pins: ./setup_venv.sh gets Playwright.")
    alone = ["--no-sandbox"] if sys.platform == "linux" else []  # containers run as root, where there is no sandbox
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=chromium, args=["--disable-gpu", *alone])
        yield running
        running.close()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Where screenshots are kept: the folder in the variable SCREENSHOTS, or a temporary one."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def server(browser, tmp_path_factory):
    """A JupyterLab over an empty folder, `server.folder`, into which a test puts its notebook."""
    folder = tmp_path_factory.mktemp("notebooks")
    with_base(folder / "results")
    running = lab.Server(folder, tmp_path_factory.mktemp("home"), ENVIRONMENT)
    yield running
    running.stop()
