"""Spaces for images of any size have a last feature map that is neither a pixel nor a picture."""

from fnas_jax.core import config as config_lib
from fnas_jax.planning import layout
from fnas_jax.registry import build_space


def last_side(side, space):
    """Pixels of the last feature map; convolutions with stride 2 round up."""
    for stride in (space.spec.stem_stride, *space.spec.strides):
        side = -(-side // stride)
    return side


def test_the_last_feature_map_has_four_to_eight_pixels():
    for side in [*range(4, 130), 160, 192, 224, 256]:
        flat = config_lib.flatten(config_lib.default()) | layout.of_side(side)
        space = build_space(config_lib.validate(config_lib.nest(flat)))
        assert 4 <= last_side(side, space) <= 8


def test_sizes_that_everybody_knows():
    assert layout.of_side(28)["space.strides"] == (1, 2, 1, 2, 1)
    assert layout.of_side(32)["space.strides"] == (1, 2, 1, 2, 1, 2, 1)
    assert layout.of_side(8)["space.strides"] == (1, 2, 1)
    assert layout.of_side(28)["space.stem_stride"] == 1
    assert layout.of_side(64)["space.stem_stride"] == 2
    assert layout.of_side(224) == {}  # MobileNetV2's own
