"""Winners of tiny networks on tiny images, for tests of what becomes of them."""

import functools

import jax
import numpy as np

from fnas_jax import registry
from fnas_jax.core import config as config_lib
from fnas_jax.ship import winner as ship

SIDE, CLASSES = 12, ("apple", "pear", "plum")
# The architectures hold what their spaces have to offer: operations, gates, skips, identities.
SPACES = {
    "mnas": {
        "blocks": 2,
        "strides": (2, 1),
        "width": 0.5,
        "stem": 16,
        "stem_stride": 1,
        "head": 16,
    },
    "macro": {"width": 0.1},
    "cell": {"cell_channels": 4, "cells_per_stage": 1},
    "mixed_cell": {"cell_channels": 4, "cells_per_stage": 1},
    "mixed_chain": {"cell_channels": 4, "cells_per_stage": 1},
    "mobilenetv3": {"stages": 4, "width": 0.25, "strides": (2, 1, 1, 2), "stem_stride": 1},
}
ARCHS = {
    "mnas": "mbconv-e3-k5-se0.25-pool-f1.25-l+0 conv-e3-k3-se0.25-identity-f1-l+1",
    "macro": "10212002",
    "cell": "|nor_conv_3x3~0|+|avg_pool_3x3~0|skip_connect~1|"
    "+|nor_conv_1x1~0|none~1|nor_conv_3x3~2|",
    "mixed_cell": "|nor_conv_1x1&nor_conv_3x3~0|+|none~0|skip_connect&avg_pool_3x3~1|"
    "+|skip_connect&nor_conv_3x3~0|none~1|nor_conv_1x1~2|",
    "mixed_chain": "nor_conv_1x1&nor_conv_3x3/none/skip_connect&nor_conv_3x3&avg_pool_3x3",
    "mobilenetv3": "k3e4-k5e3 k3e3-k7e6-k3e3 k5e3-k3e3 k3e3-k5e4-k3e6-k3e3",
}


def images(count=90, channels=3, seed=0):
    """(uint8 [n, SIDE, SIDE, channels], labels [n]): a bright bar whose place is the class."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    pixels = draw.integers(0, 130, (count, SIDE, SIDE, channels))
    for image, label in zip(pixels, labels, strict=True):
        image[4 * label : 4 * label + 4] += 60
    return pixels.astype(np.uint8), labels


def write_npz(path, channels=3):
    """A data set with names of classes."""
    pixels, labels = images(channels=channels)
    np.savez(path, images=pixels, labels=labels, class_names=np.asarray(CLASSES))
    return path


def config_of(space, data, **children):
    config = config_lib.default()
    config.task.name = f"images/{data}"
    config.space.name = space
    for name, value in SPACES[space].items():
        config.space[name] = value
    config.children.batch_size = 16
    for name, value in children.items():
        config.children[name] = value
    config.winner.steps = 12
    config.winner.reference = False
    config.akp.enabled = False
    config.jax.cache_dir = ""
    return config_lib.validate(config)


@functools.cache
def trained(space, data, **children):
    """(what `ship.keep` takes) of the winner of one space; trained once for all tests."""
    config = config_of(space, data, **children)
    task = registry.build_task(config)
    arch = task.space.parse(ARCHS[space])
    judged = task.final(jax.numpy.asarray(arch), jax.random.key(0))
    return ship.Winner(config, task, judged, 0.5, "main")
