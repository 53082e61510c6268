"""Following the best trained architecture, which every method has to report."""

from __future__ import annotations

import jax.numpy as jnp

from fnas_jax.core.types import Array, Metrics, Proposal
from fnas_jax.methods.base import Best


def no_best(decisions: int) -> Best:
    """Before anything is trained: zeros [T] with reward -inf."""
    return Best(jnp.zeros(decisions, jnp.int32), jnp.float32(-jnp.inf))


def usable(proposal: Proposal, metrics: Metrics) -> Array:
    """[N] bool: entries that a method may learn from. Failed children count, with reward 0."""
    return proposal.train_mask & (jnp.isfinite(metrics.reward) | ~metrics.ok)


def observed(proposal: Proposal, metrics: Metrics) -> Array:
    """[N] float32 reward where measured, else 0: finite everywhere."""
    return jnp.where(
        proposal.train_mask & metrics.ok & jnp.isfinite(metrics.reward), metrics.reward, 0
    )


def update_best(best: Best, proposal: Proposal, metrics: Metrics) -> Best:
    """The better of `best` and the proposal's best measured entry; the older one on a tie."""
    measured = proposal.train_mask & metrics.ok & jnp.isfinite(metrics.reward)
    reward = jnp.where(measured, metrics.reward, -jnp.inf)
    i = jnp.argmax(reward)
    better = reward[i] > best.reward
    return Best(
        jnp.where(better, proposal.archs[i], best.arch), jnp.where(better, reward[i], best.reward)
    )
