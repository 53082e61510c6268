"""Features beside the codes of decisions: they count for half, and distances keep their mean."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnas_jax import scan
from fnas_jax.core.types import Features
from fnas_jax.methods import beside, gp_math
from fnas_jax.methods.baselines import bananas, gp
from fnas_jax.methods.baselines.config import Bananas, Gp
from fnas_jax.methods.fnas import method as fnas
from fnas_jax.methods.fnas.config import Aeb, Config, Fnas, Uac
from fnas_jax.methods.rl.config import Ppo
from fnas_jax.methods.tnas import method as tnas
from fnas_jax.methods.tnas.config import Tnas
from fnas_jax.spaces import base, categorical
from fnas_jax.tasks import table_index, tables, tabular

TRAINED = 30


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


def _fnas(space, uncertainty):
    config = Config(
        batch=4,
        fnas=Fnas(imagination=0, pool=32),
        uac=Uac(uncertainty=uncertainty, tau=10.0, explore=0.0),
        aeb=Aeb(capacity=64),
        ppo=Ppo(hidden=8),
    )
    return fnas.make(space, config)


METHODS = {
    "gp": lambda space: gp.make(space, Gp(), batch=1, capacity=TRAINED),
    "bananas": lambda space: bananas.make(space, Bananas(), batch=1, capacity=TRAINED),
    "fnas, processes": lambda space: _fnas(space, "gp"),
    "fnas, networks": lambda space: _fnas(space, "ensemble"),
    "tnas": lambda space: tnas.make(tnas.context(space, Tnas(), proposals=1, capacity=TRAINED)),
}


def best_found(space, method, reward):
    """[6] the best `reward` [M] of each of six searches of TRAINED networks."""
    archs = base.enumerate_all(space)
    nan = np.full(len(archs), np.nan, np.float32)
    table = tables.Table("toy", space, archs, reward, reward[:, None], nan, nan, nan, "made up")
    where = table_index.of(table)
    evaluator = tabular.evaluator(table, where, lambda accuracy, *_: accuracy, False)

    def one(key):
        trace = scan.run(method, evaluator, key, TRAINED)[2]
        there = jnp.where(trace.ok & (jnp.cumsum(trace.fresh.sum(1)) <= TRAINED)[:, None], 1, 0)
        return jnp.max(trace.reward * there)

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 6)))


@pytest.mark.parametrize("name", METHODS)
def test_methods_go_by_what_is_known(name):
    """The reward is a feature, and no decision says anything of it."""
    space, numbers = informed((6, 6, 6), 1)
    reward = (0.5 + 0.1 * numbers[:, 0]).astype(np.float32)
    found = best_found(space, METHODS[name](space), reward)
    blind = best_found(space, METHODS[name](space._replace(features=None)), reward)
    best = np.sort(reward)[-1]
    assert np.median(found) >= np.sort(reward)[-2]
    assert (best - found).mean() < 0.3 * (best - blind).mean()
