"""A JupyterLab of its own on one folder, for tests that press buttons in a real browser.

with JupyterLab(folder) as lab:
    page = browser.open(lab.address("widgets.ipynb"))
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class JupyterLab:
    """A server without password on a free port of this machine, with settings and run-time files of its own."""

    def __init__(self, folder: Path, environment: dict[str, str] | None = None):
        self.folder, self.environment = folder, environment or {}

    def __enter__(self) -> JupyterLab:
        self.port, self.own = free_port(), tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        own = {f"JUPYTER_{kind}_DIR": f"{self.own.name}/{kind}" for kind in ("CONFIG", "RUNTIME", "DATA")}
        own["JUPYTERLAB_SETTINGS_DIR"] = own["JUPYTERLAB_WORKSPACES_DIR"] = f"{self.own.name}/lab"
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={self.port}"]
        command += ["--ServerApp.port_retries=0", "--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True"]
        command += ["--expose-app-in-browser", f"--ServerApp.root_dir={self.folder}", "--LabApp.news_url="]
        self.process = subprocess.Popen(
            command, env=os.environ | own | self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        opener, end = urllib.request.build_opener(urllib.request.ProxyHandler({})), time.monotonic() + 120
        while True:
            try:
                opener.open(f"http://127.0.0.1:{self.port}/api", timeout=10).close()
                return self
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    self.__exit__()
                    raise RuntimeError("JupyterLab did not start") from None
                time.sleep(0.2)

    def address(self, notebook: str) -> str:
        return f"http://127.0.0.1:{self.port}/lab/tree/{notebook}"

    def __exit__(self, *_) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.own.cleanup()
