"""The reference network that winners are compared with."""

import jax
import jax.numpy as jnp
import pytest

from fnas_jax.networks import flax_reference
from fnas_jax.networks.cost import cost
from fnas_jax.spaces import categorical, cell, macro, mnas
from fnas_jax.spaces.widen import widen
from fnas_jax.tasks import winner

MNAS = mnas.make(blocks=2, strides=(1, 2), width=0.5, stem=16, stem_stride=1, head=16)
SPACES = {"mnas": MNAS, "macro": macro.make(), "cell": cell.make()}


@pytest.mark.parametrize("name", SPACES)
def test_reference_is_the_narrowest_of_enough_cost(name):
    space, image = SPACES[name], (16, 16, 3)
    arch = winner.reference_arch(space)
    one = float(cost(space, image, 10)(arch[None])[1][0]) / 1e6
    width, mflops, params_m = winner.reference(space, 10, 0.5 * one, image)
    assert (mflops, width) == (pytest.approx(one), 1.0)
    width, mflops, params_m = winner.reference(space, 10, 2.5 * one, image)
    params, macs = cost(widen(space, width), image, 10)(arch[None])
    assert (mflops, params_m) == (pytest.approx(macs[0] / 1e6), pytest.approx(params[0] / 1e6))
    assert mflops >= 2.5 * one
    narrower = cost(widen(space, round(width - 0.05, 2)), image, 10)(arch[None])[1][0]
    assert narrower / 1e6 < 2.5 * one
    module = flax_reference.build(space, arch, 10, width)
    shapes = jax.eval_shape(
        lambda: module.init(jax.random.key(0), jnp.zeros((1, *image)), train=False)
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == params[0]


def test_no_reference_is_wide_enough_for_everything():
    with pytest.raises(ValueError, match="no reference network"):
        winner.reference(MNAS, 10, 1e9, (8, 8, 1))


def test_a_space_without_networks_has_no_reference():
    with pytest.raises(ValueError, match="has no networks"):
        winner.reference_arch(categorical.make((2, 3)))
