"""Regularised evolution: ageing, tournaments, unusable entries, learning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core.config import default
from fnas_jax.core.types import UserError, propose
from fnas_jax.methods.baselines import evolution
from fnas_jax.methods.baselines.config import Evolution
from tests.methods import toy


def archs_of(*numbers):
    return jnp.array([[n % 3, n % 4, n % 2, 0, 0] for n in numbers], jnp.int32)


def test_the_oldest_leaves_even_if_it_is_the_best():
    method = toy.compiled(evolution.make(toy.SPACE, Evolution(population=3, sample=2), 2))
    state = method.init(jax.random.key(0))
    for first in (0, 2):
        batch = propose(archs_of(first, first + 1))
        state = method.tell(state, batch, toy.metrics([1.0 - first / 10, 0.1]))
    assert int(state.added) == 4
    np.testing.assert_allclose(np.sort(state.rewards), [0.1, 0.1, 0.8])  # 1.0, the first, is gone
    assert float(method.best(state).reward) == 1.0


def test_untrained_entries_are_ignored_and_failed_ones_have_reward_zero():
    method = toy.compiled(evolution.make(toy.SPACE, Evolution(population=4, sample=2), 3))
    state = method.init(jax.random.key(0))
    batch = propose(archs_of(5, 6, 7))._replace(train_mask=jnp.array([True, False, True]))
    state = method.tell(state, batch, toy.metrics([0.5, 0.9, 0.7], [True, True, False]))
    assert int(state.added) == 2
    np.testing.assert_array_equal(state.archs[:2], archs_of(5, 7))
    np.testing.assert_allclose(state.rewards[:2], [0.5, 0.0])


def test_children_are_one_mutation_of_the_best_when_all_compete():
    method = toy.compiled(evolution.make(toy.SPACE, Evolution(population=6, sample=6), 6))
    state = method.init(jax.random.key(0))
    state, random = method.ask(state, jax.random.key(1))
    state = method.tell(state, random, toy.metrics([0.1, 0.2, 0.9, 0.3, 0.2, 0.1]))
    _, children = jax.jit(method.ask)(state, jax.random.key(2))
    distance = np.asarray(children.archs != random.archs[2]).sum(axis=1)
    assert distance.tolist() == [1] * 6


def test_parents_are_the_best_of_samples_without_replacement():
    method = toy.compiled(evolution.make(toy.SPACE, Evolution(population=4, sample=2), 4))
    state = method.init(jax.random.key(0))
    archs = jnp.array([[0] * 5, [1] * 4 + [1], [2, 2, 0, 2, 2], [2, 3, 1, 0, 0]], jnp.int32)
    state = method.tell(state, propose(archs), toy.metrics([0.1, 0.2, 0.3, 0.4]))
    keys = jax.random.split(jax.random.key(3), 500)
    children = jax.vmap(lambda key: method.ask(state, key)[1].archs)(keys).reshape(-1, 5)
    distance = np.asarray((children[:, None] != archs).sum(axis=-1))
    parent = distance.argmin(axis=1)
    # The best of two out of four: 1/2, 1/3, 1/6 and never the worst.
    share = np.bincount(parent, minlength=4) / len(parent)
    np.testing.assert_allclose(share, [0, 1 / 6, 1 / 3, 1 / 2], atol=0.04)


def test_it_beats_chance():
    state, _ = toy.search(evolution.make(toy.SPACE, Evolution(population=10, sample=5), 1), 8, 80)
    assert np.asarray(state.best.reward).mean() > 0.95


def test_bad_sizes_are_refused():
    for batch, population, sample in ((1, 5, 6), (6, 5, 2), (1, 5, 0)):
        with pytest.raises(UserError, match=r"must lie in 1\.\.5"):
            evolution.make(toy.SPACE, Evolution(population, sample), batch)
    config = default()
    config.evolution.sample = 31
    with pytest.raises(UserError, match=r"evolution\.sample is 31; at most"):
        evolution.build(config, toy.SPACE, None, None)
    config.evolution.sample, config.search.batch = 10, 31
    with pytest.raises(UserError, match=r"search\.batch is 31"):
        evolution.build(config, toy.SPACE, None, None)
