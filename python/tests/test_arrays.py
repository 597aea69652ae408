"""Arrays as NumPy has them: unaligned, in another byte order, strided, of other types."""

import aneforge as af
import ml_dtypes
import numpy as np
import pytest

VALUES = np.array([[1.0, -2.0, 3.0], [0.5, 100.0, -0.25]])


def unaligned(dtype):
    raw = np.zeros(VALUES.size * np.dtype(dtype).itemsize + 1, np.uint8)
    array = np.frombuffer(raw.data, dtype, offset=1).reshape(VALUES.shape)
    array[:] = VALUES
    assert not array.flags.aligned
    return array


def packed_field(dtype):
    rows = np.zeros(VALUES.shape, np.dtype([("flag", "i1"), ("value", dtype)]))
    rows["value"] = VALUES
    return rows["value"]


FORMS = {
    "unaligned": unaligned,
    "field of a packed struct": packed_field,
    "big-endian": lambda dtype: VALUES.astype(np.dtype(dtype).newbyteorder(">")),
    "Fortran order": lambda dtype: np.asfortranarray(VALUES.astype(dtype)),
    "reversed": lambda dtype: VALUES[::-1, ::-1].astype(dtype)[::-1, ::-1],
    "every second": lambda dtype: np.repeat(VALUES.astype(dtype), 2, axis=1)[:, ::2],
    "read-only": lambda dtype: np.broadcast_to(VALUES.astype(dtype), VALUES.shape),
}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_array_is_fed_and_is_a_constant(form, dtype):
    array = FORMS[form](dtype)
    x = af.input((2, 3))
    np.testing.assert_array_equal(af.compile(x * 1.0 + 0.0)(array), VALUES)
    np.testing.assert_array_equal(af.compile(x + array)(np.zeros((2, 3))), VALUES)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_array_is_a_weight(form, dtype):
    x = af.input((2, 2))
    np.testing.assert_array_equal(af.compile(x @ FORMS[form](dtype))(np.eye(2)), VALUES)
    x = af.input((1, 3))
    np.testing.assert_array_equal(af.compile(x.linear(FORMS[form](dtype)))(np.eye(3)[1:2]), VALUES[:, 1:2].T)


@pytest.mark.parametrize("dtype", [">i2", "i8", ">u4", "u8", "bool", "i1"])
def test_integers_are_fed_and_are_constants(dtype):
    array = np.array([1, 0, 7]).astype(dtype)
    x = af.input((3,))
    np.testing.assert_array_equal(af.compile(x + 0.5)(array), array.astype(float) + 0.5)
    np.testing.assert_array_equal(af.compile(x + array)(np.zeros(3)), array.astype(float))


@pytest.mark.parametrize("dtype", ["bool", ">i4", "u8"])
def test_byte_ports_take_small_integers(dtype):
    image = af.image_input((1, 1, 1, 3), scale=1.0)
    array = np.array([1, 0, 1]).reshape(1, 1, 1, 3).astype(dtype)
    np.testing.assert_array_equal(af.compile(image * 1.0 + 0.0)(array).ravel(), [1, 0, 1])


@pytest.mark.parametrize("dtype", [">i2", "i8", ">u4", "u8", "bool", "i1", "longdouble"])
def test_integers_are_weights(dtype):
    array = np.array([1, 0, 1]).astype(dtype)
    x, feed = af.input((2, 3)), np.arange(6.0).reshape(2, 3)
    column, row = array[:, None], array[None]
    want = feed @ np.array([[1.0], [0.0], [1.0]])
    np.testing.assert_array_equal(af.compile(x @ column)(feed), want)
    np.testing.assert_array_equal(af.compile(x @ column.tolist())(feed), want)
    np.testing.assert_array_equal(af.compile(x.linear(row, array[:1]))(feed), want + 1)
    norm = af.compile(x.layer_norm(array, array) - x.layer_norm(array * 1.0, array * 1.0))
    np.testing.assert_array_equal(norm(feed), 0)
    image, ones = af.input((1, 3, 2, 2)), np.ones((1, 3, 2, 2))
    kernel = row.reshape(1, 3, 1, 1)
    np.testing.assert_array_equal(af.compile(af.conv(image, kernel))(ones), 2)
    normed = af.compile(af.batch_norm(image, array, array, array, np.ones(3, int)))
    np.testing.assert_allclose(normed(ones)[0, :, 0, 0], array.astype(float), atol=1e-3)
    assert x.rms_norm(array).shape == (2, 3)


def test_an_integer_weight_beyond_half_precision_is_named():
    with pytest.raises(ValueError, match="70000"):
        af.compile(af.input((1, 2)) @ np.array([[1], [70000]]))


def test_ragged_lists_name_the_input():
    with pytest.raises(ValueError, match="input 0 is a list that is no array: setting an array element"):
        af.compile(af.input((2, 2)) * 2.0)([[1, 2], [3]])


def test_an_interrupt_in_the_conversion_is_not_lost():
    class Rude:
        def __array__(self, *_, **__):
            raise KeyboardInterrupt

        __buffer__ = __dlpack__ = __array__

    x = af.input((2,))
    for take in (lambda: x + Rude(), lambda: x.linear(Rude()), lambda: af.compile(x)(Rude())):
        with pytest.raises(KeyboardInterrupt):
            take()


def test_an_interrupt_in_what_is_shown_is_not_lost():
    class Rude:
        def __repr__(self):
            raise KeyboardInterrupt

        __str__ = __index__ = __float__ = __repr__

    x = af.input((2, 3))
    takes = (
        lambda: x.softmax(Rude()),
        lambda: af.compile(x).input_view(Rude()),
        lambda: x[Rude()],
        lambda: af.input((Rude(),)),
        lambda: x[:, Rude() :],
    )
    for take in takes:
        with pytest.raises(KeyboardInterrupt):
            take()


def test_an_integer_beyond_half_precision_is_named():
    x = af.input((2,))
    with pytest.raises(ValueError, match="70000"):
        af.compile(x + np.array([1, 70000]))


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "int4"])
def test_numbers_that_are_not_numpys_own_are_real(name):
    array = np.array([[1, -2, 3], [0, 4, -4]]).astype(getattr(ml_dtypes, name))
    x = af.input((2, 3))
    want = array.astype(np.float32)
    np.testing.assert_array_equal(af.compile(x * 1.0)(array), want)
    np.testing.assert_array_equal(af.eval(x + array, {x: np.zeros((2, 3))}), want)
    np.testing.assert_array_equal(af.eval(x.linear(array), {x: np.ones((2, 3))})[0], want.sum(1))


def test_bytes_are_fed_as_a_bytearray_is():
    for dtype in ("uint8", "fp16"):
        x = af.input((3,), dtype=dtype)
        model = af.compile(x.astype("fp16") * 1.0)
        for given in (b"\0\1\xff", bytearray(b"\0\1\xff")):
            np.testing.assert_array_equal(model(given), [0, 1, 255])
    with pytest.raises(ValueError, match=r"input 0 must have shape \[3\], got \[2\]"):
        model(b"12")


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64"])
def test_masked_arrays_are_refused(dtype):
    masked = np.ma.masked_array([1, 2, 3], [False, True, False], dtype=dtype)
    x, image = af.input((3,)), af.input((1, 3, 2, 2))
    kernel = masked.reshape(3, 1, 1, 1)
    takes = {
        "input 0": lambda: af.compile(x * 1.0)(masked),
        "input 0 ": lambda: af.compile(x * 1.0)([1, np.ma.masked, 2]),
        "the operand": lambda: x + masked,
        "the operand ": lambda: [[1.0, 2.0, 3.0], masked] + x,
        "maximum: the constant": lambda: af.maximum(x, masked),
        "linear: W": lambda: x.linear(masked.reshape(1, 3)),
        "matmul: the weight": lambda: x.reshape(1, 3) @ masked.reshape(3, 1),
        "conv: weight": lambda: af.conv(image, kernel, groups=3),
        "conv: bias": lambda: af.conv(image, np.ones((3, 1, 1, 1)), groups=3, bias=masked),
        "rms_norm: gamma": lambda: x.rms_norm(masked),
        "image_input: scale": lambda: af.image_input((1, 3, 2, 2), scale=masked),
        "where: cond": lambda: af.where(masked.astype(bool), x, 0.0),
        "gather: indices": lambda: af.gather(x, masked.astype(int) - 1),
    }
    for place, take in takes.items():
        with pytest.raises(TypeError, match=rf"^{place.strip()} is a masked array, .* as array\.filled\(0\)"):
            take()
    np.testing.assert_array_equal(af.compile(x * 1.0)(masked.filled(0)), [1, 0, 3])


def test_a_list_that_contains_itself_is_an_error():
    endless = []
    endless.append(endless)
    with pytest.raises((TypeError, ValueError)):
        af.input((2,)) + endless


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble", "int32"])
def test_large_arrays_are_converted_piece_by_piece_to_the_same_values(form, dtype, monkeypatch):
    monkeypatch.setattr(__name__ + ".VALUES", np.arange(3 * 1000 * 200.0).reshape(3000, 200) % 2039)
    array = FORMS[form](dtype).reshape(1, 3000, 200) if form != "unaligned" else FORMS[form](dtype)[None]
    x = af.input(array.shape)
    np.testing.assert_array_equal(af.compile(x * 1.0)(array), VALUES[None])
    np.testing.assert_array_equal(af.eval(x + array, {x: np.zeros(array.shape)}), VALUES[None])
