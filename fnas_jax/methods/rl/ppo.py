"""Proximal policy optimisation of a policy over architectures (arXiv 1707.06347).

An architecture is one step of one episode with a terminal reward R, so there is no discount and
no bootstrapping. With rho = pi(a) / pi_old(a), A the normalised advantage and w the weight of a
sample (1 unless a replay buffer corrects for another policy):

    loss = -E[w (min(rho A, clip(rho, 1 - eps, 1 + eps) A))] - c_H H(pi)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from fnas_jax.core.types import Array
from fnas_jax.methods.rl import policy as policies
from fnas_jax.methods.rl.config import Ppo
from fnas_jax.methods.rl.policy import Params, Policy

STATS = ("kl", "kl_last", "clip_fraction", "entropy", "ess", "loss")  # of an update


class State(NamedTuple):
    """All that an update changes."""

    params: Params
    optimizer: Any
    baseline: Array  # [] float32 moving average of R, zero-initialised: see `advantages`
    scale: Array  # [] float32 moving average of (R - b)^2, zero-initialised
    weight: Array  # [] float32 weight of both averages so far, 0..1


class Batch(NamedTuple):
    """n samples; those with weight 0 have no influence at all."""

    archs: Array  # [n, T] int32
    log_prob: Array  # [n] float32, nats, under the policy that the ratio is taken to (pi_old)
    reward: Array  # [n] float32
    weight: Array  # [n] float32 >= 0
    drawn: Array  # [n] bool: drawn by pi_old, so that the entropy bonus is estimated on it


def optimizer(config: Ppo) -> optax.GradientTransformation:
    """Adam behind a clip of the gradients' norm."""
    return optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm), optax.adam(config.lr, eps=1e-5)
    )


def init(policy: Policy, config: Ppo, key: Array) -> State:
    """A fresh policy."""
    params = policies.init(policy, key)
    zero = jnp.float32(0)
    return State(params, optimizer(config).init(params), zero, zero, zero)


def make_batch(
    archs: Array,
    log_prob: Array,
    reward: Array,
    weight: Array | None = None,
    drawn: Array | None = None,
) -> Batch:
    """A batch of n samples, by default of weight 1 and all `drawn` by the policy."""
    n = archs.shape[0]
    weight = jnp.ones(n, jnp.float32) if weight is None else weight.astype(jnp.float32)
    drawn = jnp.ones(n, bool) if drawn is None else drawn
    chex.assert_shape([log_prob, reward, weight, drawn], (n,))
    return Batch(archs, log_prob, reward, weight, drawn)


def loss(
    policy: Policy, config: Ppo, params: Params, batch: Batch, advantage: Array
) -> tuple[Array, dict[str, Array]]:
    """The loss above on n samples, with the metrics of this minibatch.

    `kl` is E[(rho - 1) - log rho], an estimate of KL(pi_old || pi) that is never negative;
    `ess` is (sum w rho)^2 / (n sum (w rho)^2), in 0..1. H(pi) is an expectation over pi: samples
    that it did not draw (replayed or acquired ones) do not enter it.
    """
    chex.assert_equal_shape([batch.log_prob, batch.reward, batch.weight, advantage])
    log_prob, entropy = policies.log_prob_and_entropy(policy, params, batch.archs)
    # Samples of weight 0 may stand far from the policy: they must not overflow.
    log_ratio = jnp.where(batch.weight > 0, log_prob - batch.log_prob, 0.0)
    ratio = jnp.exp(jnp.clip(log_ratio, -20.0, 20.0))
    clipped = jnp.clip(ratio, 1 - config.clip, 1 + config.clip)
    surrogate = jnp.minimum(ratio * advantage, clipped * advantage)
    used = batch.weight > 0
    count = jnp.maximum(jnp.sum(used), 1)

    def mean(x: Array, of: Array = used) -> Array:
        return jnp.sum(jnp.where(of, x, 0.0)) / jnp.maximum(jnp.sum(of), 1)

    importance = batch.weight * ratio
    metrics = {
        "kl": mean(ratio - 1 - log_ratio),
        "clip_fraction": mean(jnp.abs(ratio - 1) > config.clip),
        "entropy": mean(entropy, used & batch.drawn),
        "ess": jnp.sum(importance) ** 2
        / jnp.maximum(count * jnp.sum(importance**2), jnp.finfo(jnp.float32).tiny),
    }
    value = -mean(batch.weight * surrogate) - config.entropy * metrics["entropy"]
    return value, metrics | {"loss": value}


def advantages(config: Ppo, state: State, batch: Batch) -> tuple[State, Array]:
    """A = (R - b) / s [n] against the averages of earlier batches, and the averages with this one.

    b is the moving average of R and s^2 that of (R - b)^2, both corrected for their start at zero;
    the very first batch is measured against its own mean and standard deviation. A scale that
    outlives the batch (ours) keeps advantages meaningful when a batch holds one and the same
    architecture.
    """
    weight = batch.weight
    total = jnp.sum(weight)
    some = total > 0
    mean = jnp.sum(weight * batch.reward) / jnp.maximum(total, 1e-8)
    first = state.weight == 0
    b = jnp.where(first, mean, state.baseline / jnp.maximum(state.weight, 1e-8))
    square = jnp.sum(weight * (batch.reward - b) ** 2) / jnp.maximum(total, 1e-8)
    rate = jnp.where(some, 1 - config.baseline_decay, 0.0)
    state = state._replace(
        baseline=state.baseline + rate * (mean - state.baseline),
        scale=state.scale + rate * (square - state.scale),
        weight=state.weight + rate * (1 - state.weight),
    )
    s = jnp.sqrt(state.scale / jnp.maximum(state.weight, 1e-8))
    return state, (batch.reward - b) / (s + 1e-6)


def update(
    policy: Policy, config: Ppo, state: State, batch: Batch, key: Array
) -> tuple[State, dict[str, Array]]:
    """The state after one PPO update, and its STATS: scalars, means over the update.

    One `lax.scan` over epochs x minibatches, each epoch in a new order; `kl_last` is of the last
    step. Raises ValueError unless n is a multiple of `config.minibatches`, and without epochs.
    """
    n = batch.archs.shape[0]
    if not config.epochs:
        raise ValueError("the number of epochs is open; see `with_epochs`")
    if n % config.minibatches:
        raise ValueError(f"a batch of {n} cannot be cut into {config.minibatches} minibatches")
    state, advantage = advantages(config, state, batch)
    adam = optimizer(config)

    def step(carry: tuple[Params, Any], rows: Array) -> tuple[tuple[Params, Any], Any]:
        params, moments = carry
        part, part_advantage = jax.tree.map(lambda x: x[rows], (batch, advantage))
        gradient, metrics = jax.grad(
            lambda p: loss(policy, config, p, part, part_advantage), has_aux=True
        )(params)
        updates, moments = adam.update(gradient, moments, params)
        return (optax.apply_updates(params, updates), moments), metrics

    orders = jnp.broadcast_to(jnp.arange(n), (config.epochs, n))
    if config.minibatches > 1:  # a whole batch has no order, and shuffling is slow to compile
        orders = jax.vmap(jax.random.permutation)(jax.random.split(key, config.epochs), orders)
    orders = orders.reshape(config.epochs * config.minibatches, n // config.minibatches)
    (params, moments), metrics = jax.lax.scan(step, (state.params, state.optimizer), orders)
    summary = jax.tree.map(jnp.mean, metrics) | {"kl_last": metrics["kl"][-1]}
    return state._replace(params=params, optimizer=moments), summary
