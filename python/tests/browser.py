"""A browser without a window, driven through a pipe: Debian's chromium, or what ANEFORGE_TEST_BROWSER names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

NAMES = ["chromium", "chromium-browser", "google-chrome"]


def program() -> str:
    named = os.environ.get("ANEFORGE_TEST_BROWSER")
    found = named or next((path for name in NAMES if (path := shutil.which(name))), None)
    if not found:
        pytest.skip("NOT TESTED: the page of `aneforge serve`, as there is no browser; apt-get install chromium")
    return found


class Browser:
    """One page of a browser, in a profile of its own."""

    def __init__(self, folder: Path) -> None:
        options = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
            f"--user-data-dir={folder}", "about:blank",
        ]  # fmt: skip
        (theirs_in, self.to), (self.back, theirs_out) = os.pipe(), os.pipe()
        # The browser reads from 3 and writes to 4.
        line = ["bash", "-c", f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}', program(), *options]
        self.process = subprocess.Popen(
            line, pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self.read, self.number = b"", 0
        self.requests: list[str] = []
        self.problems: list[str] = []
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM", "Accessibility"):
            self.send(f"{domain}.enable")

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self.read:
            part = os.read(self.back, 1 << 16)
            assert part, "the browser ended"
            self.read += part
        message, self.read = self.read.split(b"\0", 1)
        return dict(json.loads(message))

    def _send(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        number = self.number
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            got = self._message()
            if got.get("id") == number:
                assert "error" not in got, got["error"]
                return dict(got["result"])
            self._note(got)

    def _note(self, event: dict[str, Any]) -> None:
        of = event.get("params", {})
        if event["method"] == "Network.requestWillBeSent":
            self.requests.append(of["request"]["url"])
        elif event["method"] == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(of["exceptionDetails"]))
        elif event["method"] == "Log.entryAdded":
            self.problems.append(of["entry"]["text"])

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._send(method, self.session, **parameters)

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript comes to on the page."""
        got = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in got, got["exceptionDetails"]
        return got["result"].get("value")

    def until(self, expression: str) -> None:
        deadline = time.monotonic() + 60
        while not self.value(expression):
            assert time.monotonic() < deadline, (expression, self.value("document.body.innerText"), self.problems)
            time.sleep(0.02)

    def open(self, url: str) -> None:
        self.send("Page.navigate", url=url)
        self.until(f"location.href.startsWith({json.dumps(url)}) && document.readyState === 'complete'")

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode={"ArrowRight": 39}[key])

    def choose(self, selector: str, file: Path) -> None:
        """Puts a file into a field for files."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, why: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.to)
        os.close(self.back)
