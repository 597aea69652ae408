"""Compiled models: calls, views of their ports, threads."""

from __future__ import annotations

import copy
import gc
import pickle
import platform
import re
import threading
import time
import weakref

import aneforge as af
import numpy as np
import pytest


@pytest.fixture
def doubled() -> af.Model:
    x = af.input((2, 3))
    return af.compile(x * 2.0, device="host")


def test_a_model_names_its_device_and_target(doubled: af.Model) -> None:
    assert repr(doubled) == "Model(1 op, target h17s, device host)"
    assert (doubled.n_ops, doubled.device, doubled.target) == (1, "host", "h17s")
    assert doubled.numerics == "ane(A16)"
    assert doubled.input_shapes == doubled.output_shapes == [(2, 3)]
    assert "plan for h17s" in doubled.describe()


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i1", "i8", "u1", "u2", "?"])
def test_inputs_of_any_real_type_are_converted(doubled: af.Model, dtype: str) -> None:
    values = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    got = doubled(values)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, values.astype(np.float32) * 2)


def test_inputs_of_any_layout_are_read(doubled: af.Model) -> None:
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    np.testing.assert_array_equal(doubled(values[::2, ::2]), values[::2, ::2] * 2)
    turned = np.arange(6, dtype=np.float16).reshape(3, 2).T
    np.testing.assert_array_equal(doubled(turned), turned * 2)
    np.testing.assert_array_equal(doubled([[1, 2, 3], [4, 5, 6]]), [[2, 4, 6], [8, 10, 12]])
    values.flags.writeable = False
    np.testing.assert_array_equal(doubled(values[:2, :3]), values[:2, :3] * 2)


def test_inputs_go_in_the_order_they_were_made() -> None:
    a, b = af.input((2,)), af.input((2,))
    model = af.compile(b - a, device="host")
    np.testing.assert_array_equal(model([1, 2], [10, 20]), [9, 18])


def test_doubles_round_once() -> None:
    x = af.input((1,))
    value = 1.0 + 2.0**-11 + 2.0**-40
    assert af.compile(x * 1.0 + 0.0, device="host")(np.array([value]))[0] == 1.0 + 2.0**-10


def test_wrong_calls_are_refused(doubled: af.Model) -> None:
    with pytest.raises(ValueError, match=r"^the model takes 1 input, got 2$"):
        doubled([1], [2])
    with pytest.raises(ValueError, match=r"^input 0 must have shape \[2, 3\], got \[3, 2\]$"):
        doubled(np.zeros((3, 2)))
    with pytest.raises(
        TypeError, match=r"input 0 is a fp16 port and takes real numbers, got an array of complex128"
    ):
        doubled(np.zeros((2, 3), complex))
    with pytest.raises(TypeError, match="array of object|array of <U1"):
        doubled([["a", "b", "c"], ["d", "e", "f"]])
    with pytest.raises(TypeError):
        doubled(x=np.zeros((2, 3)))


def test_image_ports_take_integers_only() -> None:
    image = af.image_input((1, 3, 2, 2), scale=1.0)
    model = af.compile(image, device="host")
    pixels = np.arange(12, dtype=np.uint8).reshape(1, 3, 2, 2) * 23
    np.testing.assert_array_equal(model(pixels), pixels)
    np.testing.assert_array_equal(model(pixels.astype(np.int64)), pixels)
    with pytest.raises(TypeError, match="uint8 port and takes integers from 0 to 255, got fp32"):
        model(pixels.astype(np.float32))
    with pytest.raises(ValueError, match="takes integers from 0 to 255, got 0 to 256"):
        model(np.array([0, 256] * 6).reshape(1, 3, 2, 2))


def test_several_results_come_as_a_tuple() -> None:
    x = af.input((3,))
    model = af.compile([x + 1.0, x.sum(0)], device="host")
    plus, total = model([1, 2, 3])
    np.testing.assert_array_equal(plus, [2, 3, 4])
    np.testing.assert_array_equal(total, [6])
    assert isinstance(af.compile((x.relu(),), device="host")([1, 2, 3]), tuple)


def test_an_input_may_be_returned() -> None:
    x = af.input((3,))
    np.testing.assert_array_equal(af.compile(x, device="host")([1, -2, 3]), [1, -2, 3])


def test_views_are_the_ports_own_memory(doubled: af.Model) -> None:
    view, out = doubled.input_view(), doubled.output_view()
    assert view.dtype == out.dtype == np.float16
    assert view.shape == out.shape == (2, 3)
    view[...] = [[1, 2, 3], [4, 5, 6]]
    doubled.execute()
    np.testing.assert_array_equal(out, [[2, 4, 6], [8, 10, 12]])
    doubled(np.zeros((2, 3)))
    assert not out.any()
    assert not view.any()
    assert not out.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        out[0, 0] = 1


def test_views_outlive_their_model() -> None:
    x = af.input((1024,))
    model = af.compile(x * 2.0, device="host")
    view, out = model.input_view(), model.output_view()
    view[:] = 3
    model.execute()
    gone = weakref.ref(model)
    model.release()
    del model
    gc.collect()
    assert gone() is None
    view += 1
    np.testing.assert_array_equal(view, 4)
    np.testing.assert_array_equal(out, 6)


def test_inputs_are_named_by_tensor_number_or_name() -> None:
    a, b = af.input((2,)), af.input((2,))
    model = af.compile(a - b, device="host")
    model.input_view(a)[:] = 5
    model.input_view(1)[:] = 2
    model.execute()
    np.testing.assert_array_equal(model.output_view(), [3, 3])
    for name in (None, 2, -1, "nothing", a * 1.0):
        with pytest.raises(ValueError, match="name one of the model's 2 inputs"):
            model.input_view(name)
    for index in (1, -1, 2**70, True, "a"):
        with pytest.raises(ValueError, match=f"output_view: index must be 0; got {index!r}"):
            model.output_view(index)


def test_outputs_are_named_by_number_or_name() -> None:
    x = af.input((2,), name="x")
    model = af.compile({"a": x + 1, "b": x + 2}, device="host")
    model(np.zeros(2))
    np.testing.assert_array_equal(model.output_view("b"), [2, 2])
    np.testing.assert_array_equal(model.output_view(1), [2, 2])
    np.testing.assert_array_equal(model.output_view(), [1, 1])
    for index in ("c", "x", 2, -1, 2**70, 0.5):
        why = re.escape(f"output_view: index must be an integer from 0 to 1, or a name of a, b; got {index!r}")
        with pytest.raises(ValueError, match=why):
            model.output_view(index)  # type: ignore[arg-type]


def test_a_released_model_says_so(doubled: af.Model) -> None:
    doubled.release()
    doubled.release()
    assert repr(doubled).endswith("released)")
    for use in (lambda: doubled(np.zeros((2, 3))), doubled.execute, doubled.input_view, doubled.output_view):
        with pytest.raises(RuntimeError, match="the model was released; compile it again"):
            use()


def in_threads(count: int, work) -> None:
    """Runs `work(0)`, `work(1)`, ... at once, and raises what any of them raised."""
    errors = []

    def guarded(index: int) -> None:
        try:
            work(index)
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "deadlock"
    if errors:
        raise errors[0]


def test_two_threads_run_two_models() -> None:
    def work(index: int) -> None:
        x = af.input((16, 32))
        model = af.compile(x @ np.eye(32, dtype=np.float32) + float(index), device="host")
        for i in range(100):
            np.testing.assert_array_equal(model(np.full((16, 32), i)), float(i + index))

    in_threads(2, work)


def test_threads_share_one_model() -> None:
    x = af.input((16, 32))
    model = af.compile(x @ np.eye(32, dtype=np.float32), device="host")

    def work(index: int) -> None:
        for i in range(100):
            np.testing.assert_array_equal(model(np.full((16, 32), 3 * i + index)), float(3 * i + index))

    in_threads(3, work)


def test_other_threads_run_during_a_call() -> None:
    size = 1024
    x = af.input((size, size))
    weight = np.zeros((size, size), dtype=np.float16)
    y = x
    for _ in range(8):
        y = y @ weight
    model, feed = af.compile(y, device="host"), np.zeros((size, size), dtype=np.float32)
    span: list[float] = []

    def call() -> None:
        begin = time.perf_counter()
        model(feed)
        span.extend((begin, time.perf_counter()))

    thread = threading.Thread(target=call)
    ticks = []
    thread.start()
    while thread.is_alive():
        ticks.append(time.perf_counter())
        time.sleep(0.0005)
    begin, end = span
    middle = [t for t in ticks if begin + 0.2 * (end - begin) < t < begin + 0.8 * (end - begin)]
    assert middle, f"nothing ran during a call of {end - begin:.3f} s"


def test_sums_are_an_option() -> None:
    x = af.input((16, 64))
    weight = np.linspace(-1, 1, 32 * 64, dtype=np.float32).reshape(32, 64)
    feed = np.linspace(-1, 1, 16 * 64, dtype=np.float32).reshape(16, 64)
    defined, fast = (af.compile(x.linear(weight), device="host", sums=sums) for sums in ("defined", "fast"))
    np.testing.assert_allclose(fast(feed), defined(feed), rtol=1e-3, atol=1e-3)
    assert repr(defined).endswith(", device host, defined sums)") and repr(fast).endswith(", device host)")
    for model in (defined, fast):
        for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            assert repr(again) == repr(model)
            np.testing.assert_array_equal(again(feed), model(feed))


def test_sums_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    y = af.input((4,)).relu()
    monkeypatch.setenv("ANEFORGE_SUMS", "defined")
    assert "defined sums" in repr(af.compile(y, device="host"))
    assert "defined sums" not in repr(af.compile(y, device="host", sums="fast"))
    monkeypatch.setenv("ANEFORGE_SUMS", "quick")
    with pytest.raises(ValueError, match="sums must be 'defined' or 'fast', got 'quick'"):
        af.compile(y, device="host")
    monkeypatch.setenv("ANEFORGE_SUMS", "")
    assert "defined sums" not in repr(af.compile(y, device="host"))
    with pytest.raises(TypeError, match="sums must be"):
        af.compile(y, device="host", sums=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="takes no sums"):
        af.compile(y, opt=2, sums="fast")


def test_instruction_sets_and_threads_are_options(monkeypatch: pytest.MonkeyPatch) -> None:
    x = af.input((16, 64), name="x")
    y = x.linear(np.linspace(-1, 1, 32 * 64, dtype=np.float32).reshape(32, 64)).gelu()
    feed = np.linspace(-1, 1, 16 * 64, dtype=np.float32).reshape(16, 64)
    want = af.compile(y, device="host")(feed)
    model = af.compile(y, device="host", isa="Scalar", threads=1)
    assert repr(model).endswith(", device host, scalar kernels, 1 thread)")
    np.testing.assert_array_equal(model(feed), want)
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert repr(again) == repr(model)
        np.testing.assert_array_equal(again(feed), want)
    three = [af.compile(y, device="host", threads=3) for _ in range(2)]
    in_threads(4, lambda i: np.testing.assert_array_equal(three[i % 2](feed), want))
    monkeypatch.setenv("ANEFORGE_ISA", "scalar")
    assert "scalar kernels" in repr(af.compile(y, device="host"))
    monkeypatch.setenv("ANEFORGE_ISA", "")
    assert "kernels" not in repr(af.compile(y, device="host"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"isa": "sse9"}, ValueError, "isa must name an instruction set, here one of 'scalar'.*got 'sse9'"),
        ({"isa": "neon" if platform.machine() == "x86_64" else "avx2"}, RuntimeError, "cannot run .* kernels; choose"),
        ({"threads": 0}, ValueError, "threads must be from 1 to 1024, got 0"),
        ({"threads": -1}, ValueError, "threads must be from 1 to 1024, got -1"),
        ({"threads": 2**63}, ValueError, "threads must be from 1 to 1024, got 9223372036854775808"),
        ({"threads": -(2**70)}, ValueError, "threads must be from 1 to 1024, got -1180591620717411303424"),
        ({"threads": 2**9999}, ValueError, "threads must be from 1 to 1024, got an integer of 10000 bits"),
        ({"isa": "\udcff"}, ValueError, "isa is no text in UTF-8, got"),
        ({"threads": 10**6}, ValueError, "threads must be from 1 to 1024, got 1000000"),
        ({"threads": 2.5}, TypeError, "threads must be"),
        ({"threads": 2, "opt": 2}, ValueError, "takes no threads"),
    ],
)
def test_wrong_options_of_the_host(options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        af.compile(af.input((4,)).relu(), **({"device": "host"} if "opt" not in options else {}), **options)
