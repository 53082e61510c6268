"""Acquisition: the best predicted architectures not known yet, some of them by curiosity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.methods.fnas import acquire, replay
from fnas_jax.methods.fnas.config import Fnas
from fnas_jax.methods.fnas.uac import Prediction
from fnas_jax.spaces import base, categorical
from tests.methods import toy

ALL = base.enumerate_all(toy.SPACE)
ELITE = jnp.zeros((acquire.ELITE, 5), jnp.int32)


def buffer_of(archs, reward):
    n = len(archs)
    zeros, now = jnp.zeros(n), jnp.zeros(n, jnp.int32)
    reward = jnp.asarray(reward, jnp.float32)
    rows = replay.Buffer(archs, archs, reward, zeros, now, zeros, zeros, jnp.int32(0))
    return replay.add(replay.empty(32, archs.shape[1]), rows, jnp.ones(n, bool))


def value(archs):
    return jnp.mean(archs == toy.TARGET, axis=-1) + 1e-3 * archs[..., 0]


def compiled(space, config, predict):
    """(key, buffer, elite, sampled) -> what is chosen, and the next elite."""

    @jax.jit
    def run(key, *given):
        return acquire.choose(space, config, key, predict, *given)

    return run


def choose(buffer, seed=0, elite=ELITE, sampled=ALL[:4], width=lambda archs: 0.0, **numbers):
    config = Fnas(**{"verify": 3, "pool": 60, "optimism": 0.0} | numbers)

    def predict(archs):
        score = value(archs)
        # Only the calibrated uncertainty says which one is doubtful.
        return Prediction(score, jnp.ones(score.shape), jnp.broadcast_to(width(archs), score.shape))

    return compiled(toy.SPACE, config, predict)(jax.random.key(seed), buffer, elite, sampled)


def test_the_best_predicted_of_all_candidates_are_chosen_in_order():
    everything = ALL  # the controller drew every architecture
    found, elite = choose(buffer_of(ALL[:9], np.zeros(9)), sampled=everything)
    unknown = np.array(jax.jit(value)(ALL))
    unknown[:9] = -1
    best = np.asarray(ALL)[np.argsort(-unknown, kind="stable")]
    np.testing.assert_array_equal(found, best[:3])
    np.testing.assert_array_equal(np.unique(elite, axis=0), np.unique(best[:8], axis=0))


def test_known_architectures_are_never_chosen_and_none_twice():
    order = np.argsort(-np.asarray(jax.jit(value)(ALL)), kind="stable")
    known = ALL[order[:20]]
    found, _ = choose(buffer_of(known, np.zeros(20)), sampled=np.concatenate([ALL, ALL]))
    assert not (np.asarray(found)[:, None] == np.asarray(known)).all(-1).any()
    assert len(np.unique(found, axis=0)) == 3
    np.testing.assert_array_equal(found[0], ALL[order[20]])


def test_relatives_of_the_best_trained_ones_are_candidates():
    """In a space too large for luck, changes of good trained architectures lead to the best."""
    space = categorical.make((4,) * 8)
    target = jnp.arange(8) % 4
    near = jnp.broadcast_to(target, (8, 8)).at[jnp.arange(8), jnp.arange(8)].add(1) % 4

    def predict(archs):
        score = jnp.mean(archs == target, axis=-1)
        return Prediction(score, 0 * score, 0 * score)

    def found(buffer):
        elite = jnp.zeros((acquire.ELITE, 8), jnp.int32)
        config = Fnas(verify=1, pool=768, optimism=0.0)
        key = jax.random.key(0)
        return compiled(space, config, predict)(key, buffer, elite, elite[:1])[0]

    assert (found(buffer_of(near, np.ones(8))) == target).all()
    assert (found(replay.empty(32, 8)) != target).any()


def test_the_search_goes_on_from_the_elite():
    elite = jnp.broadcast_to(jnp.asarray(toy.TARGET), (acquire.ELITE, 5))
    found, next_elite = choose(buffer_of(ALL[:1], [0.0]), elite=elite, pool=32)
    np.testing.assert_array_equal(found[0], toy.TARGET)  # a candidate although nobody drew it
    assert (np.asarray(next_elite) == toy.TARGET).all(axis=1).any()


@pytest.mark.parametrize("optimism", [0.0, 50.0])
def test_optimism_weighs_the_uncertainty(optimism):
    doubtful = jnp.array([0, 0, 0, 1, 0])

    def width(archs):
        return jnp.where((archs == doubtful).all(axis=-1), 1.0, 0.0)

    found, _ = choose(
        buffer_of(ALL[:1], [0.0]), sampled=ALL, width=width, optimism=optimism, verify=8
    )
    assert (np.asarray(found) == np.asarray(doubtful)).all(axis=1).any() == (optimism > 0)
