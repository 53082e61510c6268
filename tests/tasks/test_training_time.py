"""`latency.source=training:..`: what an image takes in training, computed."""

import jax
import numpy as np
import pytest

from fnas_jax import registry
from fnas_jax.core import config as config_lib
from fnas_jax.core.types import UserError
from fnas_jax.networks import cost, sizes
from fnas_jax.tasks import images, latency


def changed(**values):
    flat = {name.replace("__", "."): value for name, value in values.items()}
    return config_lib.nest(config_lib.flatten(config_lib.default()) | flat)


def test_times_of_training_are_computed_from_what_networks_do_and_move():
    config = config_lib.default()
    dataset = images.load(config)
    space = registry.build_space(config)
    source = latency.open_(changed(latency__source="training:2e9:50"), space, dataset)
    archs = np.asarray(space.sample(jax.random.key(3), 4))
    found = source.of(archs)
    for arch, ms in zip(archs, found, strict=True):
        _, macs = cost.one_cost(space, arch, dataset.image_shape, dataset.outputs)
        kept = sizes.by_kernels(space, dataset.image_shape, arch).layers / 4
        assert ms == pytest.approx((macs + 50 * kept) / 2e9 * 1e3, rel=1e-5)
    assert found.dtype == np.float32 and len(np.unique(found)) == 4
    assert source.identity == {"kind": "training:2e9:50"} and not source.is_here
    assert source.described(archs[0]) == {"source": "training", "device": None, "ms": found[0]}


@pytest.mark.parametrize("numbers", ["", "3e9", "a:b", "0:1", "3e9:-1", "nan:1", "3e9:1:2"])
def test_times_of_training_need_two_numbers(numbers):
    config = config_lib.default()
    with pytest.raises(UserError, match=r"training:RATE:MOVED has the multiply-adds"):
        wrong = changed(latency__source=f"training:{numbers}")
        latency.open_(wrong, registry.build_space(config), images.load(config))


def test_times_of_training_are_not_known_of_cells():
    config = changed(space__name="cell", latency__source="training:3e9:50")
    with pytest.raises(UserError, match="'cell' move: it is for mnas, mobilenetv3 and macro"):
        latency.open_(config, registry.build_space(config), images.load(config))
