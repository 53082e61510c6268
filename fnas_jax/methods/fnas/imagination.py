"""Free rollouts: PPO on the critic's predictions alone, which cost no training (ours)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.methods.fnas.config import Fnas
from fnas_jax.methods.rl import policy as policies
from fnas_jax.methods.rl import ppo
from fnas_jax.methods.rl.config import Ppo
from fnas_jax.methods.rl.policy import Policy

LEAST_SAMPLES = 32  # of the grounded policy, on which its divergence is estimated


def imagine(
    policy: Policy,
    config: Fnas,
    learning: Ppo,
    grounded: ppo.State,
    reward: Callable[[Array], Array],
    key: Array,
    n: int,
    ready: Array,
) -> tuple[ppo.State, dict[str, Array]]:
    """`fnas.imagination` updates on n samples each, whose rewards [n] are `reward`(archs [n, T]).

    The first update that would move the policy further than KL(grounded || policy) = `kl_max` is
    taken back and ends it; nothing happens unless `ready` []. The baseline stays that of the last
    measured batch. Returns the state and how many updates were kept (`imagined`), with the
    divergence reached (`imagined_kl`).
    """
    key_judges, key_steps = jax.random.split(key)
    archs, log_prob = policies.sample(policy, grounded.params, key_judges, max(n, LEAST_SAMPLES))

    def step(carry: tuple[ppo.State, Array], key: Array) -> tuple[tuple, tuple[Array, Array]]:
        old, going = carry
        key_sample, key_update = jax.random.split(key)
        drawn, log_pi = policies.sample(policy, old.params, key_sample, n)
        batch = ppo.make_batch(drawn, log_pi, reward(drawn))
        tried, _ = ppo.update(policy, learning, old, batch, key_update)
        kl = _divergence(policies.log_prob_and_entropy(policy, tried.params, archs)[0], log_prob)
        going &= kl <= config.kl_max
        kept = jax.tree.map(lambda a, b: jnp.where(going, a, b), tried, old)
        return (kept, going), (going, jnp.where(going, kl, 0.0))

    keys = jax.random.split(key_steps, config.imagination)
    (state, _), (taken, kl) = jax.lax.scan(step, (grounded, ready), keys)
    state = grounded._replace(params=state.params, optimizer=state.optimizer)
    return state, {"imagined": taken.sum(dtype=jnp.float32), "imagined_kl": kl.max()}


def _divergence(log_new: Array, log_old: Array) -> Array:
    """[] nats: KL(old || new) from log-probabilities [n] of samples of the old policy.

    The estimate E[(rho - 1) - log rho] with rho = new / old is never negative.
    """
    log_ratio = jnp.clip(log_new - log_old, -20, 20)
    return jnp.mean(jnp.exp(log_ratio) - 1 - log_ratio)
