"""What users of NumPy, PyTorch and MLX type, beside the reference's own names."""

from __future__ import annotations

import array
import copy
import inspect
import pickle
import re
from pathlib import Path
from typing import Any

import aneforge as af
import numpy as np
import pytest
from aneforge import Tensor

A = np.arange(-12, 12, dtype=np.float32).reshape(2, 3, 4) / 2


def of(build: Any, given: np.ndarray = A) -> Any:
    """What `build` makes of an input, fed with `given`."""
    x = af.input(given.shape)
    return af.eval(build(x), {x: given}, device="host")


@pytest.mark.parametrize("right", [0.0, 1, np.float32(-2.5), A[::-1].copy(), A[0, 0].tolist()])
def test_comparisons_are_operators(right: Any) -> None:
    ones = {"gt": A > right, "ge": A >= right, "lt": A < right, "le": A <= right}
    for name, want in ones.items():
        got = of(lambda x, name=name: af.where(getattr(x, f"__{name}__")(right), 1.0, 0.0))
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(of(lambda x: (right < x).astype(np.float16)), right < A)
    np.testing.assert_array_equal(of(lambda x: x.greater(right).astype("fp16")), A > right)


def test_equality_stays_identity() -> None:
    x, y = af.input((2,)), af.input((2,))
    assert (x == y) is False and (x == x) is True and {x: 1}[x] == 1
    with pytest.raises(TypeError, match="a Tensor has no value until"):
        bool(x > 0)
    with pytest.raises(TypeError, match="'<' not supported between"):
        x < "a"  # noqa: B015


def test_where_takes_numbers_and_arrays() -> None:
    np.testing.assert_array_equal(of(lambda x: af.where(x > 0, x, 0.0)), np.where(A > 0, A, 0))
    np.testing.assert_array_equal(of(lambda x: af.where(x > 0, 7, A)), np.where(A > 0, 7, A))
    for condition in (A > 0, (A > 0).tolist()):
        np.testing.assert_array_equal(of(lambda x, c=condition: af.where(c, x, 0.0)), np.where(A > 0, A, 0))
    np.testing.assert_array_equal(af.eval(af.select(A > 0, A, 0.0), device="host"), np.where(A > 0, A, 0))


def test_comparisons_have_values() -> None:
    np.testing.assert_array_equal(of(lambda x: x > 0), A > 0)
    assert of(lambda x: x > 0).dtype == np.bool_ and of(lambda x: {"c": x.equal(x)})["c"].all()
    same, value = of(lambda x: [x.not_equal(x), x])
    assert not same.any() and same.dtype == np.bool_ and value.dtype == np.float32
    np.testing.assert_array_equal(af.eval(af.less([1.0, 3.0], 2.0), device="host"), [True, False])


def test_functions_of_numpy_say_what_to_write() -> None:
    x = af.input((2, 3))
    for function, name in {np.vstack: "concat", np.split: "split", np.cumsum: "cumsum", np.tile: "tile"}.items():
        arguments = {"concat": ([x, x],), "split": (x, 2), "tile": (x, 2)}.get(name, (x,))
        with pytest.raises(TypeError, match=f"numpy.{function.__name__} computes arrays, .*; write af.{name}"):
            function(*arguments)
    assert np.shape(x) == (2, 3) and np.ndim(x) == 2 and np.size(x) == 6
    constant = Tensor((2,), "const_array", (), {"value": np.array([1.0, 2.0])})
    assert np.allclose(constant, [1, 2])


REDUCTIONS = {"sum": np.sum, "mean": np.mean, "amax": np.max, "amin": np.min, "max": np.max, "min": np.min}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name: str) -> None:
    want = REDUCTIONS[name]
    for axis in (None, 1, -1, (0, 2)):
        kept = of(lambda x, axis=axis: getattr(x, name)(axis=axis))
        np.testing.assert_allclose(kept, want(A, axis=axis, keepdims=True), rtol=1e-3)
        dropped = of(lambda x, axis=axis: getattr(af, name)(x, dim=axis, keepdims=False))
        np.testing.assert_allclose(dropped, want(A, axis=axis), rtol=1e-3)
        assert dropped.shape == want(A, axis=axis).shape
    torch = of(lambda x: getattr(x, name)(1, keepdim=False))
    np.testing.assert_allclose(torch, want(A, axis=1), rtol=1e-3)
    with pytest.raises(TypeError, match="axes, axis and dim are names of one argument"):
        getattr(af.input((2,)), name)(0, axis=0)


def test_every_reduction_takes_every_name() -> None:
    for name in ("l1_norm", "reduce_l2_norm", "log_sum", "sum_square", "reduce_log_sum_exp"):
        x = af.input((2, 3))
        for axes in ({"axes": 1}, {"axis": 1}, {"dim": 1}):
            assert getattr(x, name)(**axes).shape == (2, 1)
        assert getattr(x, name)().shape == (1, 1)
        assert getattr(x, name)(axis=0, keepdims=False).shape == (3,)


def test_one_axis_is_also_a_dim() -> None:
    x = af.input((2, 4))
    assert x.softmax(dim=0).attrs["axis"] == 0
    assert x.l2_norm(dim=0).attrs["axis"] == 0
    assert af.concat([x, x], dim=0).shape == (4, 4)
    assert af.stack([x, x], dim=1).shape == (2, 2, 4)
    assert [part.shape for part in af.split(x, 2, dim=1)] == [(2, 2)] * 2
    assert af.gather(x, [0, 2], dim=1).shape == (2, 2)
    assert x.cumsum(dim=1).shape == (2, 4)
    np.testing.assert_array_equal(of(lambda x: x.reverse()), A[::-1, ::-1, ::-1])


def test_shapes() -> None:
    x = af.input((2, 1, 4))
    assert x.flatten().shape == (8,) and x.flatten(1).shape == (2, 4) and x.flatten(0, -2).shape == (2, 4)
    assert af.input(()).flatten().shape == (1,)
    assert af.flatten(x, 1).shape == (2, 4) and af.flatten(x, end_dim=1).shape == (2, 4)
    assert af.flatten(x).shape == (8,)
    for turned in (x.transpose(1, 0, 2), af.transpose(x, 1, 0, 2), x.transpose((1, 0, 2)), x.transpose(perm=[1, 0, 2])):
        assert turned.shape == (1, 2, 4)
    assert x.transpose().shape == x.T.shape == af.transpose(x).shape == (4, 1, 2)
    assert x.unsqueeze(0).shape == (1, 2, 1, 4) and x.unsqueeze(-1).shape == (2, 1, 4, 1)
    assert x.squeeze().shape == (2, 4) and x.squeeze(axis=1).shape == (2, 4)
    assert af.expand_dims(x, axis=0).shape == (1, 2, 1, 4)
    with pytest.raises(ValueError, match=r"flatten: axes 2 to 1 of shape \(2, 1, 4\)"):
        x.flatten(2, 1)
    with pytest.raises(TypeError, match="expand_dims: axes is missing"):
        x.expand_dims()


WIDE = np.arange(5 * 7 * 6, dtype=np.float32).reshape(5, 7, 6)
WINDOWS = [
    np.s_[None], np.s_[:, None], np.s_[..., None], np.s_[0, None, ..., None], np.s_[None, 1:3, None, 0],
    np.s_[..., ::2], np.s_[::2], np.s_[:, ::3], np.s_[:, 1::3], np.s_[:, 2::3], np.s_[1::2, 1:6:2, 1::4],
    np.s_[::-1], np.s_[..., ::-2], np.s_[4:0:-3, ::-1], np.s_[-1, 5:1:-2, None], np.s_[:, :, 5::9], np.s_[:, 6:2:-4],
]  # fmt: skip


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_windows(window: Any) -> None:
    np.testing.assert_array_equal(of(lambda x: x[window], WIDE), WIDE[window])


@pytest.mark.parametrize("step", range(1, 9))
def test_every_step_from_every_place(step: int) -> None:
    values = np.arange(8, dtype=np.float32)
    x = af.input((8,))
    for begin in range(8):
        both = af.eval({"up": x[begin::step], "down": x[begin::-step]}, {x: values}, device="host")
        np.testing.assert_array_equal(both["up"], values[begin::step])
        np.testing.assert_array_equal(both["down"], values[begin::-step])


def test_wrong_windows() -> None:
    x = af.input((2, 3))
    with pytest.raises(ValueError, match="of axis 1, which has 3 elements, must keep at least one"):
        x[:, 2:1]
    with pytest.raises(IndexError, match="3 indices for a tensor of 2 axes"):
        x[0, None, 0, 0]
    for index in (True, [0, 1], np.array([True, False]), 1.0):
        with pytest.raises(TypeError, match="indices are integers, slices, ... and None"):
            x[index]
    with pytest.raises(ValueError, match="rank|axes"):
        af.input((1,) * 8)[None]


def test_methods_are_functions_too() -> None:
    np.testing.assert_array_equal(of(af.relu), np.maximum(A, 0))
    np.testing.assert_array_equal(of(abs), np.abs(A))
    np.testing.assert_array_equal(of(af.abs), np.abs(A))
    np.testing.assert_allclose(of(lambda x: af.softmax(x, dim=-1)).sum(-1), 1, atol=2e-3)
    np.testing.assert_array_equal(of(lambda x: af.matmul(x, np.eye(4, dtype=np.float32))), A)
    np.testing.assert_array_equal(af.eval(af.clip(A, lo=-1.0, hi=1.0), device="host"), A.clip(-1, 1))
    assert list(inspect.signature(af.softmax).parameters)[:2] == ["x", "axis"]
    assert af.relu.__name__ == "relu" and "max(x, 0)" in (af.relu.__doc__ or "")
    methods = {name for name in vars(Tensor) if not name.startswith("_") and inspect.isfunction(getattr(Tensor, name))}
    assert {name for name in methods if not hasattr(af, name)} == {"save"}
    assert af.clamp(A, -1.0, 1.0).shape == A.shape and af.l2_norm(A).shape == A.shape
    assert not {"abs", "max", "min", "pow", "round", "sum", "eval"} & set(af.__all__)


def test_astype() -> None:
    x = af.input((2,), "uint8")
    assert x.astype(np.float16).dtype == "fp16" and x.astype("uint8") is not None
    assert af.input((2,)).astype("fp16").dtype == "fp16"
    np.testing.assert_array_equal(of(lambda x: (x > 1).astype("float16")), A > 1)
    with pytest.raises(TypeError, match="astype: a fp16 tensor can become float16, got int8; graphs compute in half"):
        af.input((2,)).astype(np.int8)


def named() -> tuple[af.Model, np.ndarray]:
    image, mask = af.input((2, 3, 4), name="image"), af.input((4,), name="mask")
    return af.compile({"sum": image + mask, "double": image * 2.0}, device="host"), A[0, 0]


def test_inputs_and_results_have_names() -> None:
    model, mask = named()
    assert (model.input_names, model.output_names) == (["image", "mask"], ["sum", "double"])
    for given in (model(A, mask), model(image=A, mask=mask), model(A, mask=mask), model(mask=mask, image=A)):
        assert list(given) == ["sum", "double"]
        np.testing.assert_array_equal(given["sum"], A + mask)
        np.testing.assert_array_equal(given["double"], A * 2)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(copied(mask=mask, image=A)["sum"], A + mask)
    model.input_view("mask")[:] = 0


def test_wrong_names() -> None:
    model, mask = named()
    with pytest.raises(TypeError, match="its name of image, mask; got picture"):
        model(A, picture=mask)
    with pytest.raises(TypeError, match=r"input 0 \(image\) is given twice"):
        model(A, image=A)
    with pytest.raises(ValueError, match=r"input 1 \(mask\) is not given"):
        model(image=A)
    twice = af.input((2,), name="x") + af.input((2,), name="x")
    with pytest.raises(ValueError, match="input: two inputs are called `x`; give each a name of its own .*test_habits"):
        af.compile(twice, device="host")
    for name in ("", "two words", 'a"b', "a#b", "a\nb"):
        with pytest.raises(ValueError, match="^input: "):
            af.input((2,), name=name)


def test_names_made_for_inputs_avoid_those_given() -> None:
    u, v = af.input((2,)), af.input((2,), name="t0")
    model = af.compile(u - v, device="host")
    assert model.input_names == ["t0_2", "t0"]
    np.testing.assert_array_equal(model(t0=[1, 2], t0_2=[5, 5]), [4, 3])
    native = af.compile([af.sort(af.input((2, 3))), af.sort(af.input((2, 3)))], device="host", opt=0)
    assert len(set(native.input_names)) == 2


def test_warnings_name_the_line_of_the_caller() -> None:
    x = af.input((2,), max_abs=60000.0)
    for judge in (lambda: af.compile(x * 2.0, device="host"), lambda: af.eval(x * 2.0, {x: [1, 1]}, device="host")):
        with pytest.warns(af.PrecisionWarning) as caught:
            judge()
        assert [w.filename for w in caught] == [__file__]
    with pytest.warns(af.PrecisionWarning, match="exp made an infinity") as caught:
        of(lambda x: x.exp(), A * 20)
    assert [w.filename for w in caught] == [__file__]


def test_encoders_are_shown_in_words() -> None:
    tiny = Path(__file__).parents[2] / "tests" / "models" / "tiny-bert"
    assert "32 components, mean of up to 40 tokens" in repr(af.load(tiny, device="host"))


def test_return_dict() -> None:
    x = af.input((2,))
    assert isinstance(af.compile({"y": x.relu()}, device="host", return_dict=False)([1, 2]), tuple)
    with pytest.raises(ValueError, match="compile: return_dict needs names"):
        af.compile(x.relu(), device="host", return_dict=True)


def test_names_live_in_nodes() -> None:
    x = af.input((2,), name="x.0/α")
    assert x.attrs["name"] == "x.0/α"
    assert pickle.loads(pickle.dumps(x.relu())).srcs[0].attrs["name"] == "x.0/α"
    assert Tensor(x.shape, x.op, (), x.attrs).attrs["name"] == "x.0/α"
    assert af.image_input((1, 3, 2, 2), name="photo").srcs[0].srcs[0].attrs["name"] == "photo"


def test_eval() -> None:
    x = af.input((2,), name="x")
    np.testing.assert_array_equal(af.eval(af.matmul([[1.0, 2.0]], [[3.0], [4.0]]), device="host"), [[11]])
    np.testing.assert_array_equal(af.eval(x * 2.0, {"x": [1, 2]}, device="host"), [2, 4])
    np.testing.assert_array_equal(af.eval(x, {x: [1, 2]}, device="host"), [1, 2])
    one, two = af.eval([x + 1.0, x + 2.0], {x: [1, 2]}, device="host")
    np.testing.assert_array_equal([one, two], [[2, 3], [3, 4]])
    with pytest.raises(ValueError, match="expects 1 input|1 input"):
        af.eval(x * 2.0, device="host")


class OnlyDlpack:
    """An array of another library, which NumPy knows by DLPack only."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __dlpack__(self, **options: Any) -> Any:
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.values.__dlpack_device__()


FOREIGN = {
    "dlpack": OnlyDlpack,
    "memoryview": memoryview,
    "array.array": lambda values: array.array("f", values.tolist()),
    "from_dlpack": np.from_dlpack,
    "list": lambda values: values.tolist(),
}


@pytest.mark.parametrize("form", FOREIGN)
def test_arrays_of_others_are_fed_and_are_constants(form: str) -> None:
    values = np.array([1.0, -2.0, 0.5], dtype=np.float32)
    foreign = FOREIGN[form](values)
    x = af.input((3,))
    np.testing.assert_array_equal(af.compile(x * 1.0 + 0.0, device="host")(foreign), values)
    np.testing.assert_array_equal(of(lambda x: x + foreign, values), values * 2)
    np.testing.assert_array_equal(of(lambda x: foreign - x, values), values * 0)
    np.testing.assert_array_equal(of(lambda x: af.maximum(x, foreign), values), values)
    if form != "list":
        image = af.input((1, 1, 1, 1))
        biased = af.conv(image, np.ones((3, 1, 1, 1), np.float32), bias=foreign)
        np.testing.assert_array_equal(af.eval(biased, {image: np.zeros((1, 1, 1, 1))}, device="host").ravel(), values)


def test_results_are_arrays_of_every_protocol() -> None:
    result = of(lambda x: x + 1.0)
    np.testing.assert_array_equal(np.from_dlpack(result), A + 1)
    assert memoryview(result).shape == A.shape


def test_tensors_as_arrays() -> None:
    constant = Tensor((2,), "const_array", (), {"value": np.array([1.0, 2.0])})
    np.testing.assert_array_equal(np.asarray(constant), [1, 2])
    assert np.asarray(constant, dtype=np.float64).dtype == np.float64
    for make in (np.asarray, np.array, np.asanyarray):
        with pytest.raises(TypeError, match=r"Tensor\(relu, shape=\(2,\)\) has no values until .* af.eval\(x, "):
            make(af.input((2,)).relu())
    with pytest.raises(TypeError, match=r"unsupported operand type\(s\) for \+"):
        af.input((2,)) + b"ab"


def test_graphs_in_files(tmp_path: Path) -> None:
    path = tmp_path / "graph.ir"
    x, y = af.input((2, 3), name="x", max_abs=4.0), af.input((3,), name="y")
    weights = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    out = (x + y).linear(weights).softmax()
    out.save(path)
    assert 'name="y"' in path.read_text()
    loaded = af.load_graph(path)
    assert isinstance(loaded, Tensor) and loaded.shape == (2, 5)
    feeds = {"y": np.ones(3), "x": A[0, :2, :3]}
    np.testing.assert_array_equal(af.eval(loaded, feeds, device="host"), af.eval(out, feeds, device="host"))
    af.save_graph([x + 1.0, y], str(path))
    assert [t.shape for t in af.load_graph(str(path))] == [(2, 3), (3,)]
    link = tmp_path / "link.ir"
    link.symlink_to(path)
    out.save(link)
    assert link.is_symlink() and path.read_text().endswith("\n") and not list(tmp_path.glob("*.tmp*"))
    path.write_text("%0 = nonsense\n")
    with pytest.raises(ValueError, match=r"graph.ir: graph text, line 1: expected `\(`"):
        af.load_graph(path)
    path.write_text(
        "@0 : fp16[1, 6] = splat(0.5)\n%0 = input(feed=0) : fp16[1, 1, 2, 3]\n"
        "%1 = const_array(index=0) : fp16[1, 6]\n"
        "%2 = affine(%0, %1, output_h=2, output_w=3) : fp16[1, 1, 2, 3]\nreturn %2\n"
    )
    with pytest.raises(NotImplementedError, match=r"\(at .*/graph\.ir:4\)"):
        af.compile(af.load_graph(path), target="h13")
    with pytest.raises(FileNotFoundError, match="missing.ir"):
        af.load_graph(tmp_path / "missing.ir")


LOOKUPS = {"device_status", "is_native", "min_native_family", "op_info"}
"""Functions that answer None to any name that they do not know."""
PUBLIC = sorted(
    n for n in {*af.__all__, "abs", "sum", "eval"} - LOOKUPS if inspect.isfunction(getattr(af, n))
)


@pytest.mark.parametrize("name", PUBLIC)
def test_wrong_types_name_function_and_argument(name: str) -> None:
    function = getattr(af, name)
    taken = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    if taken:
        with pytest.raises(TypeError) as caught:
            function(*(object() for _ in taken))
        names = "|".join(p.name for p in taken)
        assert re.match(rf"{function.__name__}: ({names}) must be ", str(caught.value)), caught.value


def test_wrong_types_further_on() -> None:
    x, w = af.input((1, 2, 4, 4)), np.ones((2, 2, 1, 1), np.float32)
    wrong = {
        "conv: stride must be an integer, got 'a'": lambda: af.conv(x, w, stride="a"),
        "conv: weight must be an array or a Tensor, got str": lambda: af.conv(x, "w"),
        "einsum_native: equation must be a string, got Tensor": lambda: af.einsum_native(x, x, x),
        "einsum_native: a must be a Tensor, got str": lambda: af.einsum_native("nchw,nwhu->nchu", "a", w),
        "compile: out must be a Tensor, .* got int": lambda: af.compile(3),
        "compile: out must be a Tensor, .* got list": lambda: af.compile([3]),
        "compile: target must be a string or None, got int": lambda: af.compile(x.relu(), target=13),
        "estimate: out must be a Tensor or a sequence of Tensors, got int": lambda: af.estimate(3),
        "compile: norms must be a string, got int": lambda: af.compile(x.relu(), norms=3),
        "compile: return_dict must be True or False or None, got int": lambda: af.compile(x.relu(), return_dict=3),
        "compile: build_dir must be a string, a path or None, got int": lambda: af.compile(x.relu(), build_dir=3),
        "compile: out must be a Tensor, .* got dict with the key 1": lambda: af.compile({1: x}),
        "compile: out must be a Tensor, .* got dict with int under 'y'": lambda: af.compile({"y": 1}),
        "estimate: int8 must be True or False, got str": lambda: af.estimate(x.relu(), "h13"),
        "eval: feeds must be a dict of arrays by input or name, got ndarray": lambda: af.eval(x.relu(), w),
        "layer_norm: eps must be a number, got 'a'": lambda: x.layer_norm(w[0, :, 0, 0], w[0, :, 0, 0], eps="a"),
        "max_pool: k must be an integer": lambda: x.max_pool("2"),
        "linear: W must be an array or a Tensor, got str": lambda: x.linear("w"),
        "reshape: each size must be an integer": lambda: x.reshape("a", 2),
        "load: name must be a string or a path, got int": lambda: af.load(3),
        "input: name must be a string or None, got int": lambda: af.input((2,), name=3),
    }
    for message, build in wrong.items():
        with pytest.raises(TypeError, match=f"^{message}"):
            build()


def test_calls_have_pages() -> None:
    for cls in (af.Model, af.SegmentedModel, af.Encoder):
        page = inspect.getdoc(cls.__call__)
        assert page and "Call self as a function" not in page
        assert cls.__call__.__name__ == "__call__"
    assert "model(image=array)" in (af.Model.__call__.__doc__ or "")


def test_steps_of_truth_values_are_refused_in_words() -> None:
    for shape, index in (((5,), np.s_[::-2]), ((4,), np.s_[::2]), ((2, 4), np.s_[::2, ::2]), ((3, 5), np.s_[:, ::-3])):
        with pytest.raises((TypeError, ValueError), match="takes fp16, got bool"):
            (af.input(shape) > 0)[index]
