"""The MNAS space for images of a size: blocks, strides, stem and head."""

from __future__ import annotations

from typing import Any

from fnas_jax.spaces.mnas import MOBILENET_V2

_LAST = 4  # pixels that the last feature map keeps, at least
LARGE = 48  # pixels from which the stem halves the image
_STAGES = 4  # halvings of MobileNetV2 behind its stem


def halvings(side: int) -> int:
    """How often images of `side` pixels are halved; at most as by MobileNetV2."""
    times = 0
    while side >> (times + 1) >= _LAST and times <= _STAGES:
        times += 1
    return times


def of_side(side: int) -> dict[str, Any]:
    """{key: value} of `space.*` for images whose smaller side has `side` pixels.

    The last feature map has 4 to 7 pixels, as far as MobileNetV2's five halvings go; every second
    block halves the image, and the head has four times the channels of the last block.
    """
    large = side >= LARGE
    behind = halvings(side) - large
    if behind >= _STAGES:
        return {}
    blocks = max(2 * behind + 1, 3)
    strides = tuple(2 if i % 2 and i < 2 * behind else 1 for i in range(blocks))
    return {
        "space.blocks": blocks,
        "space.strides": strides,
        "space.stem": 32 if large else 16,
        "space.stem_stride": 2 if large else 1,
        "space.head": 4 * MOBILENET_V2[blocks - 1][0],
    }
