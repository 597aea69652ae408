"""The NumPy form of the fixture generator, held to the values that the Rust one is held to."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "oracle"))
import fixture_random  # noqa: E402


def test_streams_are_those_of_rust() -> None:
    words = [int(fixture_random.words(0, 1)[0]), *map(int, fixture_random.words(1, 2))]
    assert words == [0xE220A8397B1DCDAF, 0xF4A90164C4749E1A, 0xBFA9AE8D44B45A35]
    assert float(fixture_random.uniform(7, 3)[2]) == 0.8414270281791687
    normals = [float(v) for v in fixture_random.normal(5, (3,), 0.1)]
    assert normals == [0.030377808958292007, -0.014816251583397388, 0.00837808009237051]
