"""A page in headless Chromium, driven by the DevTools protocol, and the fixture that hands it out."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
START_SECONDS = 60.0
CONTROLS = {"button", "checkbox", "combobox", "link", "radio", "searchbox", "slider", "spinbutton", "switch", "textbox"}


class Browser:
    """One tab. Everything that it asks the network for, and everything on its console, is written down.

    Attributes:
        requests: addresses asked for, since the last :meth:`open`.
        complaints: errors on the console, and those that nobody caught, since the last :meth:`open`.
    """

    def __init__(self, profile: Path, size: tuple[int, int]) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._numbers = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader", "--no-first-run"]
        flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        size_flag = f"--window-size={size[0]},{size[1]}"
        self._process = subprocess.Popen(
            [CHROMIUM, *flags, size_flag, f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._socket = self._connect(profile / "DevToolsActivePort")
            for domain in ("Page", "Runtime", "Network", "Log"):
                self._call(f"{domain}.enable")
        except BaseException:
            self._process.kill()
            raise

    def open(self, page: Path | str, until: str = "document.readyState === 'complete'") -> float:
        """Open a file or an address and wait until an expression is true; gives the seconds that took."""
        self.requests.clear()
        self.complaints.clear()
        began = time.monotonic()
        self._call("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        self.wait(until)
        return time.monotonic() - began

    def run(self, expression: str) -> Any:
        """Value of a JavaScript expression, which may be a promise, as JSON would carry it."""
        answer = self._call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 60.0) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + seconds
        while not self.run(expression):
            assert time.monotonic() < deadline, f"still not true: {expression}; console: {self.complaints}"
            time.sleep(0.02)

    def press(self, key: str, code: int) -> None:
        """Press a key on whatever has the focus; ``code`` is its number in Windows' table."""
        text = {"Enter": "\r"}.get(key)
        kind = "rawKeyDown" if text is None else "keyDown"
        more = {} if text is None else {"text": text}
        self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)
        self._call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def emulate(self, *, width: int, height: int, dark: bool = False, paper: bool = False) -> None:
        """Size of the window in pixels, whether the reader likes it dark, and whether it goes on paper."""
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", media="print" if paper else "", features=[scheme])

    def saved(self, expression: str, folder: Path) -> Path:
        """The file that is saved in a folder, which is empty before, when an expression is run."""
        folder.mkdir(parents=True)
        self._call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        self.run(expression)
        deadline = time.monotonic() + START_SECONDS
        while not (found := [path for path in folder.iterdir() if not path.name.endswith((".crdownload", ".tmp"))]):
            assert time.monotonic() < deadline, "nothing was saved"
            time.sleep(0.05)
        [path] = found
        return path

    def controls(self) -> list[tuple[str, str]]:
        """Kind and name of each control, as a screen reader is told."""
        nodes = self._call("Accessibility.getFullAXTree")["nodes"]
        told = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
        return [(role, name.strip()) for role, name in told if role in CONTROLS]

    def screenshot(self, path: Path) -> None:
        """Save what is seen as PNG."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        """End the browser."""
        self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _connect(self, port_file: Path) -> Any:
        import websocket

        deadline = time.monotonic() + START_SECONDS
        while not (port_file.is_file() and port_file.read_text().count("\n")):
            assert self._process.poll() is None, "Chromium ended at once"
            assert time.monotonic() < deadline, "Chromium does not come up"
            time.sleep(0.05)
        port = int(port_file.read_text().split()[0])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=START_SECONDS) as answer:
            [page] = [target for target in json.load(answer) if target["type"] == "page"]
        return websocket.create_connection(
            page["webSocketDebuggerUrl"], suppress_origin=True, timeout=120, max_size=None
        )

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while number not in self._answers:
            message = json.loads(self._socket.recv())
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                self._note(message["method"], message["params"])
        message = self._answers.pop(number)
        assert "error" not in message, f"{method}: {message['error']}"
        return message["result"]

    def _note(self, event: str, detail: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(detail["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            thrown = detail["exceptionDetails"]
            self.complaints.append(thrown.get("exception", {}).get("description") or thrown["text"])
        elif event == "Runtime.consoleAPICalled" and detail["type"] in {"error", "assert"}:
            self.complaints.append(" ".join(str(a.get("value", a.get("description"))) for a in detail["args"]))
        elif event == "Log.entryAdded" and detail["entry"]["level"] == "error":
            self.complaints.append(detail["entry"]["text"])


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator[Browser]:
    """A browser of 1280 x 900 pixels; without Chromium the test is skipped."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    found = Browser(tmp_path_factory.mktemp("chromium"), (1280, 900))
    yield found
    found.close()
