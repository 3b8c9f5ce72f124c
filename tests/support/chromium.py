"""Headless Chromium by its own protocol: pages are opened, measured, printed and photographed; no driver is installed.

with Chromium() as browser:
    page = browser.open("file:///...", width=390, dark=True)
    page.evaluate("document.title")
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import websocket

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FOUND = os.environ.get("CONCEPTLAB_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
WHY_SKIPPED = "no Chromium here: install one, or name it in CONCEPTLAB_CHROMIUM"


class Page:
    """One tab."""

    def __init__(self, address: str):
        self.socket = websocket.create_connection(address, timeout=120, suppress_origin=True)
        self.number, self.events = 0, []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params) -> dict:
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self.events.append(message)

    def view(self, width: int, height: int = 900, dark: bool = False) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=scheme)

    def go(self, url: str) -> None:
        self.events = []
        self.send("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def evaluate(self, script: str):
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"])[:600])
        return found["result"].get("value")

    def wait_for(self, script: str, seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if self.evaluate(script):
                    return
            except RuntimeError:  # between two documents there is no context
                pass
            time.sleep(0.1)
        raise TimeoutError(f"never true: {script}")

    def requests(self) -> list[str]:
        """Addresses that were asked for since `go`."""
        self.evaluate("1")  # what is waiting in the socket comes first
        return [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]

    def errors(self) -> list[str]:
        """Exceptions and errors that scripts of the page met since `go`."""
        self.evaluate("1")
        thrown = [
            e["params"]["exceptionDetails"]["text"] for e in self.events if e["method"] == "Runtime.exceptionThrown"
        ]
        logged = [e["params"]["entry"] for e in self.events if e["method"] == "Log.entryAdded"]
        return thrown + [entry["text"] for entry in logged if entry["level"] == "error"]

    def screenshot(self, path: Path, whole: bool = False) -> None:
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self) -> bytes:
        """The page printed on A4."""
        return base64.b64decode(
            self.send("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True)["data"]
        )


class Chromium:
    """A browser with a profile of its own; leaves nothing behind."""

    def __enter__(self) -> Chromium:
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        command = [FOUND, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        command += [
            "--no-first-run",
            "--disable-extensions",
            "--disable-dev-shm-usage",
            f"--user-data-dir={self.folder.name}",
        ]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen([*command, "about:blank"], stdout=quiet, stderr=quiet, stdin=quiet)
        port = Path(self.folder.name) / "DevToolsActivePort"
        end = time.monotonic() + 90
        while not (port.exists() and port.read_text().count("\n")):
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError("Chromium did not start")
            time.sleep(0.1)
        self.port = int(port.read_text().split("\n")[0])
        return self

    def open(self, url: str, width: int = 1280, height: int = 900, dark: bool = False) -> Page:
        import urllib.request

        ask = urllib.request.Request(f"http://127.0.0.1:{self.port}/json/new?about:blank", method="PUT")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(ask, timeout=60) as answer:
            page = Page(json.load(answer)["webSocketDebuggerUrl"])
        page.view(width, height, dark)
        page.go(url)
        return page

    def __exit__(self, *_) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.folder.cleanup()
