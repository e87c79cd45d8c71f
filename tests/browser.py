"""A real browser for tests: Chromium, headless, driven over HTTP on loopback."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from commands import PATIENCE


class Browser:
    """A headless Chromium behind chromedriver's WebDriver interface."""

    FLAGS = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1280,1600",
    ]

    def __init__(self, directory: Path, *flags: str):
        self._log = directory / "chromedriver.log"
        with open(self._log, "wb") as log:
            self._driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=log, stderr=log)
        self._session = f"http://127.0.0.1:{self._port()}/session"
        options = {
            "args": [*self.FLAGS, *flags, f"--user-data-dir={directory / 'profile'}"],
            "binary": shutil.which("chromium"),
        }
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self._session += "/" + self._call("POST", "", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def _port(self) -> int:
        for _ in range(10 * PATIENCE):
            if found := re.search(r"started successfully on port (\d+)", self._log.read_text()):
                return int(found[1])
            time.sleep(0.1)
        raise TimeoutError(self._log.read_text())

    def _call(self, method: str, path: str, body: dict | None = None):
        request = urllib.request.Request(
            self._session + path,
            json.dumps(body).encode() if body is not None else None,
            {"Content-Type": "application/json"},
            method=method,
        )
        # Not through a proxy that the environment may name.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=PATIENCE) as answer:
            return json.load(answer)["value"]

    def open(self, place: Path | str) -> None:
        """Go to a file, or to an address."""
        self._call("POST", "/url", {"url": place.as_uri() if isinstance(place, Path) else place})

    def run(self, script: str):
        return self._call("POST", "/execute/sync", {"script": script, "args": []})

    def wait(self, script: str):
        """Value of a script that hands it to `done`."""
        return self._call("POST", "/execute/async", {"script": "const done = arguments[0];" + script, "args": []})

    def _element(self, css: str) -> str:
        return "/element/" + next(
            iter(self._call("POST", "/element", {"using": "css selector", "value": css}).values())
        )

    def click(self, css: str) -> None:
        self._call("POST", self._element(css) + "/click", {})

    def type(self, css: str, text: str) -> None:
        self._call("POST", self._element(css) + "/value", {"text": text})

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": "browser"})]

    def screenshot(self, path: Path, scheme: str) -> None:
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self._call("POST", "/goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia", "params": media})
        path.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))

    def close(self) -> None:
        self._call("DELETE", "")
        self._driver.terminate()
        self._driver.wait()


def open_browser(directory: Path, *flags: str) -> Browser:
    """A browser with further command-line flags, or a skip where there is none."""
    for program in ("chromium", "chromedriver"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed (Debian: apt-get install chromium chromium-driver)")
    return Browser(directory, *flags)
