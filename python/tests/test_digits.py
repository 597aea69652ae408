"""The digits that the demo reads: the data is what its provenance says, and the weights are as good as they claim.

This needs NumPy and scikit-learn only, so that it judges the file and not the engine.
"""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

PATH = Path(__file__).resolve().parents[2] / "crates" / "cli" / "assets" / "digits.safetensors"


@pytest.fixture(scope="module")
def digits():
    """Metadata and arrays of the file."""
    data = PATH.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__")
    dtypes = {"U8": np.uint8, "F16": np.float16}

    def array(entry):
        start, end = (8 + size + offset for offset in entry["data_offsets"])
        return np.frombuffer(data[start:end], dtypes[entry["dtype"]]).reshape(entry["shape"])

    return metadata, {name: array(entry) for name, entry in header.items()}


def conv(x, weight, bias):
    """A 3x3 convolution of `[N, C, 8, 8]` with one cell of zeros around it."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.einsum("nchwij,ocij->nohw", windows, weight, optimize=True) + bias[:, None, None]


def predict(w, pixels):
    relu = lambda v: np.maximum(v, 0)
    x = pixels[:, None].astype(np.float32) / 16
    x = relu(conv(x, w["conv1.weight"], w["conv1.bias"]))
    x = relu(conv(x, w["conv2.weight"], w["conv2.bias"]))
    x = x.reshape(len(x), 32, 4, 2, 4, 2).max((3, 5)).reshape(len(x), 512)
    x = relu(x @ w["fc1.weight"].T + w["fc1.bias"])
    return (x @ w["fc2.weight"].T + w["fc2.bias"]).argmax(1)


def test_the_data_is_the_published_one(digits):
    _, arrays = digits
    published = load_digits()
    assert (arrays["images"] == published.images).all()
    assert (arrays["labels"] == published.target).all()


def test_the_weights_are_as_accurate_as_the_file_says(digits):
    metadata, arrays = digits
    held_out = np.arange(len(arrays["labels"])) % 5 == 0
    weights = {name: array.astype(np.float32) for name, array in arrays.items() if "." in name}
    correct = predict(weights, arrays["images"][held_out]) == arrays["labels"][held_out]
    assert held_out.sum() == int(metadata["test_images"]) == 360
    # A tie may fall either way in another order of sums.
    assert abs(correct.sum() - int(metadata["test_correct_fp16_weights"])) <= 1
    assert correct.mean() >= 0.98


def test_the_file_is_small_and_says_where_it_is_from(digits):
    metadata, _ = digits
    assert PATH.stat().st_size < 300_000
    assert "CC BY 4.0" in metadata["licence"]
    assert "Alpaydin" in metadata["citation"] and "1998" in metadata["citation"]
    assert "UCI" in metadata["source"]
