"""JupyterLab on this machine, and one of its notebooks in a headless browser, as a learner has it in front of them."""

import contextlib
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

from unsloth_course.core.places import REPOSITORY
from unsloth_course.lesson.exercises import record

PANEL = "window.jupyterapp?.shell.currentWidget"
KERNEL = f"{PANEL}?.sessionContext?.session?.kernel"
PATIENCE = 180_000  # milliseconds that a busy machine may take for anything but a lesson
LESSON = 1_200_000  # milliseconds that it may take for a whole lesson
BADGES = {
    "https://colab.research.google.com/assets/colab-badge.svg"
}  # the only thing that a lesson fetches, to look at


class Server:
    """A JupyterLab over one folder, on loopback, with a token, settings and a workspace of its own."""

    def __init__(self, folder: Path, home: Path, environment: dict[str, str]) -> None:
        self.folder, self.home, self.token = folder, home, secrets.token_hex()
        self.runtime = home / "runtime"
        settings = home / "settings" / "@jupyterlab" / "apputils-extension"
        settings.mkdir(parents=True)
        quiet = {"fetchNews": "false", "checkForUpdates": False}
        (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet), encoding="utf-8")
        options = {
            "ServerApp.ip": "127.0.0.1",
            "ServerApp.port": _free_port(),
            "ServerApp.root_dir": folder,
            "ServerApp.open_browser": False,
            "ServerApp.allow_root": True,
            "LabApp.expose_app_in_browser": True,
            "LabApp.user_settings_dir": home / "settings",
            "LabApp.workspaces_dir": home / "workspaces",
            "LanguageServerManager.autodetect": False,
        }
        environment = environment | {
            "JUPYTER_TOKEN": self.token,
            "JUPYTER_CONFIG_DIR": str(home / "config"),
            "JUPYTER_DATA_DIR": str(home / "data"),
            "JUPYTER_RUNTIME_DIR": str(self.runtime),
            "JUPYTER_PREFER_ENV_PATH": "1",
            "IPYTHONDIR": str(home / "ipython"),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")])),
            record.VARIABLE: str(home / "progress.json"),
        }
        command = [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in options.items())]
        self.said = (home / "server.log").open("wb")
        self.process = subprocess.Popen(command, env=environment, stdout=self.said, stderr=self.said, cwd=home)

    @property
    def log(self) -> str:
        """What the server has said."""
        return (self.home / "server.log").read_text(encoding="utf-8", errors="replace")

    def address(self) -> str:
        """The server's own address, once it answers there."""
        until = time.monotonic() + PATIENCE / 1000
        while time.monotonic() < until and self.process.poll() is None:
            for file in self.runtime.glob("jpserver-*.json"):
                with contextlib.suppress(ValueError):  # it is being written
                    return json.loads(file.read_text(encoding="utf-8"))["url"]
            time.sleep(0.1)
        raise AssertionError(f"JupyterLab did not start:\n{self.log}")

    def stop(self) -> None:
        """Ends the server; it ends its kernels."""
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.said.close()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Notebook:
    """A notebook that is open in JupyterLab. `page` is Playwright's page, for what has no name here."""

    def __init__(self, browser, server: Server, name: str, pictures: Path, theme: str = "Light") -> None:
        self.pictures = pictures
        self.complaints: list[str] = []  # errors on the console, failed requests, and whatever went out
        self.page = browser.new_page(viewport={"width": 1400, "height": 1200})
        self.page.set_default_timeout(PATIENCE)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        self.page.on("response", self._response)
        self.page.route(re.compile("^https:"), self._outside)
        self.page.goto(f"{server.address()}lab/tree/{name}?token={server.token}&reset")
        self.wait(f"{PANEL}?.context?.path === {json.dumps(name)} && {KERNEL}?.status === 'idle'")
        self.theme(theme)

    def theme(self, name: str) -> None:
        """Changes to JupyterLab's theme "Light" or "Dark"."""
        change = "theme => void window.jupyterapp.commands.execute('apputils:change-theme', {theme})"
        self.page.evaluate(change, f"JupyterLab {name}")
        self.wait(f"document.body.dataset.jpThemeName === 'JupyterLab {name}'")

    def _console(self, message) -> None:
        if message.type == "error":
            self.complaints.append(f"console: {message.text} ({message.location.get('url', '')})")

    def _outside(self, route) -> None:
        """Answers for the rest of the world, which a lesson in the cpu profile does not need."""
        if route.request.url not in BADGES:
            self.complaints.append(f"asked for {route.request.url}")
        route.fulfill(content_type="image/svg+xml", body='<svg xmlns="http://www.w3.org/2000/svg"/>')

    def _response(self, response) -> None:
        if response.status >= 400:
            self.complaints.append(f"HTTP {response.status}: {response.url.partition('?')[0]}")

    def wait(self, condition: str, timeout: float = PATIENCE) -> None:
        """Waits until the JavaScript expression is true."""
        self.page.wait_for_function(f"() => Boolean({condition})", timeout=timeout)

    def command(self, name: str, timeout: float = PATIENCE) -> None:
        """Runs one of JupyterLab's commands, as its menu does, to the end."""
        self.page.evaluate(
            "name => { window.courseDone = false;"
            " window.jupyterapp.commands.execute(name).finally(() => { window.courseDone = true; }); }",
            name,
        )
        self.wait("window.courseDone", timeout)

    def run_all(self) -> None:
        """Runs all cells, one after the other, as "Run All Cells" does."""
        self.command("notebook:run-all-cells", LESSON)
        self.wait(f"{KERNEL}?.status === 'idle'")

    def restart_and_run_all(self) -> None:
        """Restarts the kernel, with a yes to the question, and runs all cells."""
        self.page.evaluate("void (window.courseDone = false)")
        self.page.evaluate(
            "() => { window.jupyterapp.commands.execute('notebook:restart-run-all')"
            ".finally(() => { window.courseDone = true; }); }"
        )
        self.page.locator(".jp-Dialog button.jp-mod-warn").click()
        self.wait("window.courseDone", LESSON)
        self.wait(f"{KERNEL}?.status === 'idle'")

    @property
    def cells(self) -> list[dict]:
        """All cells as they are now, in nbformat's form."""
        return self.page.evaluate(
            f"{PANEL}.content.model.sharedModel.toJSON().cells.map((cell, index) => ({{...cell, "
            f"outputs: {PANEL}.content.widgets[index].model.outputs?.toJSON() ?? []}}))"
        )

    def errors(self) -> list[str]:
        """The errors that cells show."""
        return [
            f"cell {number}: {output['ename']}: {output['evalue']}"
            for number, cell in enumerate(self.cells)
            for output in cell["outputs"]
            if output["output_type"] == "error"
        ]

    def find(self, text: str) -> int:
        """The number of the only code cell that holds the text."""
        (number,) = [n for n, cell in enumerate(self.cells) if cell["cell_type"] == "code" and text in _text(cell)]
        return number

    def cell(self, number: int):
        """The cell on the screen, scrolled to."""
        self.page.evaluate(f"number => {PANEL}.content.scrollToItem(number, 'start')", number)
        found = self.page.locator(f".jp-Notebook [data-windowed-list-index='{number}']")
        found.wait_for(state="visible")
        found.scroll_into_view_if_needed()
        return found

    def answer(self, number: int, source: str) -> str:
        """Types a new source into a cell, runs it, and returns the text that it shows."""
        cell = self.cell(number)
        cell.locator(".cm-content").click()
        self.page.keyboard.press("ControlOrMeta+a")
        self.page.keyboard.insert_text(source)
        assert self.source(number) == source
        before = self.cells[number]["execution_count"]
        self.page.keyboard.press("ControlOrMeta+Enter")
        counted = f"{PANEL}.content.widgets[{number}].model.executionCount"
        self.wait(f"{counted} !== null && {counted} !== {json.dumps(before)} && {KERNEL}?.status === 'idle'")
        return cell.locator(".jp-OutputArea").inner_text()

    def dial(self, number: int):
        """The dial that a cell shows, scrolled to."""
        found = self.cell(number).locator(".jp-OutputArea-output > .widget-box")
        found.locator(".noUi-handle").first.wait_for(state="visible")
        return found

    def drawn(self, dial) -> bytes:
        """What a dial draws, its picture or else its table, as it is seen, without the sliders."""
        self.page.wait_for_function(
            "dial => [...dial.querySelectorAll('img')].every(image => image.complete)", arg=dial.element_handle()
        )
        images = dial.locator("img")
        return (images if images.count() else dial.locator(".widget-html")).first.screenshot()

    def turn(self, dial, key: str = "ArrowRight") -> None:
        """Turns the first slider of a dial by one step, with the keyboard, and waits for what it shows to follow."""
        shown = "dial => [...dial.querySelectorAll('.widget-html-content, img')].map(e => e.src ?? e.innerHTML).join()"
        before = dial.evaluate(shown)
        dial.locator(".noUi-handle").first.press(key)
        self.page.wait_for_function(
            f"([dial, before]) => ({shown})(dial) !== before", arg=[dial.element_handle(), before]
        )
        self.wait(f"{KERNEL}?.status === 'idle'")

    def source(self, number: int) -> str:
        """The source of a cell."""
        return _text(self.cells[number])

    def picture(self, name: str, what=None) -> bytes:
        """A screenshot, of the whole page or of one element, kept among the artefacts."""
        file = self.pictures / f"{name}.png"
        return (what or self.page).screenshot(path=file, animations="disabled")

    def close(self) -> None:
        """Ends the kernel, whose memory the next lesson needs, and closes the page."""
        with contextlib.suppress(Exception):  # a page or a kernel that is gone has failed its test already
            self.page.evaluate(f"{PANEL}.sessionContext.shutdown()")
        self.page.close()


def _text(cell: dict) -> str:
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)
