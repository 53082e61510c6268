"""Flax networks: widths, references, and convolutions of either kind."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.networks import flax_reference
from fnas_jax.networks.cost import cost
from fnas_jax.spaces import categorical, cell, macro, mnas
from fnas_jax.spaces.widen import widen
from tests.networks.agreement import filled

MNAS = mnas.make(blocks=2, strides=(1, 2), width=0.5, stem=16, stem_stride=1, head=16)
SPACES = {"mnas": MNAS, "macro": macro.make(), "cell": cell.make()}


@pytest.mark.parametrize("name", SPACES)
def test_reference_is_the_narrowest_of_enough_cost(name):
    space, image = SPACES[name], (16, 16, 3)
    arch = flax_reference.reference_arch(space)
    one = float(cost(space, image, 10)(arch[None])[1][0]) / 1e6
    width, mflops, params_m = flax_reference.reference(space, 10, 0.5 * one, image)
    assert (mflops, width) == (pytest.approx(one), 1.0)
    width, mflops, params_m = flax_reference.reference(space, 10, 2.5 * one, image)
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
        flax_reference.reference(MNAS, 10, 1e9, (8, 8, 1))


def test_a_space_without_networks_is_refused():
    space = categorical.make((2, 3))
    for call in (
        lambda: flax_reference.build(space, [0, 0], 10),
        lambda: flax_reference.reference_arch(space),
        lambda: widen(space, 2.0),
    ):
        with pytest.raises(ValueError, match="has no networks"):
            call()


def test_fast_convolutions_change_neither_parameters_nor_results():
    blocks = [(0, 0, 1, 1, 0, 1, 0), (2, 0, 0, 0, 1, 1, 0)]  # a 5x5 convolution, a bottleneck
    images = jax.random.normal(jax.random.key(0), (4, 5, 7, 2))
    modules = [flax_reference.build(MNAS, np.ravel(blocks), 3, fast=fast) for fast in (True, False)]
    shapes, same = (
        jax.eval_shape(functools.partial(m.init, train=False), jax.random.key(1), images)
        for m in modules
    )
    assert shapes == same
    variables = filled(shapes)

    @jax.jit
    def run(params):
        def loss(params, module):
            of = variables | {"params": params}
            logits, new = module.apply(of, images, train=True, mutable=["batch_stats"])
            return (logits**2).sum(), (logits, new)

        return [jax.grad(loss, has_aux=True)(params, module) for module in modules]

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
        *run(variables["params"]),
    )
