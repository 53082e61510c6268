"""The network of one child that reads its part of the elastic parameters, against Flax's."""

import functools

import jax.numpy as jnp
import pytest

from fnas_jax.layers.choose import exact_in
from fnas_jax.networks import elastic
from fnas_jax.networks.dense import Dense
from tests.networks import agreement
from tests.networks.agreement import CHANNELS, CLASSES, SPACES


@functools.cache
def case(name, outputs=CLASSES, children=None):
    """Of architectures with every choice."""
    archs = agreement.every_choice(SPACES[name])[:children]
    return agreement.case(name, elastic.EXACT, archs, outputs)


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
    assert net.apply.args[0].backend is exact_in(jnp.float32)
    shared = elastic.make(space, CHANNELS, CLASSES, "reference")
    first, second = (agreement.weights(of, arch) for of in (net, shared))
    agreement.assert_close(first, second, 0)
