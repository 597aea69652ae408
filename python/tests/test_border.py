"""Whatever is passed: an answer, or an exception of Python's own kinds that is no panic of ours."""

import inspect
import os
import random
import warnings

import aneforge as af
import numpy as np
import pytest

CALLS = int(os.environ.get("ANEFORGE_FUZZ_CALLS", "60"))

LEFT_OUT = {
    # They reach for the network, write files, measure for long, or change the process.
    "load", "save_graph", "load_graph", "tune", "tune_attention", "tune_precision", "save",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Odd strings may be taken for folders to write to."""
    monkeypatch.chdir(tmp_path)


def values():
    """Odd values of every kind that a caller may pass."""
    raw = np.zeros(33, np.uint8)
    x = af.input((1, 4, 6, 6))
    return [
        None, True, 0, 1, -1, 2, 5, 2**31, -(2**31) - 1, 2**63 - 1, 2**64, 10**30, 0.0, -0.5, 1e-12, 1e300,
        float("nan"), float("inf"), 1j, "", "x", "fp16", "reflect", b"bytes", (), [], {}, set(), object(), int,
        (1, 2), [3, -1], [[1, 2], [3]], [None], [2**40], ("a",), {"x": 1}, range(3), slice(None, None, -2), ...,
        np.float32(2), np.int64(-3), np.bool_(True), np.array(3), np.array([]), np.zeros((0, 3)), np.ones(4),
        np.ones((4, 4), np.float16), np.ones((4, 4, 3, 3)), np.full((2, 2), np.nan), np.array([1e9, -1e9]),
        np.array(["a"]), np.array([object()]), np.array([1 + 2j]), np.ones((2, 2), bool), np.arange(6).reshape(2, 3),
        np.ones((1,) * 9), np.ones((3, 3), ">f4"), np.asfortranarray(np.ones((4, 6))), np.zeros(3, "f4,i2"),
        np.frombuffer(raw.data, np.float32, offset=1), np.zeros(2, "M8[s]"), np.ma.masked_array([1.0, 2.0]),
        af.input(()), af.input((3,)), af.input((2, 3)), af.input((4, 4)), af.input((1, 3, 4)), x, x > 0,
        af.input((1, 2, 3, 4, 5)), af.input((2, 3), "uint8"), [x, x], (af.input((2, 3)), 1.0), {"a": x},
        af.input((2**31 - 1, 3)), x.relu(), lambda v: v, memoryview(b"abcd"),
    ]  # fmt: skip


def functions():
    """Every public function, and every public method of tensors."""
    for name in sorted(set(dir(af)) - LEFT_OUT):
        found = getattr(af, name)
        if not name.startswith("_") and callable(found) and not inspect.ismodule(found):
            yield pytest.param(lambda found=found: found, id=name)
    for name in sorted(dir(af.Tensor)):
        operator = name.startswith("__") and name not in {"__class__", "__init_subclass__", "__subclasshook__"}
        if name not in LEFT_OUT and (operator or not name.startswith("_")):
            yield pytest.param(lambda name=name: lambda x, *a, **k: getattr(x, name)(*a, **k), id=f"Tensor.{name}")


@pytest.mark.parametrize("find", list(functions()))
def test_no_argument_makes_a_panic(find, request):
    function, pool = find(), values()
    draw = random.Random(request.node.callspec.id)
    tensors = [v for v in pool if isinstance(v, af.Tensor)]
    try:
        keywords = [p for p in inspect.signature(function).parameters if p not in {"a", "k", "x"}]
    except (TypeError, ValueError):
        keywords = []
    for _ in range(CALLS):
        arguments = [draw.choice(pool) for _ in range(draw.randrange(5))]
        if arguments and draw.random() < 0.7:
            arguments[0] = draw.choice(tensors)
        named = {draw.choice(keywords): draw.choice(pool)} if keywords and draw.random() < 0.3 else {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                function(*arguments, **named)
        except Exception as error:
            assert "internal error" not in str(error), (arguments, named)
        except BaseException as error:  # A panic is no Exception.
            pytest.fail(f"{type(error).__name__}: {error} from {arguments}, {named}")


def test_no_array_makes_a_panic_when_it_is_fed():
    models = [af.compile(af.input(shape) * 2.0) for shape in [(), (3,), (2, 3), (1, 4, 6, 6)]]
    models.append(af.compile(af.image_input((1, 1, 2, 3))))
    for model in models:
        for value in values():
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    model(value)
            except Exception as error:
                assert "internal error" not in str(error), value
