"""What was measured on this machine: one file in the cache, `autotune.json`."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from aneforge import _env


def stored() -> dict[str, object]:
    """What earlier processes measured; nothing when the file is missing or damaged."""
    try:
        stored = json.loads((_env.cache_dir() / "autotune.json").read_text())
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


def store(key: str, value: object) -> None:
    """Adds a measurement. The file is replaced as a whole, so that readers see the old one or the new."""
    folder = _env.cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix="autotune.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(stored() | {key: value}, file, indent=1, sort_keys=True)
        os.replace(temporary, folder / "autotune.json")
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
