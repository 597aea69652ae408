"""Functions of images `[N, C, H, W]`: layouts, sizes and warps."""

from __future__ import annotations

from aneforge import _native
from aneforge._native import Tensor
from aneforge._tensor import Array, integer, weight


def pixel_shuffle(x: Tensor, r: int) -> Tensor:
    """Channels to pixels, channel-major: `y[c, h*r + i, w*r + j] = x[c*r*r + i*r + j, h, w]`, as in PyTorch."""
    return _native.apply("pixel_shuffle", [x], {"r": r})


def pixel_unshuffle(x: Tensor, r: int) -> Tensor:
    """Pixels to channels, channel-major: the inverse of `pixel_shuffle`."""
    return _native.apply("pixel_unshuffle", [x], {"r": r})


def depth_to_space(x: Tensor, block_size: int = 2) -> Tensor:
    """Channels to pixels, block-major: `y[c, h*b + i, w*b + j] = x[(i*b + j)*C + c, h, w]`, as in TensorFlow.

    `C` is the number of channels of the result.
    """
    return _native.apply("depth_to_space", [x], {"block_size": block_size})


def space_to_depth(x: Tensor, block_size: int = 2) -> Tensor:
    """Pixels to channels, block-major: the inverse of `depth_to_space`."""
    return _native.apply("space_to_depth", [x], {"block_size": block_size})


def crop(x: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
    """Without this many rows at the top and bottom, and columns at the left and right."""
    return _native.apply("crop", [x], {"crop_height": (top, bottom), "crop_width": (left, right)})


def resize_nearest_neighbor(x: Tensor, target_h: int, target_w: int) -> Tensor:
    """Of another height and width: row `o` of the result is row `o * H // target_h`, columns likewise."""
    return _native.apply("resize_nearest_neighbor", [x], {"target_h": target_h, "target_w": target_w})


def resize_bilinear(x: Tensor, target_h: int, target_w: int, align_corners: bool = False) -> Tensor:
    """Of another height and width, interpolated between the four nearest pixels.

    Row `o` of the result reads at `o * H / target_h`, not beyond the last row, or with `align_corners` at
    `o * (H - 1) / (target_h - 1)`; columns likewise. `upsample_bilinear` has the half-pixel rule.
    """
    attrs = {"target_h": target_h, "target_w": target_w, "align_corners": align_corners}
    return _native.apply("resize_bilinear", [x], attrs)


def upsample_bilinear(x: Tensor, scale: int = 2, align_corners: bool = False) -> Tensor:
    """`scale` times as large, interpolated between the four nearest pixels.

    Row `o` of the result reads at `(o + 0.5) / scale - 0.5`, not beyond the border, or with `align_corners`
    at `o * (H - 1) / (scale * H - 1)`; columns likewise.
    """
    attrs = {"scale": integer("upsample_bilinear: scale", scale), "align_corners": align_corners}
    return _native.apply("upsample_bilinear", [x], attrs)


def affine(
    x: Tensor, transform: Tensor | Array, output_h: int, output_w: int, align_corners: bool = False
) -> Tensor:
    """An image warped by an affine map of its coordinates, interpolated, with zeros around it. Needs A14.

    Args:
        x: `[N, C, H, W]`.
        transform: `[N, 6]` or `[1, 6]` with `a0, a1, a2, b0, b1, b2`: the pixel at `(u, v)`, across and down
            from -1 to 1, reads `x` at `(a0*u + a1*v + a2, b0*u + b1*v + b2)`.
        output_h: the height of the result.
        output_w: the width of the result.
        align_corners: whether -1 and 1 are the centres of the corner pixels instead of the image's edges.
    """
    attrs = {"output_h": output_h, "output_w": output_w, "align_corners": align_corners}
    return _native.apply("affine", [x, weight("affine: transform", transform)], attrs)
