"""Acquisition: the best predicted architectures not known yet, some of them by curiosity."""

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.methods.fnas import acquire, replay
from fnas_jax.methods.fnas.config import Fnas
from fnas_jax.spaces import base, categorical
from tests.methods import toy

ALL = base.enumerate_all(toy.SPACE)
ELITE = jnp.zeros((replay.ELITE, 5), jnp.int32)


@jax.jit
def add_all(rows):
    n, decisions = rows.archs.shape
    return replay.add(replay.empty(32, decisions), rows, jnp.ones(n, bool))


def buffer_of(archs, reward):
    n = len(archs)
    zeros, now = np.zeros(n, np.float32), np.zeros(n, np.int32)
    reward = np.asarray(reward, np.float32)
    return add_all(replay.Buffer(archs, archs, reward, zeros, now, zeros, zeros, np.int32(0)))


def value(archs):
    return jnp.mean(archs == toy.TARGET, axis=-1) + 1e-3 * archs[..., 0]


def compiled(space, config, pick):
    """(key, buffer, elite, sampled) -> what is chosen, and the next elite."""

    @jax.jit
    def run(key, *given):
        return acquire.choose(space, config, key, pick, *given)

    return run


def best_of(value, v):
    """A rule that takes the v new ones of the highest value."""

    def pick(_, archs, new):
        score = jnp.where(new, value(archs), -jnp.inf)
        return (jax.lax.top_k(score, k)[1] for k in (v, replay.ELITE))

    return pick


def choose(buffer, seed=0, elite=ELITE, sampled=ALL[:4], **numbers):
    config = Fnas(**{"verify": 3, "pool": 60} | numbers)
    run = compiled(toy.SPACE, config, best_of(value, config.verify))
    return run(jax.random.key(seed), buffer, elite, sampled)


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

    def found(buffer):
        elite = jnp.zeros((replay.ELITE, 8), jnp.int32)
        config = Fnas(verify=1, pool=768)
        key = jax.random.key(0)
        pick = best_of(lambda archs: jnp.mean(archs == target, axis=-1), 1)
        return compiled(space, config, pick)(key, buffer, elite, elite[:1])[0]

    assert (found(buffer_of(near, np.ones(8))) == target).all()
    assert (found(replay.empty(32, 8)) != target).any()


def test_the_search_goes_on_from_the_elite():
    elite = jnp.broadcast_to(jnp.asarray(toy.TARGET), (replay.ELITE, 5))
    found, next_elite = choose(buffer_of(ALL[:1], [0.0]), elite=elite, pool=32)
    np.testing.assert_array_equal(found[0], toy.TARGET)  # a candidate although nobody drew it
    assert (np.asarray(next_elite) == toy.TARGET).all(axis=1).any()


def test_a_listed_space_is_looked_through_whole():
    rows = np.random.default_rng(0).permutation(216)[:20]
    order = np.argsort(np.arange(216) % 7, kind="stable")  # any
    everything = jnp.asarray(ALL[order])
    new = jax.jit(lambda b: acquire.unknown(toy.SPACE, b, everything))(
        buffer_of(ALL[rows], np.zeros(20))
    )
    known = (np.asarray(everything)[:, None] == np.asarray(ALL)[rows]).all(-1).any(1)
    np.testing.assert_array_equal(new, ~known)
    found, _ = jax.jit(
        lambda key, b: acquire.choose(
            toy.SPACE, Fnas(verify=2), key, best_of(value, 2), b, ELITE, ALL[:4], everything
        )
    )(jax.random.key(0), buffer_of(ALL[rows], np.zeros(20)))
    score = np.where(known, -1, jax.jit(value)(everything))
    np.testing.assert_array_equal(found, everything[np.argsort(-score, kind="stable")[:2]])
