"""The experience buffer and its importance weights, on a space that can be enumerated."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.methods.fnas import replay
from fnas_jax.methods.fnas.config import Aeb
from fnas_jax.methods.rl import policy, ppo
from fnas_jax.methods.rl.config import Ppo
from fnas_jax.spaces import base
from tests.methods import toy

CARDS = toy.SPACE.cardinalities
POLICY = policy.Policy(CARDS, 8, head_scale=12.0)
ALL = jnp.asarray(base.enumerate_all(toy.SPACE))
INIT = jax.jit(partial(policy.init, POLICY))
JUDGE = jax.jit(partial(policy.log_prob_and_entropy, POLICY))
PI, MU = (INIT(jax.random.key(seed)) for seed in (0, 1))
LOG_PI, LOG_MU = (JUDGE(params, ALL)[0] for params in (PI, MU))
REWARD = np.asarray(toy.accuracy(np.asarray(ALL)))


# One program each, not one for every operation in them.
add = jax.jit(replay.add)
draw = jax.jit(replay.draw, static_argnums=2)
empty = jax.jit(replay.empty, static_argnums=(0, 1))


def rows(start, n):
    archs = np.asarray(ALL)[start : start + n]
    i = np.arange(start, start + n, dtype=np.int32)
    value = i.astype(np.float32)
    return replay.Buffer(archs, archs, value, -value, i, value, value, np.int32(0))


def test_the_ring_keeps_the_newest():
    buffer = empty(5, 5)
    for start in (0, 3, 6):
        buffer = add(buffer, rows(start, 3), jnp.array([True, start != 3, True]))
    assert int(buffer.added) == 8
    assert sorted(np.asarray(buffer.iteration).tolist()) == [3, 5, 6, 7, 8]
    np.testing.assert_array_equal(buffer.reward, buffer.iteration)
    np.testing.assert_array_equal(buffer.canonical, ALL[buffer.iteration])


def test_drawing_is_without_replacement_and_of_filled_places_only():
    buffer = add(empty(10, 5), rows(0, 6), jnp.arange(6) < 4)
    places, valid = draw(buffer, jax.random.key(0), 6, 0.0)
    assert np.asarray(valid).sum() == 4
    assert sorted(np.asarray(places)[np.asarray(valid)].tolist()) == [0, 1, 2, 3]
    places, valid = draw(buffer, jax.random.key(0), 12, 0.0)
    assert places.shape == (12,) and np.asarray(valid).sum() == 4


def test_recency_prefers_the_newest():
    buffer = add(empty(8, 5), rows(0, 8), jnp.ones(8, bool))
    keys = jax.random.split(jax.random.key(0), 4000)
    many = jax.jit(jax.vmap(lambda k, recency: replay.draw(buffer, k, 1, recency)[0], (0, None)))
    uniform, recent = many(keys, 0.0), many(keys, 3.0)
    np.testing.assert_allclose(np.bincount(np.asarray(uniform).ravel()) / 4000, 1 / 8, atol=0.02)
    expected = np.exp(-3.0 * np.arange(7, -1, -1) / 8)
    shares = np.bincount(np.asarray(recent).ravel(), minlength=8) / 4000
    np.testing.assert_allclose(shares, expected / expected.sum(), atol=0.03)


def test_on_policy_weights_are_exactly_one():
    assert (np.asarray(replay.importance(LOG_PI, LOG_PI, 1.0)) == 1).all()
    assert (np.asarray(replay.importance(LOG_PI, jnp.full(216, jnp.inf), 1.0)) == 0).all()


def test_on_policy_replay_has_the_gradient_of_ppo():
    config = Ppo()
    archs, log_mu, reward = ALL[:40], LOG_PI[:40], jnp.asarray(REWARD[:40])
    plain = ppo.make_batch(archs, log_mu, reward)
    weighted = ppo.make_batch(archs, log_mu, reward, replay.importance(log_mu, log_mu, 1.0))

    slope = jax.jit(jax.grad(lambda p, b: ppo.loss(POLICY, config, p, b, b.reward)[0]))

    def gradient(batch):
        return slope(PI, batch)

    jax.tree.map(np.testing.assert_array_equal, gradient(plain), gradient(weighted))


def test_the_estimator_is_unbiased_without_truncation_and_biased_as_predicted_with_it():
    pi, mu = np.exp(np.asarray(LOG_PI, float)), np.exp(np.asarray(LOG_MU, float))
    np.testing.assert_allclose([pi.sum(), mu.sum()], 1, rtol=1e-4)
    assert np.abs(pi - mu).sum() > 0.3  # far enough apart to say something
    for truncate, truth in ((np.inf, pi @ REWARD), (1.0, np.minimum(pi, mu) @ REWARD)):
        ratio = np.asarray(replay.importance(LOG_PI, LOG_MU, truncate), float)
        # The expectation over mu, exactly ..
        np.testing.assert_allclose(mu @ (ratio * REWARD), truth, rtol=1e-4)
        # .. and from samples that went through the policy.
        archs, log_mu = jax.jit(policy.sample, static_argnums=(0, 3))(
            POLICY, MU, jax.random.key(3), 20_000
        )
        log_pi, _ = jax.jit(policy.log_prob_and_entropy, static_argnums=0)(POLICY, PI, archs)
        values = np.asarray(replay.importance(log_pi, log_mu, truncate)) * toy.accuracy(
            np.asarray(archs)
        )
        assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(20_000)


def test_old_and_improbable_samples_are_skipped():
    ratio, age = jnp.array([1.0, 1e-4, 0.5, 0.5]), jnp.array([0, 0, 9, 10])
    got = replay.usable(ratio, age, min_ratio=1e-3, max_age=9)
    assert np.asarray(got).tolist() == [True, False, True, False]


def test_what_was_acquired_weighs_by_the_balance_heuristic():
    """Drawing n - v samples and acquiring v without chance estimates E_pi without bias."""
    pi, acquired = np.exp(np.asarray(LOG_PI, float)), np.arange(216) % 50 == 3
    drawn = 6
    log_mu = replay.log_mixture(LOG_PI, jnp.asarray(acquired), drawn)
    weight = np.asarray(replay.importance(LOG_PI, log_mu, np.inf), float)
    # An acquired one that is drawn as well has the same density: the mixture's. E = sum over both.
    expected = drawn * (pi * weight) @ REWARD + (weight * REWARD)[acquired].sum()
    np.testing.assert_allclose(expected / drawn, pi @ REWARD, rtol=1e-4)
    assert (weight[~acquired] == 1).all() and (weight[acquired] < 0.9).any()


def test_draws_that_were_kept_for_their_level_weigh_by_how_likely_that_was():
    """Of m draws the n of lowest level: their distribution, by simulation."""
    pi, n, m = np.array([0.4, 0.3, 0.2, 0.1]), 3, 8
    levels = np.array([1, 0, 2, 0])
    rng, kept, tilted = np.random.default_rng(0), np.zeros(4), np.zeros(4)
    select = jax.jit(replay.log_selection, static_argnums=1)
    for _ in range(4000):
        draws = rng.choice(4, m, p=pi)
        tilt = np.asarray(select(jnp.asarray(levels[draws]), n))
        chosen = np.argsort(levels[draws], kind="stable")[:n]
        np.add.at(kept, draws[chosen], 1 / n)
        # pi / mu of what was kept brings the distribution of all draws back, up to what was cut.
        np.add.at(tilted, draws[np.isfinite(tilt)], np.exp(tilt[np.isfinite(tilt)]) / m)
    np.testing.assert_allclose(tilted, kept, rtol=0.1, atol=5)
    same = replay.log_selection(jnp.zeros(8), n)
    np.testing.assert_allclose(same, 0, atol=1e-6)


def test_a_replayed_batch_leaves_out_what_does_not_fit():
    buffer = add(empty(8, 5), rows(0, 5), jnp.ones(5, bool))
    buffer = buffer._replace(log_mu=buffer.log_mu.at[:2].set(jnp.inf))
    batch = replay.batch(
        Aeb(max_age=6),
        jax.random.key(0),
        buffer,
        jnp.int32(10),
        8,
        lambda archs: jnp.zeros(len(archs)),
    )
    used = np.asarray(batch.weight) > 0
    assert not np.asarray(batch.drawn).any()
    assert sorted(np.asarray(batch.reward)[used].tolist()) == [4.0]  # older ones, impossible ones
