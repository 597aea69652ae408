"""State: what models keep from run to run, and share."""

import copy
import json
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest

import aneforge as af

RNG = np.random.default_rng(7)


def test_a_step_changes_state_and_others_read_it() -> None:
    total = af.state((2, 3), "total", init=1.0)
    x = af.input((2, 3))
    following = total + x
    step = af.compile(following * 2.0, carry={total: following})
    look = af.compile(total * 1.0)
    assert step.input_shapes == [(2, 3)]
    assert look.input_names == []
    xs = RNG.standard_normal((5, 2, 3)).astype(np.float16)
    expected = np.ones((2, 3), np.float16)
    for row in xs:
        expected = expected + row
        np.testing.assert_array_equal(step(row), (expected * np.float16(2)).astype(np.float32))
        np.testing.assert_array_equal(look(), expected.astype(np.float32))
    np.testing.assert_array_equal(total.numpy(), expected.astype(np.float32))
    assert step.copied() == 0
    total.set(0)
    assert not look().any()
    total.set(np.full((2, 3), 5))
    assert (look() == 5).all()


def decoder(length: int, width: int) -> tuple[af.Model, list[af.State], np.ndarray]:
    """One head of attention over a cache of keys and values."""
    weights = RNG.standard_normal((4, width, width)).astype(np.float32) * 0.3
    keys, values = (af.state((length, width), name) for name in ("keys", "values"))
    x, place, mask = af.input((1, width)), af.input((length, 1)), af.input((1, length))
    q, k, v = (x.linear(weights[i]) for i in range(3))
    next_keys = keys * (place * -1.0 + 1.0) + place * k
    next_values = values * (place * -1.0 + 1.0) + place * v
    scores = (q @ next_keys.transpose((1, 0))) * width**-0.5 + mask
    y = (scores.softmax(-1) @ next_values).linear(weights[3])
    return af.compile(y, carry={keys: next_keys, values: next_values}), [keys, values], weights


def test_a_cache_makes_decoding_what_attention_over_all_tokens_is() -> None:
    length, width = 12, 16
    step, _, weights = decoder(length, width)
    tokens = RNG.standard_normal((length, width)).astype(np.float32)
    got = []
    for at, token in enumerate(tokens):
        place = np.zeros((length, 1), np.float32)
        place[at] = 1
        mask = np.where(np.arange(length) > at, -1e4, 0).astype(np.float32)[None]
        got.append(step(token[None], place, mask)[0])
    q, k, v = (tokens @ w.T for w in weights[:3])
    scores = q @ k.T * width**-0.5
    scores[np.triu_indices(length, 1)] = -np.inf
    chances = np.exp(scores - scores.max(-1, keepdims=True))
    expected = (chances / chances.sum(-1, keepdims=True)) @ v @ weights[3].T
    np.testing.assert_allclose(got, expected, atol=2e-2)
    assert step.copied() == 0


def test_files_and_copies_keep_state(tmp_path) -> None:
    n = af.state((3,), "n")
    count = af.compile(n + 0.5, carry={n: n + 1.0})
    count()
    count()
    held = count.state()
    np.testing.assert_array_equal(held["n"], [2, 2, 2])
    path = tmp_path / "state.safetensors"
    count.save_state(path)
    twin = copy.deepcopy(count)
    other = pickle.loads(pickle.dumps(count))
    for model in (twin, other):
        np.testing.assert_array_equal(model(), [2.5] * 3)
        np.testing.assert_array_equal(model.state()["n"], [3] * 3)
    np.testing.assert_array_equal(n.numpy(), [2] * 3)
    n.set([7, 8, 9])
    count.load_state(path)
    np.testing.assert_array_equal(n.numpy(), [2] * 3)
    count.restore({"n": [1, 2, 3]})
    np.testing.assert_array_equal(count(), [1.5, 2.5, 3.5])
    from safetensors.numpy import load_file

    assert load_file(path)["n"].dtype == np.float16
    with pytest.raises(ValueError, match="state `n` is fp16\\[3\\], got "):
        count.restore({"n": np.ones(4)})
    with pytest.raises(ValueError, match="state `m` is not read or changed"):
        count.restore({"m": np.ones(3)})
    with pytest.raises(FileNotFoundError):
        count.load_state(tmp_path / "none")
    path.write_bytes(b"\x00" * 100)
    with pytest.raises(ValueError, match="state.safetensors"):
        count.load_state(path)
    np.testing.assert_array_equal(n.numpy(), [2, 3, 4])


def test_a_view_looks_at_state_and_stays() -> None:
    n = af.state((2,), init=[1, 2])
    step = af.compile((), carry={n: n * 2.0})
    view = n.view()
    step.execute()
    np.testing.assert_array_equal(view, [2, 4])
    view[:] = 10
    assert step() == ()
    np.testing.assert_array_equal(n.numpy(), [20, 20])
    assert step.copied() == 8


def test_two_states_become_each_other() -> None:
    a, b = af.state((1,), "a", 1.0), af.state((1,), "b", 2.0)
    swap = af.compile([], carry={a: b, b: a})
    swap()
    assert (a.numpy(), b.numpy()) == (2, 1)
    swap()
    assert (a.numpy(), b.numpy()) == (1, 2)


def test_state_outlives_its_name_in_python() -> None:
    def build() -> af.Tensor:
        return af.state((2,), "hidden", 3.0) + 1.0

    np.testing.assert_array_equal(af.compile(build())(), [4, 4])


def test_measuring_leaves_state_alone() -> None:
    s = af.state((4,), "s")
    model = af.compile((), carry={s: s + 1.0})
    model()
    model.profile(calls=3)
    np.testing.assert_array_equal(s.numpy(), [1] * 4)


def test_state_files_may_lie_anyhow(tmp_path) -> None:
    s = af.state((2,), "a")
    model = af.compile(s * 1.0)
    for padding in ("", " ", "  ", "       "):
        head = json.dumps({"a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}}) + padding
        path = tmp_path / "odd.safetensors"
        path.write_bytes(struct.pack("<Q", len(head)) + head.encode() + b"\x00\x3c\x00\x40")
        model.load_state(path)
        np.testing.assert_array_equal(model(), [1, 2])
        s.set(0)


def test_states_pickle_with_what_reads_them(tmp_path) -> None:
    s = af.state((2,), "kept", [1.0, 2.0])
    out, again = pickle.loads(pickle.dumps((s * 3.0, s)))
    assert repr(again) == 'State("kept", fp16[2], device host)'
    step = af.compile(out, carry={again: again + 1.0})
    np.testing.assert_array_equal(step(), [3, 6])
    np.testing.assert_array_equal(again.numpy(), [2, 3])
    # In one process, it is the same state; in another, a new one with these values.
    np.testing.assert_array_equal(s.numpy(), [2, 3])
    path = tmp_path / "pickled"
    path.write_bytes(pickle.dumps((s * 3.0, s)))
    code = "import pickle, sys, aneforge as af; out, s = pickle.load(open(sys.argv[1], 'rb')); print(af.compile(out)(), s.numpy())"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "[6. 9.] [2. 3.]\n"
    assert copy.copy(s) is s and copy.deepcopy(s) is s


def test_saved_models_begin_with_zeros(tmp_path) -> None:
    s = af.state((2,), "s", 5.0)
    model = af.compile(s * 1.0, carry={s: s + 1.0})
    model.save(tmp_path / "model.aneforge")
    loaded = af.load_model(tmp_path / "model.aneforge")
    np.testing.assert_array_equal(loaded(), [0, 0])
    loaded.restore(model.state())
    np.testing.assert_array_equal(loaded(), [5, 5])
    np.testing.assert_array_equal(loaded.state()["s"], [6, 6])


def test_cached_models_share_state(tmp_path) -> None:
    s = af.state((1,), "s")
    one, two = (af.compile((), carry={s: s + 1.0}, cache=tmp_path) for _ in range(2))
    one()
    two()
    assert s.numpy() == 2


def test_tuned_graphs_read_state() -> None:
    s = af.state((1, 4), "s", 2.0)
    np.testing.assert_array_equal(af.tune(s * 2.0, reps=1)(), [[4, 4, 4, 4]])
    np.testing.assert_array_equal(s.numpy(), [[2, 2, 2, 2]])


def test_mistakes_are_told() -> None:
    x, s = af.input((2,)), af.state((2,), "s")
    with pytest.raises(ValueError, match="carry: only state and parameters are carried, and this input is fed"):
        af.compile(x, carry={x: x * 2.0})
    with pytest.raises(ValueError, match="a state of fp16\\[2\\] cannot become fp16\\[1, 2\\]"):
        af.compile(x, carry={s: x.reshape((1, 2))})
    with pytest.raises(TypeError, match="carry must be a dict"):
        af.compile(x, carry=[(s, x)])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="has ndarray"):
        af.compile(x, carry={s: np.ones(2)})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="opt=2 measures graphs without state"):
        af.compile(x, carry={s: x}, opt=2)
    with pytest.raises(ValueError, match="out is empty"):
        af.compile([])
    with pytest.raises(ValueError, match="takes an array of shape \\[2\\]"):
        s.set(np.ones(3))
    s.set(7)
    with pytest.raises(ValueError, match="state: would hold 1e6 at element 0, and half precision ends at 65504"):
        s.set(1e6)
    with pytest.raises(ValueError, match="state: would hold NaN at element 1, which engines do not keep"):
        s.set([1.0, np.nan])
    np.testing.assert_array_equal(s.numpy(), [7, 7])
    keeps = af.compile(s * 1.0)
    with pytest.raises(ValueError, match="state `s` would hold 1e30 at element 0, and half"):
        keeps.restore({"s": np.full(2, 1e30)})
    with pytest.raises(ValueError, match="state `s` would hold NaN"):
        keeps.restore({"s": np.full(2, np.nan, np.float16)})
    for wrong in (None, {1: np.ones(2)}):
        with pytest.raises(TypeError, match="restore: values must be a dict of arrays by name"):
            keeps.restore(wrong)  # type: ignore[arg-type]
    np.testing.assert_array_equal(s.numpy(), [7, 7])
    with pytest.raises(TypeError, match="state: shape must be a sequence of integers"):
        af.state("ab")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="state: a name has at least one letter"):
        af.state((2,), "")
    with pytest.raises(ValueError, match="takes 1 input, got 2"):
        af.compile(s + x, carry={s: x})(np.ones(2), np.ones(2))


def test_state_is_given_by_name_or_tensor() -> None:
    x, s = af.input((1,), name="x"), af.state((1,), "s")
    model = af.compile(s + x, carry={s: s + x})
    assert model(x=[1], s=[10]) == 11
    assert model(np.ones(1)) == 12
    assert model.input_names == ["x"]


def test_multi_models_go_by_port() -> None:
    x, w = af.input((2, 4)), af.input((2, 4))
    model = af.compile_multi([x + w, x * w])
    assert [tensor for tensor, _ in model.input_ports] == [x, w]
    assert isinstance(model, af.graph.MultiModel) and af.graph.compile is af.compile
    a, b = RNG.standard_normal((2, 2, 4)).astype(np.float16)
    results = model(a, b)
    names = [name for _, name in model.output_ports]
    assert list(results) == names
    np.testing.assert_array_equal(results[names[0]], (a + b).astype(np.float32))
    np.testing.assert_array_equal(results[names[1]], (a * b).astype(np.float32))
    feeds = dict(zip([name for _, name in model.input_ports], (b, b)))
    np.testing.assert_array_equal(model.prog.eval(feeds)[names[0]], (b + b).astype(np.float32))
    with pytest.raises(ValueError, match="there is no input port 'no'"):
        model.prog.set_input("no", a)
    with pytest.raises(NotImplementedError, match="1 native layer and"):
        af.compile_multi([af.sort(x)])


def test_an_output_is_the_input_of_the_next_run() -> None:
    n, x = af.input((3,)), af.input((3,))
    model = af.compile_multi([n + 1.0, n * x])
    (_, n_port), (_, x_port) = model.input_ports
    (_, next_port), (_, product) = model.output_ports
    program = model.prog
    program.share_buffer(0, next_port, 0, n_port)
    program.set_input(n_port, np.zeros(3))
    program.set_input(x_port, np.full(3, 10))
    for at in range(1, 6):
        program.execute()
        np.testing.assert_array_equal(program.read_output(next_port), [at] * 3)
        np.testing.assert_array_equal(program.read_output(product), [10 * (at - 1)] * 3)
    program.input_view(x_port)[:] = 2
    program.execute()
    np.testing.assert_array_equal(program.output_view(product), [10] * 3)
    with pytest.raises(ValueError, match="src_op must be 0"):
        program.share_buffer(1, next_port, 0, n_port)
    with model.prog:
        pass
    with pytest.raises(RuntimeError, match="released"):
        program.execute()
