"""Features beside the codes of decisions: they count for half, and distances keep their mean."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnas_jax.core.types import Features
from fnas_jax.methods import beside, gp_math
from fnas_jax.spaces import base, categorical


def informed(cards, columns, seed=0):
    """A space whose networks all have `columns` random features, standardised over it."""
    space = categorical.make(cards)
    numbers = np.random.default_rng(seed).normal(size=(space.size, columns))
    numbers = ((numbers - numbers.mean(0)) / numbers.std(0)).astype(np.float32)
    weights = base.place_values(space.cardinalities)
    names = tuple(f"number {i}" for i in range(columns))
    known = Features(names, lambda archs: jnp.asarray(numbers)[archs @ weights], "{}")
    return space._replace(features=known), numbers


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(2, 4), min_size=1, max_size=4), st.integers(1, 5))
def test_half_of_the_mean_squared_distance_is_the_features(cards, columns):
    space, numbers = informed(tuple(cards), columns)
    archs = np.array(list(itertools.product(*map(range, cards))))
    code = beside.one_hot_beside(space, jnp.asarray(archs))
    squared = np.asarray(gp_math.squared_distances(code, code))
    differ = (archs[:, None] != archs).sum(-1)
    mean = sum(1 - 1 / k for k in cards)
    apart = ((numbers[:, None] - numbers) ** 2).sum(-1) / (2 * columns)
    np.testing.assert_allclose(squared, differ + mean * apart, atol=1e-3)
    assert squared.mean() == pytest.approx(2 * mean, rel=1e-3)


def test_without_features_the_code_is_that_of_the_decisions():
    space = categorical.make((3, 2))
    archs = jnp.asarray(base.enumerate_all(space))
    code = beside.one_hot_beside(space, archs)
    np.testing.assert_array_equal(code, base.one_hot(space.cardinalities, archs))
