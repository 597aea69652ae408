"""`aneforge serve` as another process, for the tests of its clients."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "models" / "tiny-bert"
KEY = "a-key-of-the-tests"


def command() -> str:
    """The command: `cargo xtask test` says where, or `cargo build -p aneforge-cli` has put it."""
    named = os.environ.get("ANEFORGE_TEST_COMMAND")
    found = [Path(named)] if named else [path for path in [ROOT / "target/debug/aneforge"] if path.exists()]
    if not found:
        pytest.skip("NOT TESTED: no command `aneforge`; cargo build -p aneforge-cli")
    return str(found[0])


class Served:
    """A server that listens, and is told to end when it is left."""

    def __init__(self, *arguments: str, keys: str = "") -> None:
        line = [command(), "serve", "--json", "--device", "host", "--port", "0", *arguments]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ANEFORGE_")}
        environment |= {"ANEFORGE_API_KEYS": keys}
        self.process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout and self.process.stderr
        said = self.process.stdout.readline()
        if not said:
            raise RuntimeError(self.process.stderr.read())
        self.described: dict[str, Any] = json.loads(said)
        self.url = f"http://{self.described['address']}"
        deadline = time.monotonic() + 60
        while not self.ready():
            assert time.monotonic() < deadline, "the server is not ready"
            time.sleep(0.02)

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + "/health/ready", timeout=10) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return False

    def ask(self, path: str, body: Any = None, key: str = "") -> Any:
        """What the server answers, as JSON where it is."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers={"Content-Type": "application/json"})
        if key:
            request.add_header("Authorization", f"Bearer {key}")
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read().decode()
            return json.loads(text) if "json" in answer.headers["Content-Type"] else text

    def end(self) -> tuple[int, str]:
        """Tells it to end; its exit code, and what it said."""
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said

    def __enter__(self) -> Served:
        return self

    def __exit__(self, kind: type[BaseException] | None, why: BaseException | None, at: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
