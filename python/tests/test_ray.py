"""Workers of Ray: two actors on this machine, of which one is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ray

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "ray_train.py"


def trained(home: Path, *words: str) -> tuple[str, str]:
    """What the example prints last, and all of it."""
    # Ray keeps files of its own in the home folder; sockets need a short path, which its folder in /tmp is.
    env = {**os.environ, "HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, str(EXAMPLE), "--workers", "2", "--steps", "12", "--every", "4", *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip().splitlines()[-1], done.stdout


def test_workers_make_the_weights_of_one_also_where_one_is_killed(tmp_path: Path) -> None:
    assert ray.__version__
    alone, _ = trained(tmp_path, "--alone")
    assert "held-out digits; weights" in alone
    kept = tmp_path / "checkpoint.safetensors"
    killed, told = trained(tmp_path, "--kill-at", "7", "--checkpoint", str(kept))
    assert killed == alone
    assert "step 7: workers [1] were lost; back to step 4" in told
    assert kept.exists() and not list(tmp_path.glob("*.part"))
