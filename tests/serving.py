"""A server of results in a process of its own, and what tests ask it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent


class Server:
    """A server in a process of its own."""

    def __init__(self, folder: Path, *options: str, token: str = "") -> None:
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        environment = os.environ | {"PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
        environment |= {"PHONONBENCH_SERVE_TOKEN": token} if token else {}
        command = [sys.executable, "-m", "phononbench_flows", "serve", str(folder), "--port", "0", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        said = self.process.stdout.readline()
        assert said.startswith("serving at "), said
        self.address = said.split()[-1].split("?")[0].rstrip("/")
        self.wait(lambda: self.json("/api/status", **self.headers)["complete"])

    def open(self, path: str, data: bytes | None = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        request = urllib.request.Request(
            self.address + path, data, {k.replace("_", "-"): v for k, v in headers.items()}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read(), dict(error.headers)

    def json(self, path: str, data: bytes | None = None, **headers: str) -> Any:
        return json.loads(self.open(path, data, **headers)[1])

    def wait(self, true, seconds: float = 240.0) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def upload(self, name: str, data: bytes) -> tuple[int, Any]:
        status, body, _ = self.open(f"/api/uploads?name={urllib.parse.quote(name)}", data)
        return status, json.loads(body)

    def finished(self, identifier: str) -> Any:
        self.wait(lambda: self.json(f"/api/uploads/{identifier}")["state"] in {"done", "failed"})
        return self.json(f"/api/uploads/{identifier}")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
