"""Free rollouts: PPO on the critic's predictions alone, which cost no training (ours)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.methods.rl import ppo
from fnas_jax.methods.rl.policy import Policy

JUDGES = 32  # samples, at least, of the grounded policy that its divergence is estimated on


class Config(NamedTuple):
    """Hyper-parameters; core/config.py explains and documents the product's defaults."""

    iterations: int = 4
    kl_max: float = 0.1  # nats


def imagine(
    controller: Policy,
    update: Callable[[ppo.State, ppo.Batch, Array], tuple[ppo.State, dict[str, Array]]],
    grounded: ppo.State,
    reward: Callable[[Array], Array],
    key: Array,
    config: Config,
    n: int,
    ready: Array,
) -> tuple[ppo.State, dict[str, Array]]:
    """`config.iterations` updates on n samples each, priced by `reward` (archs -> [n]).

    The first update that would move the policy further than KL(grounded || policy) = `kl_max` is
    taken back and ends it; nothing happens unless `ready` []. Returns the state and how many
    updates were kept (`imagined`), with the divergence reached (`imagined_kl`).
    """
    key_judges, key_steps = jax.random.split(key)
    archs, log_prob = controller.sample(grounded.params, key_judges, max(n, JUDGES))

    def step(carry: tuple[ppo.State, Array], key: Array) -> tuple[tuple, tuple[Array, Array]]:
        old, going = carry
        key_sample, key_update = jax.random.split(key)
        drawn, log_pi = controller.sample(old.params, key_sample, n)
        tried, _ = update(old, ppo.make_batch(drawn, log_pi, reward(drawn)), key_update)
        log_ratio = jnp.clip(controller.evaluate(tried.params, archs)[0] - log_prob, -20, 20)
        kl = jnp.mean(jnp.exp(log_ratio) - 1 - log_ratio)
        going &= kl <= config.kl_max
        kept = jax.tree.map(lambda a, b: jnp.where(going, a, b), tried, old)
        return (kept, going), (going, jnp.where(going, kl, 0.0))

    keys = jax.random.split(key_steps, config.iterations)
    (state, _), (taken, kl) = jax.lax.scan(step, (grounded, ready), keys)
    return state, {"imagined": taken.sum(dtype=jnp.float32), "imagined_kl": kl.max()}
