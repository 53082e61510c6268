"""Flax networks: spaces without any, and convolutions of either kind."""

import functools

import jax
import numpy as np
import pytest

from fnas_jax.networks import flax_reference
from fnas_jax.spaces import categorical, mnas
from fnas_jax.spaces.widen import widen
from tests.networks.agreement import filled

MNAS = mnas.make(blocks=2, strides=(1, 2), width=0.5, stem=16, stem_stride=1, head=16)


def test_a_space_without_networks_is_refused():
    space = categorical.make((2, 3))
    for call in (
        lambda: flax_reference.build(space, [0, 0], 10),
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
