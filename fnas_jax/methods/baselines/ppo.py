"""Reinforcement learning as a baseline: the FNAS controller and PPO, every sample trained."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.config import read
from fnas_jax.core.types import Array, Metrics, Proposal, UserError, propose
from fnas_jax.methods.base import Best, SearchMethod
from fnas_jax.methods.best import measured_reward, no_best, update_best, usable
from fnas_jax.methods.rl import policy as policies
from fnas_jax.methods.rl import ppo
from fnas_jax.methods.rl.config import Ppo, with_epochs
from fnas_jax.methods.rl.policy import Policy
from fnas_jax.spaces.base import Space

if TYPE_CHECKING:
    from fnas_jax.tasks.base import Evaluator, Task


class State(NamedTuple):
    """Controller, the key of its next update, the best so far and the last update's metrics."""

    ppo: ppo.State
    seed: Array  # [] uint32, drawn by `ask` for the order of minibatches in `tell`
    best: Best
    stats: dict[str, Array]


class Context(NamedTuple):
    """What does not change during a search."""

    policy: Policy
    config: Ppo
    batch: int  # N


def make(space: Space, config: Ppo, batch: int, existing: Array | None = None) -> SearchMethod:
    """A controller that samples `batch` architectures and learns from them by one PPO update.

    It samples no others than those that are `existing` (`Task.existing`).

    Raises UserError unless `batch` is a multiple of `config.minibatches`.
    """
    if batch % config.minibatches:
        raise UserError(f"a batch of {batch} cannot be cut into {config.minibatches} minibatches")
    policy = Policy(space.cardinalities, config.hidden, existing=existing)
    ctx = Context(policy, with_epochs(config, replays=False), batch)
    return SearchMethod(
        jax.jit(partial(init, ctx)),  # as one program it starts sooner
        partial(ask, ctx),
        partial(tell, ctx),
        best=lambda state: state.best,
        stats=lambda state: state.stats,
        details=lambda state: policies.details(ctx.policy, state.ppo.params),
    )


def init(ctx: Context, key: Array) -> State:
    """A fresh controller."""
    return State(
        ppo=ppo.init(ctx.policy, ctx.config, key),
        seed=jnp.uint32(0),
        best=no_best(len(ctx.policy.cardinalities)),
        stats={name: jnp.float32(0) for name in ppo.STATS},
    )


def ask(ctx: Context, state: State, key: Array) -> tuple[State, Proposal]:
    """Samples of the policy."""
    key_sample, key_update = jax.random.split(key)
    archs, log_prob = policies.sample(ctx.policy, state.ppo.params, key_sample, ctx.batch)
    seed = jax.random.bits(key_update, (), jnp.uint32)
    return state._replace(seed=seed), propose(archs)._replace(log_prob=log_prob)


def tell(ctx: Context, state: State, proposal: Proposal, metrics: Metrics) -> State:
    """One update."""
    samples = ppo.make_batch(
        proposal.archs,
        proposal.log_prob,
        measured_reward(proposal, metrics),
        usable(proposal, metrics),
    )
    key = jax.random.key(state.seed)
    inner, stats = ppo.update(ctx.policy, ctx.config, state.ppo, samples, key)
    return State(inner, state.seed, update_best(state.best, proposal, metrics), stats)


def build(config: Any, space: Space, task: Task, knowledge: Any) -> tuple[SearchMethod, Evaluator]:
    """PPO with the numbers of `config.ppo`, `config.search.batch` samples per iteration."""
    section = read(Ppo, config.ppo)
    if config.search.batch % section.minibatches:
        raise UserError(
            f"ppo.minibatches is {section.minibatches}; it must divide search.batch"
            f" ({config.search.batch})"
        )
    return make(space, section, config.search.batch, task.existing), task.evaluator
