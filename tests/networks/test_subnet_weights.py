"""Children of the MNAS space, and networks of one architecture, equal their Flax networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.networks import elastic, flax_reference, subnet_weights
from fnas_jax.spaces import categorical
from tests.networks import agreement


@pytest.fixture(scope="module")
def case():
    return agreement.case("mnas")


@pytest.mark.parametrize("check", agreement.CHECKS)
def test_elastic_child_equals_flax_network(case, check):
    check(case)


def test_a_space_without_networks_is_refused():
    with pytest.raises(ValueError, match="has no networks"):
        subnet_weights.get(categorical.make((2, 3)), [0, 0], {}, {})


@pytest.mark.parametrize("name", agreement.SPACES)
def test_a_network_of_one_architecture_equals_its_flax_network(name):
    space = agreement.SPACES[name]
    key, shape = jax.random.key(2), (5, 7, agreement.CHANNELS)
    for arch in np.asarray(space.sample(key, 2)):
        net = elastic.fixed_network(space, arch, shape, agreement.CLASSES)
        shapes = jax.eval_shape(lambda net=net, arch=arch: (net.init(key, arch), net.init_stats()))
        params, stats = agreement.filled(shapes)
        images = jax.random.normal(key, (4, *shape))
        wanted, _ = jax.jit(net.apply_eval)(params, stats, arch, images, jnp.bool_(False))
        module = flax_reference.build(space, arch, agreement.CLASSES, fast=False)
        variables = subnet_weights.of_fixed(space, arch, params, stats)
        got = jax.jit(lambda v, x, m=module: m.apply(v, x, train=False))(variables, images)
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
