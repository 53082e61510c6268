"""PPO: advantages, ratio, clipping, weights, metrics, and that it learns."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.methods.rl import policy as policies
from fnas_jax.methods.rl import ppo
from fnas_jax.methods.rl.config import Ppo, with_epochs

CARDS = (3, 2, 2)
POLICY = policies.Policy(CARDS, hidden=6, head_scale=2.0)
PARAMS = jax.jit(partial(policies.init, POLICY))(jax.random.key(0))
# One program each, not one for every operation in them.
judge = jax.jit(partial(policies.log_prob_and_entropy, POLICY))
advantages = jax.jit(ppo.advantages, static_argnums=0)
PLAIN = Ppo(lr=3e-3, epochs=4, entropy=1e-3, baseline_decay=0.95)
LOSS = jax.jit(  # compiled once for all tests with a batch of one size
    jax.value_and_grad(
        lambda params, batch, advantage, entropy: ppo.loss(
            POLICY, replace(PLAIN, entropy=entropy), params, batch, advantage
        ),
        has_aux=True,
    )
)
SAMPLE = jax.jit(partial(policies.sample, POLICY), static_argnums=2)
ARCHS, OLD = SAMPLE(PARAMS, jax.random.key(1), 6)
REWARD = jnp.array([0.1, 0.5, 0.3, 0.9, 0.2, 0.6])
ADVANTAGE = jnp.array([-1.0, 0.5, 0.0, 2.0, -0.7, 1.0])


def start(config):
    return jax.jit(partial(ppo.init, POLICY, config))(jax.random.key(0))


def batch(log_prob=OLD, weight=None, reward=REWARD):
    return ppo.make_batch(ARCHS, log_prob, reward, weight)


def value_and_grad(config, b, advantage=ADVANTAGE, params=PARAMS):
    return LOSS(params, b, advantage, config.entropy)


def assert_trees_close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def test_on_policy_gradient_is_the_policy_gradient():
    config = replace(PLAIN, entropy=0.0)
    (value, metrics), gradient = value_and_grad(config, batch())
    expected = jax.jit(jax.grad(lambda p: -jnp.mean(ADVANTAGE * judge(p, ARCHS)[0])))(PARAMS)
    assert_trees_close(gradient, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(value, -np.mean(ADVANTAGE), rtol=1e-5)
    np.testing.assert_allclose([metrics["kl"], metrics["clip_fraction"]], 0, atol=1e-6)
    np.testing.assert_allclose(metrics["ess"], 1, rtol=1e-5)


def test_off_policy_loss_and_metrics_by_hand():
    shift = np.array([0.5, -0.5, 0.1, 0.3, 0.3, -0.05], np.float32)  # log pi - log pi_old
    (value, metrics), _ = value_and_grad(replace(PLAIN, entropy=0.01), batch(OLD - shift))
    rho, a = np.exp(shift), np.asarray(ADVANTAGE)
    surrogate = np.minimum(rho * a, np.clip(rho, 0.8, 1.2) * a)
    entropy = np.mean(judge(PARAMS, ARCHS)[1])
    np.testing.assert_allclose(value, -surrogate.mean() - 0.01 * entropy, rtol=1e-5)
    np.testing.assert_allclose(metrics["clip_fraction"], 4 / 6, rtol=1e-6)
    np.testing.assert_allclose(metrics["kl"], np.mean(rho - 1 - shift), rtol=1e-4)
    np.testing.assert_allclose(metrics["ess"], rho.sum() ** 2 / (6 * (rho**2).sum()), rtol=1e-5)
    np.testing.assert_allclose(metrics["entropy"], entropy, rtol=1e-5)


def test_clipped_samples_have_no_gradient_only_on_the_side_that_would_go_too_far():
    config = replace(PLAIN, entropy=0.0)
    for shift, sign, moves in (
        (0.5, 1, False),
        (0.5, -1, True),
        (-0.5, -1, False),
        (-0.5, 1, True),
    ):
        _, gradient = value_and_grad(config, batch(OLD - shift), sign * jnp.ones(6))
        norm = sum(float(jnp.abs(g).sum()) for g in jax.tree.leaves(gradient))
        assert (norm > 1e-3) == moves


def test_weight_zero_removes_a_sample_and_weights_scale_the_others():
    config = replace(PLAIN, entropy=0.05)
    weight = jnp.array([1.0, 1, 1, 0, 1, 0])
    wild = OLD.at[3].add(-1000.0).at[5].add(1000.0)
    (value, metrics), gradient = value_and_grad(config, batch(wild, weight))
    keep = np.array([0, 1, 2, 4])
    small = ppo.make_batch(ARCHS[keep], OLD[keep], REWARD[keep])
    (expected, small_metrics), small_gradient = value_and_grad(config, small, ADVANTAGE[keep])
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert_trees_close(metrics, small_metrics, rtol=1e-5, atol=1e-6)
    assert_trees_close(gradient, small_gradient, rtol=1e-4, atol=1e-6)
    half, _ = value_and_grad(replace(PLAIN, entropy=0.0), batch(weight=jnp.full(6, 0.5)))
    full, _ = value_and_grad(replace(PLAIN, entropy=0.0), batch())
    np.testing.assert_allclose(half[0], 0.5 * full[0], rtol=1e-5)


def test_the_entropy_is_that_of_samples_that_the_policy_drew():
    drawn = jnp.array([True, True, False, True, False, False])
    (value, metrics), _ = value_and_grad(
        replace(PLAIN, entropy=0.05), batch()._replace(drawn=drawn)
    )
    expected = np.mean(np.asarray(judge(PARAMS, ARCHS)[1])[np.asarray(drawn)])
    np.testing.assert_allclose(metrics["entropy"], expected, rtol=1e-5)
    np.testing.assert_allclose(value, -np.mean(ADVANTAGE) - 0.05 * expected, rtol=1e-4)
    none, _ = value_and_grad(PLAIN, batch()._replace(drawn=jnp.zeros(6, bool)))
    np.testing.assert_allclose(none[0], -np.mean(ADVANTAGE), rtol=1e-4)


def test_first_batch_is_measured_against_itself_later_ones_against_the_average():
    config = replace(PLAIN, baseline_decay=0.9)
    state = start(config)
    state, first = advantages(config, state, batch())
    r = np.asarray(REWARD)
    np.testing.assert_allclose(first, (r - r.mean()) / r.std(), rtol=1e-3)
    _, second = advantages(config, state, batch(reward=REWARD + 1))
    square = (0.09 * r.var() + 0.1 * np.mean((r + 1 - r.mean()) ** 2)) / 0.19
    np.testing.assert_allclose(second, (r + 1 - r.mean()) / square**0.5, rtol=1e-3)


def test_without_decay_the_baseline_is_the_last_batch():
    config = replace(PLAIN, baseline_decay=0.0)
    state = start(config)
    state, _ = advantages(config, state, batch())
    state, advantage = advantages(config, state, batch(reward=REWARD * 2))
    difference = 2 * np.asarray(REWARD) - np.mean(REWARD)
    np.testing.assert_allclose(advantage, difference / np.mean(difference**2) ** 0.5, rtol=1e-4)


def test_a_batch_of_equal_rewards_or_without_samples_is_harmless():
    config = replace(PLAIN, epochs=2)
    update = jax.jit(partial(ppo.update, POLICY, config))
    state = start(config)
    after, metrics = update(state, batch(reward=jnp.full(6, 0.5)), jax.random.key(0))
    none, _ = update(state, batch(weight=jnp.zeros(6)), jax.random.key(0))
    for leaf in jax.tree.leaves((after, metrics, none)):
        assert np.isfinite(leaf).all()
    assert_trees_close(none.params, state.params, atol=0)
    assert float(none.weight) == 0


def test_every_sample_is_used_once_per_epoch():
    """With plain averages and a tiny step, minibatches and one large batch agree."""
    one, three = (
        replace(PLAIN, lr=1e-6, epochs=3, minibatches=m, max_grad_norm=1e9) for m in (1, 3)
    )
    state = start(one)
    metrics = [
        jax.jit(partial(ppo.update, POLICY, c))(state, batch(OLD - 0.1), jax.random.key(5))[1]
        for c in (one, three)
    ]
    np.testing.assert_allclose(metrics[0]["entropy"], metrics[1]["entropy"], rtol=1e-3)
    np.testing.assert_allclose(metrics[0]["loss"], metrics[1]["loss"], rtol=1e-2, atol=1e-4)
    with pytest.raises(ValueError, match="cannot be cut into 4 minibatches"):
        partial(ppo.update, POLICY, replace(PLAIN, minibatches=4))(
            state, batch(), jax.random.key(0)
        )


def test_epochs_that_are_open_depend_on_replay():
    assert with_epochs(Ppo(), replays=False).epochs == 4
    assert with_epochs(Ppo(), replays=True).epochs == 2
    assert with_epochs(Ppo(epochs=7), replays=True).epochs == 7
    with pytest.raises(ValueError, match="number of epochs is open"):
        ppo.update(POLICY, Ppo(), None, batch(), None)


def test_an_update_raises_the_probability_of_better_architectures():
    config = replace(PLAIN, lr=3e-2)
    state = start(config)
    archs, old = SAMPLE(state.params, jax.random.key(2), 64)
    reward = (archs[:, 0] == 1).astype(jnp.float32)
    new, _ = jax.jit(partial(ppo.update, POLICY, config))(
        state, ppo.make_batch(archs, old, reward), jax.random.key(3)
    )
    change = np.asarray(judge(new.params, archs)[0] - old)
    assert change[np.asarray(reward) == 1].mean() > 0 > change[np.asarray(reward) == 0].mean()
