"""Other processes, copies and interrupts: what happens to models outside the thread that made them."""

import copy
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings

import aneforge as af
import numpy as np
import pytest

TINY = os.path.join(os.path.dirname(__file__), "..", "..", "tests", "models", "tiny-bert")
X = np.random.default_rng(1).normal(size=(64, 256)).astype(np.float32)


def wide_model():
    """A model whose steps are shared among threads."""
    rng = np.random.default_rng(0)
    x = af.input((64, 256))
    y = (x @ (rng.normal(size=(256, 512)).astype(np.float32) / 16)).gelu()
    return af.compile((y @ (rng.normal(size=(512, 128)).astype(np.float32) / 16)).softmax(-1))


def in_child(work, limit=60.0):
    """What `work` returns in a forked child, or an error when it does not end."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with os.fdopen(writer, "wb") as out:
                pickle.dump(work(), out)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    kill = threading.Timer(limit, os.kill, (child, signal.SIGKILL))
    kill.start()
    with os.fdopen(reader, "rb") as results:
        said = results.read()
    _, status = os.waitpid(child, 0)
    kill.cancel()
    assert status == 0, f"the child ended with status {status}"
    return pickle.loads(said)


def test_a_forked_child_runs_models_encoders_and_compiles():
    model, encoder = wide_model(), af.load(TINY)
    want, vectors = model(X), encoder(["one text", "and another"])

    def child():
        first = model(X), encoder(["one text", "and another"]), wide_model()(X)
        grandchild = in_child(lambda: model(X))
        return *first, grandchild, model(X)

    results = in_child(child)
    for got, expected in zip(results, [want, vectors, want, want, want], strict=True):
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(model(X), want)


def test_a_child_forked_during_calls_of_other_threads_runs():
    model, encoder = wide_model(), af.load(TINY)
    want, vector = model(X), encoder("a text")
    over = threading.Event()

    def work(call):
        while not over.is_set():
            call()

    x = af.input((512, 512))
    compiles = lambda: af.compile((x @ np.eye(512, dtype=np.float32)).relu())  # noqa: E731
    calls = [lambda: model(X), lambda: encoder("a text"), compiles]
    threads = [threading.Thread(target=work, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            # Not the model alone: its lock, the encoder's, the compiler's and the packed weights' may be held.
            got = in_child(lambda: (model(X), encoder("a text"), compiles()(np.eye(512))[0, 0], model(X)))
            np.testing.assert_array_equal(got[0], want)
            np.testing.assert_array_equal(got[1], vector)
            assert got[2] == 1
            np.testing.assert_array_equal(got[3], want)
    finally:
        over.set()
        for thread in threads:
            thread.join()


def call(model):
    return model(X)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_models_go_to_worker_processes(method):
    model = wide_model()
    want = model(X)
    with multiprocessing.get_context(method).Pool(2) as pool:
        for got in pool.map(call, [model, model, model]):
            np.testing.assert_array_equal(got, want)


def test_models_pickle_with_weights_device_numerics_and_several_results():
    x = af.input((4, 8))
    y = (x @ np.arange(64.0, dtype=np.float32).reshape(8, 8)).relu()
    model = af.compile([y, y.softmax(-1)], target="h14", numerics="ieee", device="host")
    back = pickle.loads(pickle.dumps(model))
    feed = np.full((4, 8), 30000.0)
    for got, want in zip(back(feed), model(feed), strict=True):
        np.testing.assert_array_equal(got, want)
    assert (back.target, back.numerics, back.device, back.n_ops) == ("h14", "ieee", "host", model.n_ops)
    assert (back.input_shapes, back.output_shapes) == (model.input_shapes, model.output_shapes)


def test_segmented_models_pickle():
    x = af.input((4, 8))
    model = af.compile(af.sort(x).exp(), opt=0)
    back = pickle.loads(pickle.dumps(model))
    assert isinstance(back, af.SegmentedModel) and back.n_netplist == model.n_netplist == 1
    feed = np.random.default_rng(2).normal(size=(4, 8))
    np.testing.assert_array_equal(back(feed), model(feed))


def test_a_deep_copy_has_memory_of_its_own():
    x = af.input((4,))
    model = af.compile(x * 2)
    other = copy.deepcopy(model)
    model.input_view()[:] = 1
    other.input_view()[:] = 3
    model.execute()
    other.execute()
    assert model.output_view().tolist() == [2] * 4 and other.output_view().tolist() == [6] * 4


def test_tensors_pickle_and_share_their_inputs():
    x = af.input((2, 3))
    w = np.arange(12.0).reshape(3, 4)
    y = (x @ w.astype(np.float32)).relu()
    assert copy.deepcopy(y) == y and copy.copy(y) == y
    z, x2 = pickle.loads(pickle.dumps((y, x)))
    model = af.compile(z + y.muls(2.0))
    assert len(model.input_shapes) == 1, "both are made from the same input"
    assert x2 == x
    np.testing.assert_allclose(model(np.ones((2, 3))), 3 * np.ones((2, 3)) @ w)


def test_encoders_pickle_and_copy():
    encoder = af.load(TINY, pooling="max")
    want = encoder(["a text"])
    for other in [pickle.loads(pickle.dumps(encoder)), copy.deepcopy(encoder)]:
        np.testing.assert_array_equal(other(["a text"]), want)
        assert (other.pooling, other.target, other.device) == ("max", encoder.target, encoder.device)


def test_a_released_model_pickles():
    model = wide_model()
    want = model(X)
    model.release()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model))(X), want)


class Late(Exception):
    """Raised by the alarm."""


def interrupted_after(seconds, work):
    """How long `work` goes on after a signal whose handler raises."""

    def ring(*_):
        raise Late

    before = signal.signal(signal.SIGALRM, ring)
    start = time.perf_counter()
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        while time.perf_counter() - start < seconds + 60:
            work()
        pytest.fail("the signal was lost")
    except Late:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return time.perf_counter() - start - seconds


def long_model(rows=4096):
    x = af.input((rows, 2048))
    y = x
    weight = np.eye(2048, dtype=np.float32)
    for _ in range(6):
        y = (y @ weight).relu()
    return af.compile(y)


def test_a_long_call_is_interrupted_and_the_model_stays_usable():
    model = long_model()
    feed = np.zeros((4096, 2048), np.float32)
    feed[5, 7] = 2
    # Not a bound on speed: the call would go on for seconds.
    assert interrupted_after(0.3, lambda: model(feed)) < 1.0
    assert model(feed)[5, 7] == 2 and model(feed).sum() == 2


def test_views_outlive_an_interrupted_call():
    model = long_model()
    view = model.input_view()
    view[:] = 0
    assert interrupted_after(0.3, model.execute) < 1.0
    view[5, 7] = 2
    model(np.zeros((4096, 2048), np.float32))
    assert view[5, 7] in (0, 2)


def test_a_long_compile_is_interrupted():
    y = x = af.input((4,))
    for _ in range(100_000):
        y = y + x
    assert interrupted_after(0.2, lambda: af.compile(y)) < 1.0
    assert interrupted_after(0.05, lambda: af.precision_risk(y)) < 1.0
    assert af.compile(x * 2)(np.ones(4)).tolist() == [2] * 4


def test_a_long_batch_of_texts_is_interrupted():
    encoder = af.load(TINY)
    texts = ["some words and then some more of them " * 5] * 200_000
    assert interrupted_after(0.3, lambda: encoder(texts)) < 1.0
    assert encoder("a text").shape == (1, encoder.dim)


def test_a_large_constant_is_interrupted():
    x, weight = af.input((1, 4096)), np.ones((4096, 4096), np.float32)
    assert interrupted_after(0.1, lambda: x @ weight) < 1.0
    assert interrupted_after(0.1, lambda: x + weight) < 1.0


SIDE = 6000
FORMS = {
    "Fortran order": lambda: np.asfortranarray(np.zeros((SIDE, SIDE))),
    "transposed integers": lambda: np.zeros((SIDE, SIDE), "i4").T,
    "big-endian": lambda: np.zeros((SIDE, SIDE), ">f8"),
    "three axes": lambda: np.zeros((20, SIDE // 20, SIDE)).transpose(2, 0, 1).reshape(SIDE, SIDE),
}


def latest_interrupt(work):
    """The longest that `work` went on after a signal, wherever in it that came."""
    return max(interrupted_after(seconds, work) for seconds in (0.02, 0.1, 0.3, 0.5, 0.7))


@pytest.mark.parametrize("form", FORMS)
def test_the_conversion_of_a_large_array_is_interrupted(form):
    array = FORMS[form]()
    x = af.input((SIDE, SIDE))
    model, small = af.compile(x * 1.0), af.input((1, 1))
    assert latest_interrupt(lambda: model(array)) < 0.25
    assert latest_interrupt(lambda: small + array) < 0.25


@pytest.mark.parametrize("nested", [False, True])
def test_a_long_list_is_interrupted(nested):
    array = np.arange(3_000_000, dtype=np.float32) % 7
    shape = (1500, 2000) if nested else (60_000, 50)
    model, values = af.compile(af.input(shape) * 1.0), array.reshape(shape).tolist()
    np.testing.assert_array_equal(model(values), array.reshape(shape))
    assert latest_interrupt(lambda: model(values)) < 0.25


def test_long_lists_are_the_arrays_that_short_ones_are():
    for values in ([[1, 2]] * 40_000 + [[3, 0.5]], [[True, False]] * 40_000 + [[3, 1]], [[[1.0]] * 3] * 50_000):
        want = np.asarray(values)
        model = af.compile(af.input(want.shape) * 1.0)
        np.testing.assert_array_equal(model(values), want)
    with pytest.raises(ValueError, match="is a list that is no array"):
        af.compile(af.input((40_001, 2)) * 1.0)([[1.0, 2.0]] * 40_000 + [[1.0]])


def test_a_conversion_to_bytes_is_interrupted_and_the_model_stays_usable():
    x = af.input((SIDE, SIDE), dtype="uint8")
    model, array = af.compile(x.astype("fp16") * 1.0), np.full((SIDE, SIDE), 3, "i8").T
    assert latest_interrupt(lambda: model(array)) < 0.25
    assert (model(array) == 3).all()


def test_running_sums_of_a_long_axis_are_interrupted():
    x = af.input((2, 12_000))
    assert latest_interrupt(lambda: x.cumsum()) < 0.25


def test_signals_are_not_lost_between_arrays_and_tensors():
    x, weight = af.input((1, 8)), np.zeros((8, 8), np.float32)
    for period in range(40):
        interrupted_after(0.002 + 0.0003 * period, lambda: x @ weight)


def test_pickling_a_long_graph_is_interrupted():
    y = x = af.input((4,))
    for _ in range(100_000):
        y = y + x
    assert interrupted_after(0.1, lambda: pickle.dumps(y)) < 1.0
    kept = pickle.dumps(y)
    assert interrupted_after(0.1, lambda: pickle.loads(kept)) < 1.0


@pytest.mark.parametrize("what", ["model", "encoder"])
def test_a_handler_cannot_call_what_it_interrupts(what):
    if what == "model":
        model, feed = long_model(1024), np.zeros((1024, 2048), np.float32)
        call, short = lambda: model(feed), lambda: model(feed)
    else:
        encoder = af.load(TINY)
        call, short = lambda: encoder(["some words " * 9] * 100_000), lambda: encoder("a text")

    def again(*_):
        call()

    before = signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(RuntimeError, match="this thread is in a call of the same object already"):
            call()
    finally:
        signal.signal(signal.SIGALRM, before)
    short()


def test_waiting_for_another_thread_is_interrupted():
    model, feed = long_model(1024), np.zeros((1024, 2048), np.float32)
    over = threading.Event()

    def others():
        while not over.is_set():
            model(feed)

    thread = threading.Thread(target=others)
    thread.start()
    try:
        time.sleep(0.2)
        assert interrupted_after(0.2, lambda: model(feed)) < 1.0
    finally:
        over.set()
        thread.join()
    assert model(feed).sum() == 0


SHORT_OF_MEMORY = """
import pickle, resource, sys, aneforge as af, numpy as np
# Arrays have more than the 64 MiB that the C library may have set aside for each thread.
x, weight = af.input((4500, 4500)), np.ones((4500, 5000), np.float32)
square, long = np.ones((4500, 4500), np.float32), np.ones((8, 5_000_000), np.float16)
product, model = x @ weight, lambda y: af.compile(y, device="host")
prepare = {
    "constant": lambda: lambda: x @ weight,
    "pickle": lambda: lambda made=model(product): pickle.dumps(made),
    "tensor": lambda: lambda: pickle.dumps(product),
    "load": lambda: lambda kept=pickle.dumps(product): pickle.loads(kept),
    "contents": lambda: lambda constant=af.select(True, long, 0.0): constant.srcs[1].attrs["value"],
    "call": lambda: lambda made=model(x * 2.0 + 1.0): made(square),
}
work = prepare[sys.argv[1]]()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 10_000_000,) * 2)
try:
    work()
except MemoryError:
    print("MemoryError")
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="limits the address space, as Linux does")
@pytest.mark.parametrize("what", ["constant", "pickle", "tensor", "load", "contents", "call"])
def test_too_little_memory_is_a_memory_error(what):
    ran = subprocess.run([sys.executable, "-c", SHORT_OF_MEMORY, what], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "MemoryError\n"), ran.stderr


def test_a_size_that_no_machine_has_is_a_memory_error():
    with pytest.raises((MemoryError, ValueError, NotImplementedError), match="memory|limit|address"):
        af.compile(af.input((65536, 65536, 65536)).relu())
    x = af.input((16384, 16384, 16384))
    with pytest.raises(MemoryError, match="bytes of memory"):
        af.compile(x.relu())


def test_an_overflow_warns_once_with_the_line_and_is_listed():
    x = af.input((2, 3))
    model = af.compile(x.exp())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(np.ones((2, 3)))
    assert model.overflows() == []
    feed = np.ones((2, 3))
    feed[1, 1] = 20
    with pytest.warns(af.PrecisionWarning, match=r"exp made an infinity.*test_process\.py:\d+") as caught:
        assert model(feed)[1, 1] == np.inf
    assert len(caught) == 1 and caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(feed)
    (found,) = model.overflows()
    assert (found["op"], found["values"], found["calls"]) == ("exp", 1, 2)
    assert "test_process.py" in found["at"]


def test_values_beyond_half_precision_are_told_of_once_for_each_input():
    x, y = af.input((2, 3), name="image"), af.input((3,))
    model = af.compile(x * 0.5 + y)
    fits = np.array([[65504.0, -65519.9, 1.0], [np.inf, -np.inf, np.nan]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(fits, np.full(3, 8, np.float16))
        model(fits.astype(np.float32), np.zeros(3))
    feed = np.ones((2, 3))
    feed[0, 1:] = 70_000, -1e6
    for dtype in (np.float64, np.float32, np.int64, np.dtype(">f4")):
        model = af.compile(x * 0.5 + y)
        with pytest.warns(af.PrecisionWarning) as caught:
            model(feed.astype(dtype), [1, 2, 3])
        (warning,) = caught
        assert warning.filename == __file__
        said = "input 0 (image) was fed 2 values beyond half precision, the largest -1000000; half precision ends at 65504"
        assert str(warning.message).startswith(said) and "array / 16" in str(warning.message)
    with pytest.warns(af.PrecisionWarning, match="^input 1 was fed a value beyond half precision, 65520; ") as caught:
        model(feed, [0, 0, 65520])
    assert len(caught) == 1, "the other input was told of"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(feed, [0, 0, 65520])


AT_EXIT = """
import os, signal, threading
import aneforge as af, numpy as np
w = np.zeros((4000, 4000))
x = af.input((4, 4000))
timer = threading.Timer({delay}, os.kill, (os.getpid(), signal.SIGINT))
try:
    timer.start()
    x @ w
    threading.Event().wait(10)
except KeyboardInterrupt:
    pass
"""


@pytest.mark.parametrize("delay", [0.005, 0.01, 0.03, 0.06])
def test_a_program_ends_well_after_an_interrupt(delay):
    """What was interrupted may still be reading an array when the interpreter ends."""
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", AT_EXIT.format(delay=delay)], capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr.decode()
