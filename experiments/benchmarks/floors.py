"""The simplest things that could use what another task has taught: floors under every warm method.

`gp_warm` fits a plain Gaussian process (Hamming kernel, Gaussian scores of ranks) to rows of the
other task once, and trains all networks in the order that it predicts; it never looks at what it
trained. `gp_warm_own` does look: a second process of the same kind learns what sets the own scores
apart from that prediction, and expected improvement chooses.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array, Metrics, Proposal, propose
from fnas_jax.methods import gp_math
from fnas_jax.methods.base import Best, SearchMethod
from fnas_jax.methods.baselines.config import Gp
from fnas_jax.methods.baselines.gp import kernel
from fnas_jax.methods.best import measured_reward, no_best, update_best, usable
from fnas_jax.methods.fnas.transfer import SourceTasks
from fnas_jax.methods.scores import align, rank_scores
from fnas_jax.spaces.base import Space
from fnas_jax.spaces.enumerate import enumerate_networks

SHIFT = 0.3  # variance of what sets tasks apart, over that of one


class State(NamedTuple):
    """M networks of a listed space."""

    predicted: Array  # [M] float32 score by the other task
    rows: Array  # [N] int32 of the networks trained, N as many as there may be; M: none yet
    rewards: Array  # [N] float32
    count: Array  # [] int32
    best: Best


def predict(space: Space, source: SourceTasks, key: Array, networks: Array) -> Array:
    """[M] scores of `networks` [M, T] by a process of `source.rows` rows of the other task."""
    everyone = jnp.ones(source.rows, bool)
    drawn = jax.random.choice(key, len(source.reward), (source.rows,), replace=False)
    archs = space.canonical(jnp.asarray(source.archs)[drawn])
    scores = rank_scores(jnp.asarray(source.reward)[drawn], everyone)
    own = kernel(space, archs, archs)
    white = gp_math.whitening(gp_math.masked(own, Gp().noise, everyone))
    return kernel(space, networks, archs) @ gp_math.weights(white, scores)


def init(space: Space, source: SourceTasks, networks: Array, most: int, key: Array) -> State:
    """What the other task says; nothing is trained."""
    return State(
        predicted=predict(space, source, key, networks),
        rows=jnp.full(most, len(networks), jnp.int32),
        rewards=jnp.zeros(most, jnp.float32),
        count=jnp.int32(0),
        best=no_best(len(space.cardinalities)),
    )


def ask(networks: Array, value: Any, state: State, key: Array) -> tuple[State, Proposal]:
    """The network of the highest `value`(state) [M] that was not trained before."""
    known = jnp.zeros(len(networks), bool).at[state.rows].set(True, mode="drop")
    row = jnp.argmax(jnp.where(known, -jnp.inf, value(state)))
    rows = state.rows.at[state.count].set(row, mode="drop")
    return state._replace(rows=rows), propose(networks[row][None])


def tell(state: State, proposal: Proposal, metrics: Metrics) -> State:
    """Notes the reward."""
    reward = jnp.where(usable(proposal, metrics), measured_reward(proposal, metrics), 0.0)[0]
    return state._replace(
        rewards=state.rewards.at[state.count].set(reward, mode="drop"),
        count=state.count + 1,
        best=update_best(state.best, proposal, metrics),
    )


def improvement(space: Space, networks: Array, state: State) -> Array:
    """[M] log expected improvement by the prediction and what the own rows say beyond it."""
    mask = jnp.arange(len(state.rows)) < state.count
    rows = jnp.minimum(state.rows, len(networks) - 1)
    prior = state.predicted[rows]
    scores, _ = align(rank_scores(state.rewards, mask), prior, mask)
    archs = networks[rows]
    own = SHIFT * kernel(space, archs, archs)
    white = gp_math.whitening(gp_math.masked(own, Gp().noise, mask))
    cross = jnp.where(mask[:, None], SHIFT * kernel(space, archs, networks), 0.0)
    prior_variance = jnp.full(len(networks), SHIFT)
    found = gp_math.posterior(white, jnp.where(mask, scores - prior, 0.0), cross, prior_variance)
    mean = state.predicted + found.mean
    best = jnp.max(jnp.where(mask, scores, -jnp.inf))
    gain = gp_math.log_expected_improvement(mean, jnp.sqrt(found.variance), best)
    return jnp.where(mask.any(), gain, mean)


def make(
    space: Space, source: SourceTasks, own: bool, most: int, features: bool = False
) -> SearchMethod:
    """`gp_warm`, or with `own` rows `gp_warm_own`, for searches of `most` networks.

    They go by decisions alone, without `features`. Raises ValueError for a space too large to list.
    """
    space = space if features else space._replace(features=None)
    networks = jnp.asarray(enumerate_networks(space))
    value = partial(improvement, space, networks) if own else lambda state: state.predicted
    return SearchMethod(
        partial(init, space, source, networks, most),
        partial(ask, networks, value),
        tell,
        best=lambda state: state.best,
    )
