"""Where the time of a call goes."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import aneforge as af
import numpy as np
import pytest


@pytest.fixture(scope="module")
def model() -> af.Model:
    x = af.input((8, 16), name="x")
    return af.compile(x.linear(np.ones((4, 16), np.float32), np.ones(4, np.float32)).relu().softmax(-1))


def test_every_step_is_measured(model: af.Model) -> None:
    profile = model.profile(np.ones((8, 16), np.float32), calls=3)
    assert [step["name"] for step in profile.steps] == ["matmul+add+relu", "softmax"]
    assert profile.calls == 3 and profile.device == "host"
    linear = profile.steps[0]
    assert linear["flops"] == 2 * 8 * 16 * 4 and linear["result"] == "fp16[8, 4]"
    assert linear["bytes"] == 2 * (8 * 16 + 4 * 16 + 8 * 4)
    assert all(step["us"] > 0 and step["of_roof"] > 0 for step in profile.steps)
    assert profile.us == pytest.approx(sum(step["us"] for step in profile.steps))
    assert profile.roof is not None and profile.roof["gflop_per_s"] > 0.1


def test_what_was_fed_last_is_profiled_and_stays(model: af.Model) -> None:
    feed = np.linspace(-1, 1, 128, dtype=np.float32).reshape(8, 16)
    want = model(feed)
    model.profile(calls=2)
    np.testing.assert_array_equal(model.output_view().astype(np.float32), want)
    model.profile(x=feed, calls=1)


def test_profiles_print_and_are_drawn(model: af.Model, tmp_path: Path) -> None:
    profile = model.profile(np.ones((8, 16), np.float32), calls=1)
    assert "matmul+add+relu [8, 4]" in str(profile) and "of roof" in str(profile)
    assert repr(profile).startswith("Profile(2 steps, ")
    assert profile._repr_svg_() == profile.to_svg()
    for name in ("p.json", "p.svg", "p.txt"):
        profile.save(tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.json", "p.svg", "p.txt"]
    events = json.loads((tmp_path / "p.json").read_text())["traceEvents"]
    assert events == profile.to_trace()["traceEvents"]
    assert events[1]["ts"] == pytest.approx(events[0]["dur"]) and {e["ph"] for e in events} == {"X"}
    # As every output: a link is followed, and a file keeps its mode.
    (tmp_path / "p.svg").chmod(0o640)
    (tmp_path / "link.svg").symlink_to(tmp_path / "p.svg")
    profile.save(tmp_path / "link.svg")
    assert (tmp_path / "link.svg").is_symlink() and (tmp_path / "p.svg").stat().st_mode & 0o777 == 0o640
    root = ElementTree.parse(tmp_path / "p.svg").getroot()
    assert root.tag.endswith("svg") and len(list(root)) > 4
    assert (tmp_path / "p.txt").read_text() == str(profile)


def test_wrong_requests_say_what_to_do(model: af.Model, tmp_path: Path) -> None:
    profile = model.profile(np.ones((8, 16), np.float32), calls=1)
    with pytest.raises(ValueError, match=r"ends in \.json, \.svg, \.txt, got 'p\.png'"):
        profile.save(tmp_path / "p.png")
    with pytest.raises(OSError):
        profile.save(tmp_path / "missing" / "p.svg")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="profile: calls must be from 1 to 2147483647, got 0"):
        model.profile(calls=0)
    with pytest.raises(TypeError, match="profile: calls must be an integer, got 2.5"):
        model.profile(calls=2.5)
    with pytest.raises(ValueError, match="must have shape"):
        model.profile(np.ones((8, 15), np.float32))
