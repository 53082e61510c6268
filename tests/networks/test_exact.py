"""The network of one child that reads its part of the elastic parameters, against Flax's."""

import functools

import jax
import jax.numpy as jnp
import pytest

from fnas_jax.layers.choose import exact_in
from fnas_jax.networks import elastic, flax_reference, mobile, subnet_weights
from fnas_jax.networks.dense import Dense
from tests.networks import agreement
from tests.networks.agreement import CHANNELS, CLASSES, SPACES


@functools.cache
def case(name, outputs=CLASSES, children=None):
    """Of the architectures with every choice, each by a network of its own."""
    space = SPACES[name]
    archs = agreement.every_choice(space)[:children]
    shared = agreement.network(space, "reference", outputs)
    params, stats = agreement.weights(shared, archs[0])
    images = jax.random.normal(jax.random.key(1), (8, 5, 7, CHANNELS))
    ours, whole, flax = [], [], []
    for arch in archs:
        net = elastic.exact_network(space, CHANNELS, outputs, arch)
        assert net.apply.args[0].backend is exact_in(jnp.float32)
        of = agreement.elastic_outcomes(space, net, params, stats, [arch], [images])
        ours, whole = ours + of[0], whole + of[1]
        module = flax_reference.build(space, arch, outputs, fast=False)
        flax.append(
            agreement.run_flax(module, subnet_weights.get(space, arch, params, stats), images)
        )
    return agreement.Case(ours, whole, flax)


@pytest.mark.parametrize("check", agreement.CHECKS)
def test_a_child_equals_its_flax_network(check):
    check(case("macro", children=1))


@pytest.mark.slow
@pytest.mark.parametrize("check", agreement.CHECKS)
@pytest.mark.parametrize("outputs", [CLASSES, Dense(CLASSES)], ids=["classes", "pixels"])
@pytest.mark.parametrize("name", ["mnas", "macro", "mobilenetv3", "layered"])
def test_children_of_every_space_equal_their_flax_networks(name, outputs, check):
    check(case(name, outputs))


def test_the_parameters_are_those_of_all_children():
    space = SPACES["mnas"]
    arch = agreement.every_choice(space)[0]
    net = elastic.exact_network(space, CHANNELS, CLASSES, arch)
    shared = mobile.network(mobile.elastic(space.spec, CHANNELS, CLASSES, exact_in(jnp.float32)))
    first, second = (agreement.weights(of, arch) for of in (net, shared))
    agreement.assert_close(first, second, 0)
