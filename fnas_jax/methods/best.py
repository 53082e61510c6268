"""What methods do with the metrics they are told: rewards, and the best architecture so far."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from fnas_jax.core.types import Array, Metrics, Proposal
from fnas_jax.methods.base import Best


def no_best(decisions: int) -> Best:
    """Before anything is trained: zeros [T] with reward -inf."""
    return Best(jnp.zeros(decisions, jnp.int32), jnp.float32(-jnp.inf))


def usable(proposal: Proposal, metrics: Metrics) -> Array:
    """[N] bool: entries that a method may learn from. Failed children count, with reward 0."""
    return proposal.train_mask & (jnp.isfinite(metrics.reward) | ~metrics.ok)


def measured_reward(proposal: Proposal, metrics: Metrics) -> Array:
    """[N] float32 reward where measured, else 0: finite everywhere."""
    return jnp.where(_measured(proposal, metrics), metrics.reward, 0)


def ranked_reward(proposal: Proposal, metrics: Metrics) -> Array:
    """[N] float32 reward where measured, else -inf: what may be the best.

    What is expected of a child that was stopped early never is.
    """
    whole = _measured(proposal, metrics)
    if metrics.stopped is not None:
        whole &= metrics.stopped == 0
    return jnp.where(whole, metrics.reward, -jnp.inf)


def _measured(proposal: Proposal, metrics: Metrics) -> Array:
    """[N] bool: entries that have a reward of their own."""
    return proposal.train_mask & metrics.ok & jnp.isfinite(metrics.reward)


def update_best(best: Best, proposal: Proposal, metrics: Metrics) -> Best:
    """The better of `best` and the proposal's best measured entry; the older one on a tie."""
    reward = ranked_reward(proposal, metrics)
    i = jnp.argmax(reward)
    better = reward[i] > best.reward
    return Best(
        jnp.where(better, proposal.archs[i], best.arch), jnp.where(better, reward[i], best.reward)
    )


def remember(state: Any, proposal: Proposal, metrics: Metrics) -> Any:
    """`tell` of a method that keeps the reward of everything it has asked for.

    Its state has `rewards` [C] float32, `observed` [C] bool, `best`, and `asked` [N] int32, the
    places of the newest proposal (C: not kept).
    """
    slot = jnp.where(usable(proposal, metrics), state.asked, len(state.rewards))
    return state._replace(
        rewards=state.rewards.at[slot].set(measured_reward(proposal, metrics), mode="drop"),
        observed=state.observed.at[slot].set(True, mode="drop"),
        best=update_best(state.best, proposal, metrics),
    )
