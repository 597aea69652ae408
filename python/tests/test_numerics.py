"""What is published of the engine's arithmetic, by name: what is free, and all of it."""

import pickle

import aneforge as af
import numpy as np
import pytest

SURVIVORS = np.array([[4096.0, -4096.0, 1.0] * 16], np.float32)


def net() -> af.Tensor:
    return af.input((1, 48)).linear(np.ones((1, 48)))


def test_settings_are_those_of_the_target_or_named():
    for numerics, target, want in [
        ("faithful", "h14", "faithful(A14)"), ("faithful-m1", None, "faithful(A13)"), ("Faithful-A16", "h13", "faithful(A16)"),
    ]:  # fmt: skip
        model = af.compile(net(), target=target, numerics=numerics, device="host")
        assert model.numerics == want and want in repr(model)
        assert pickle.loads(pickle.dumps(model)).numerics == want
    with pytest.raises(ValueError, match="unknown numerics `faithful-x`"):
        af.compile(net(), numerics="faithful-x", device="host")


def test_sums_of_plain_values_lose_what_the_engine_loses():
    assert af.compile(net(), target="h13", device="host")(SURVIVORS)[0, 0] == 16
    assert af.compile(net(), target="h13", numerics="faithful", device="host")(SURVIVORS)[0, 0] == 4


def test_nan_that_is_fed_is_infinite_on_every_engine_and_stays_with_ieee():
    x = af.input((1, 4))
    fed = np.array([[np.nan, 1, 2, 3]], np.float32)
    for numerics in ("ane", "faithful"):
        model = af.compile([x.relu(), x.softmax(-1)], numerics=numerics, device="host")
        relu, softmax = model(fed)
        np.testing.assert_array_equal(relu, [[np.inf, 1, 2, 3]])
        np.testing.assert_array_equal(softmax, [[1, 0, 0, 0]])
    assert np.isnan(af.compile(x.relu(), numerics="ieee", device="host")(fed)[0, 0])


def test_a_diagnosis_follows_the_setting_that_it_is_asked_for():
    model = af.compile(net(), device="host")
    assert model.diagnose(SURVIVORS).safe
    found = model.diagnose(SURVIVORS, target="M1", numerics="faithful")
    assert (found.numerics, found.safe) == ("faithful-a13", False)
    assert found.first["op"] == "matmul"
    with pytest.raises(TypeError, match="numerics must be a string"):
        model.diagnose(SURVIVORS, numerics=1)
    with pytest.raises(ValueError, match="unknown numerics `x`"):
        model.diagnose(SURVIVORS, numerics="x")


def test_settings_are_compared_on_the_callers_arrays():
    x = af.input((1, 48))
    found = af.compile(x.linear(np.ones((1, 48))).relu(), device="host").diff_numerics(SURVIVORS)
    assert found.baseline == "ane(A16)"
    settings = {setting["numerics"]: setting for setting in found.settings}
    assert settings["ane(A13)"]["first"] is None and settings["ane(A13)"]["outputs"] == [0]
    parted = settings["faithful(A13)"]["first"]
    assert (parted["op"], parted["values"], parted["difference"]) == ("matmul", 1, 0.75)
    assert "test_numerics.py" in parted["at"] and "h13" in settings["faithful(A13)"]["chips"]
    assert "faithful(A13)" in str(found) and "4 of 8 settings the same" in repr(found)
    with pytest.raises(ValueError, match="input"):
        af.compile(x.relu(), device="host").diff_numerics()
