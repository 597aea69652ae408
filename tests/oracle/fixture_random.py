"""The fixture generator of `aneforge_tensor::random`, in NumPy: the same bits from seed and index."""

import numpy as np

_STREAM = np.uint64(0xD1342543DE82EF95)
_STEP = np.uint64(0x9E3779B97F4A7C15)


def words(seed: int, count: int) -> np.ndarray:
    """The first `count` 64-bit words of stream `seed`."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) * _STREAM + np.arange(1, count + 1, dtype=np.uint64) * _STEP
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def uniform(seed: int, count: int) -> np.ndarray:
    """Uniform in [0, 1), multiples of 2**-24, float32."""
    return (words(seed, count) >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)


def normal(seed: int, shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
    """Close to the standard normal times `scale`, float32: the sum of four 16-bit fields."""
    w = words(seed, int(np.prod(shape, dtype=np.int64)))
    fields = [(w >> np.uint64(16 * i)) & np.uint64(0xFFFF) for i in range(4)]
    total = sum(f.astype(np.uint32) for f in fields).astype(np.float32)
    return ((total - np.float32(131070.0)) * np.float32(2.6429276e-5) * np.float32(scale)).reshape(shape)
