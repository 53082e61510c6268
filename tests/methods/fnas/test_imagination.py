"""Imagination: PPO on predictions alone, within a trust region."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.methods.fnas import imagination
from fnas_jax.methods.fnas.config import Fnas
from fnas_jax.methods.rl import policy as policies
from fnas_jax.methods.rl import ppo
from fnas_jax.methods.rl.config import Ppo
from fnas_jax.spaces import base
from tests.methods import toy

POLICY = policies.Policy(toy.SPACE.cardinalities, hidden=8)
LEARNING = Ppo(hidden=8, lr=0.02, epochs=2)
ALL = base.enumerate_all(toy.SPACE)
# One program each, not one for every operation in them.
judge = jax.jit(functools.partial(policies.log_prob_and_entropy, POLICY))
sample = jax.jit(functools.partial(policies.sample, POLICY), static_argnums=2)
update = jax.jit(functools.partial(ppo.update, POLICY, LEARNING))


@functools.cache
def start():
    return jax.jit(functools.partial(ppo.init, POLICY, LEARNING))(jax.random.key(0))


def reward(archs):
    return jnp.mean(archs == toy.TARGET, axis=-1)


@functools.cache
def imagined(updates, kl_max, ready=True, n=16):
    config = Fnas(imagination=updates, kl_max=kl_max)

    @jax.jit
    def run(state, key, ready):
        return imagination.imagine(POLICY, config, LEARNING, state, reward, key, n, ready)

    return run(start(), jax.random.key(1), jnp.bool_(ready))


def test_updates_raise_what_the_critic_predicts_and_are_counted():
    state, stats = imagined(6, 100.0)
    assert float(stats["imagined"]) == 6 and float(stats["imagined_kl"]) > 0

    def expected(params):
        log_prob, _ = judge(params, ALL)
        return float(jnp.sum(jnp.exp(log_prob) * reward(ALL)))

    assert expected(state.params) > expected(start().params) + 0.02


def test_the_update_that_would_leave_the_region_is_taken_back_and_ends_it():
    _, free = imagined(6, 100.0)
    limit = float(free["imagined_kl"]) / 2
    state, stats = imagined(6, limit)
    assert 0 < float(stats["imagined"]) < 6 and float(stats["imagined_kl"]) <= limit
    # The same as if only those updates had been asked for: keys are split before the first.
    count = int(stats["imagined"])
    tried = start()
    _, key_steps = jax.random.split(jax.random.key(1))
    for key in jax.random.split(key_steps, 6)[:count]:
        key_sample, key_update = jax.random.split(key)
        drawn, log_pi = sample(tried.params, key_sample, 16)
        batch = ppo.make_batch(drawn, log_pi, reward(drawn))
        tried, _ = update(tried, batch, key_update)
    close = functools.partial(np.testing.assert_allclose, atol=1e-5)
    jax.tree.map(close, state.params, tried.params)
    jax.tree.map(close, state.optimizer, tried.optimizer)


def test_measured_rewards_are_compared_with_measured_ones():
    """An imagined batch is no baseline of the next measured one."""
    state, stats = imagined(6, 100.0)
    assert float(stats["imagined"]) == 6
    for name in ("baseline", "scale", "weight"):
        assert getattr(state, name) == getattr(start(), name)


def test_nothing_moves_without_room_or_before_predictions_count():
    for state, stats in (imagined(2, 0.0), imagined(2, 100.0, ready=False)):
        assert float(stats["imagined"]) == 0 and float(stats["imagined_kl"]) == 0
        jax.tree.map(np.testing.assert_array_equal, state, start())


def test_the_divergence_is_that_of_the_distributions():
    """Its estimate from many samples, against the sum over all architectures."""
    state, _ = imagined(6, 100.0)
    old, _ = judge(start().params, ALL)
    new, _ = judge(state.params, ALL)
    exact = float(jnp.sum(jnp.exp(old) * (old - new)))
    archs, log_old = sample(start().params, jax.random.key(2), 20_000)
    log_new, _ = judge(state.params, archs)
    np.testing.assert_allclose(imagination._divergence(log_new, log_old), exact, rtol=0.1)
