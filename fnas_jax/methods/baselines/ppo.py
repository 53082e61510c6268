"""Reinforcement learning as a baseline: the FNAS controller and PPO, every sample trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array, Metrics, Proposal, UserError, propose
from fnas_jax.methods.base import Best, SearchMethod
from fnas_jax.methods.best import no_best, observed, update_best, usable
from fnas_jax.methods.rl import policy as policies
from fnas_jax.methods.rl import ppo
from fnas_jax.spaces.base import Space

if TYPE_CHECKING:
    from fnas_jax.tasks.base import Evaluator, Task

STATS = ("kl", "kl_last", "clip_fraction", "entropy", "ess", "loss")


class State(NamedTuple):
    """Controller, the key of its next update, the best so far and the last update's metrics."""

    ppo: ppo.State
    seed: Array  # [] uint32, drawn by `ask` for the order of minibatches in `tell`
    best: Best
    stats: dict[str, Array]


def make(
    space: Space, batch: int = 8, hidden: int = 128, config: ppo.Config | None = None
) -> SearchMethod:
    """A controller that samples `batch` architectures and learns from them by one PPO update.

    Raises ValueError unless `batch` is a multiple of `config.minibatches`.
    """
    config = ppo.Config() if config is None else config
    if batch % config.minibatches:
        raise ValueError(f"a batch of {batch} cannot be cut into {config.minibatches} minibatches")
    policy = policies.make(space.cardinalities, hidden)
    update = ppo.make_update(policy, config)

    def init(key: Array) -> State:
        return State(
            ppo=ppo.init(policy, config, key),
            seed=jnp.uint32(0),
            best=no_best(len(space.cardinalities)),
            stats={name: jnp.float32(0) for name in STATS},
        )

    def ask(state: State, key: Array) -> tuple[State, Proposal]:
        key_sample, key_update = jax.random.split(key)
        archs, log_prob = policy.sample(state.ppo.params, key_sample, batch)
        seed = jax.random.bits(key_update, (), jnp.uint32)
        return state._replace(seed=seed), propose(archs)._replace(log_prob=log_prob)

    def tell(state: State, proposal: Proposal, metrics: Metrics) -> State:
        samples = ppo.make_batch(
            proposal.archs,
            proposal.log_prob,
            observed(proposal, metrics),
            usable(proposal, metrics),
        )
        inner, stats = update(state.ppo, samples, jax.random.key(state.seed))
        return State(inner, state.seed, update_best(state.best, proposal, metrics), stats)

    return SearchMethod(
        init, ask, tell, best=lambda state: state.best, stats=lambda state: state.stats
    )


def build(config: Any, space: Space, task: Task, knowledge: Any) -> tuple[SearchMethod, Evaluator]:
    """PPO with the numbers of `config.ppo`, `config.search.batch` samples per iteration."""
    section = config.ppo
    if config.search.batch % section.minibatches:
        raise UserError(
            f"ppo.minibatches is {section.minibatches}; it must divide search.batch"
            f" ({config.search.batch})"
        )
    numbers = ppo.Config(**{name: section[name] for name in ppo.Config._fields})
    return make(space, config.search.batch, section.hidden, numbers), task.evaluator
