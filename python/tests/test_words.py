"""Names and words that are given: in any case, with blanks, and with what no text has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aneforge as af
import numpy as np
import pytest

TINY = str(Path(__file__).parents[2] / "tests" / "models" / "tiny-bert")
LONE = "\udcff"
X = af.input((2,))
Y = X.relu()
IMAGE = af.input((1, 3, 4, 4))
KERNEL = np.ones((2, 3, 3, 3), np.float32)


def image() -> Any:
    return af.compile(af.input((2,), name="image") * 2.0)


NO_TEXT = {
    r"unknown target `\\udcff`; known are m1 to m5": lambda: af.compile(Y, target=LONE),
    r"unknown target `\\udcff`; known": lambda: af.eval(Y, {X: [1, 2]}, target=LONE),
    r"unknown target `\\udcff`": lambda: af.estimate(Y, target=LONE),
    r"unknown target `\\udcff`;": lambda: af.estimate_provenance(LONE),
    r"unknown target `\\udcff`;?": lambda: af.estimate_report(Y, target=LONE),
    r"unknown target `\\udcff`; ": lambda: af.project_peak(LONE),
    r"unknown target `\\udcff`; k": lambda: af.load(TINY, target=LONE),
    r"unknown device `\\udcff`": lambda: af.compile(Y, device=LONE),
    r"unknown device `\\udcff`;? ?": lambda: af.load(TINY, device=LONE),
    r"numerics is no text in UTF-8, got '\\udcff'": lambda: af.compile(Y, numerics=LONE),
    r"compile: norms must be .* got '\\udcff'": lambda: af.compile(Y, norms=LONE),
    r"load: pooling must be .* got '\\udcff'": lambda: af.load(TINY, pooling=LONE),
    r"there is no directory `\\udcff`": lambda: af.load(LONE),
    r"chip `\\udcff` is unknown": lambda: af.ops_on(LONE),
    r"chip `\\udcff` is unknown;": lambda: af.device_status("relu", LONE),
    r'input: dtype must be "fp16" or "uint8", got "\\udcff"': lambda: af.input((2,), LONE),
    r"input: .*\\udcff": lambda: af.input((2,), name=LONE),
    r"compile: the name '\\udcff' of a result is no text": lambda: af.compile({LONE: Y}),
    r"name one of the model's .*image; got \\udcff": lambda: image()(**{LONE: [1, 2]}),
    r"name one of the model's .*image; got \\udcff$": lambda: image().input_view(LONE),
    r"output_view: index must be 0; got '\\udcff'": lambda: image().output_view(LONE),
    r"text 0 has a lone surrogate, which is no character": lambda: af.load(TINY)(LONE),
    r"text 1 has a lone surrogate": lambda: af.load(TINY)(["a", LONE]),
    r"unknown op `\\udcff`": lambda: af.Tensor((2,), LONE, (), {}),
    r"relu: there is no attribute `\\udcff`": lambda: af.Tensor((2,), "relu", (X,), {LONE: 1}),
    r"minmax_norm: dimension must be .*\\udcff": lambda: af.minmax_norm(IMAGE, LONE),
    r"astype: '\\udcff' is no text in UTF-8": lambda: X.astype(LONE),
    r"compile: opt must be .* got '\\udcff'": lambda: af.compile(Y, opt=LONE),
}


@pytest.mark.parametrize("message", NO_TEXT)
def test_lone_surrogates_are_words_that_nobody_knows(message: str) -> None:
    with pytest.raises((ValueError, TypeError, OSError), match=f"^{message}") as caught:
        NO_TEXT[message]()
    assert not isinstance(caught.value, UnicodeError)


@pytest.mark.parametrize("change", [str.upper, str.title, lambda word: f"  {word}\t"], ids=["upper", "title", "blanks"])
def test_words_count_in_any_case_and_with_blanks(change: Any) -> None:
    taken = {"target": "h14", "device": "host", "numerics": "ieee", "sums": "fast", "norms": "robust", "opt": "routes"}
    words = {option: change(word) for option, word in taken.items()}
    assert repr(af.compile(Y, **words)) == repr(af.compile(Y, **taken))
    assert repr(af.compile(Y, isa=change("scalar"))) == repr(af.compile(Y, isa="scalar"))
    assert af.load(TINY, pooling=change("max")).pooling == "max"
    assert af.input((2,), change("uint8")).dtype == "uint8"
    assert af.ops_on(change("m1"), change("bridge")) == af.ops_on("m1", "bridge")


@pytest.mark.parametrize("opt", ["MAX", "Max "])
def test_measuring_is_asked_for_in_any_case(opt: str) -> None:
    with pytest.raises(ValueError, match="compile: opt=2 measures one result"):
        af.compile([Y, X + 1.0], opt=opt)


@pytest.mark.parametrize("name", ["a13", "A14", " a15 ", "a16", "A17"])
def test_families_have_arithmetic_and_are_no_targets(name: str) -> None:
    why = f"^unknown target `{name.strip().lower()}`, which is a family of chips and not one of them; known are m1 to m5"
    with pytest.raises(ValueError, match=why):
        af.compile(Y, target=name)
    assert af.compile(Y, numerics=name).numerics


@pytest.mark.parametrize("name", ["h11", "H12", "m9"])
def test_chips_without_programs_have_no_arithmetic(name: str) -> None:
    why = rf"^unknown numerics `{name}` \(a chip that is older than A13, and runs no program\); known are"
    with pytest.raises(ValueError, match=why):
        af.compile(Y, numerics=name)


PADS = {
    "conv": lambda pad: af.conv(IMAGE, KERNEL, pad=pad),
    "conv_transpose": lambda pad: af.conv_transpose(IMAGE, KERNEL.reshape(3, 2, 3, 3), pad=pad),
    "dynamic_conv": lambda pad: af.dynamic_conv(IMAGE, af.input((2, 3, 3, 3)), pad=pad),
    "max_pool": lambda pad: IMAGE.max_pool(3, pad=pad),
    "avg_pool": lambda pad: IMAGE.avg_pool(3, pad=pad),
}


@pytest.mark.parametrize("name", PADS)
def test_words_for_padding_are_refused_with_the_number(name: str) -> None:
    for word in ("same", "VALID"):
        why = rf"^{name}: pad must be one integer or \(top, bottom, left, right\), got '{word}'; .*dilation \* \(k - 1\)"
        with pytest.raises(TypeError, match=why):
            PADS[name](word)
    assert PADS[name](1).shape[2] in (2, 4), "one of them keeps the extents"
    with pytest.raises(TypeError, match="^max_pool: k must be an integer, got '22'"):
        IMAGE.max_pool("22")


def test_a_dict_of_feeds_says_how_it_is_fed() -> None:
    model = image()
    for feeds in ({"image": [1, 2]}, {}):
        with pytest.raises(TypeError, match=r"got a dict; .*model\(\*\*feeds\), with the names image"):
            model(feeds)
    np.testing.assert_array_equal(model(**{"image": [1, 2]}), [2, 4])
