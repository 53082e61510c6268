"""What the steps of FNAS share: what is fixed during a search, and what changes."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.methods.base import Best
from fnas_jax.methods.fnas import replay, uac
from fnas_jax.methods.fnas.config import Config
from fnas_jax.methods.rl import ppo
from fnas_jax.methods.rl.policy import Policy
from fnas_jax.spaces.base import Space


class Context(NamedTuple):
    """What does not change during a search."""

    space: Space
    config: Config
    policy: Policy
    critic: uac.Context | None  # None: `uac.enabled` is off
    capacity: int  # C, places of the buffer
    warmup: int  # architectures trained before predictions count
    everything: Array | None  # [M, T] all networks of a space that can be listed
    existing: Array | None = None  # `Task.existing`

    @property
    def sampled(self) -> int:
        """Members of a batch that are always drawn by the policy; the others can be acquired."""
        return self.config.batch - self.config.fnas.verify


class Asked(NamedTuple):
    """What `tell` needs to know of the proposal that `ask` made."""

    acquired: Array  # [N] bool: chosen by the critic, not drawn by the policy
    explored: Array  # [N] bool: trained though the critic was sure, see `decision.Decision`
    log_tilt: Array  # [N] float32, nats: log mu - log pi, with mu what proposed it; see `replay`
    prediction: uac.Prediction
    seed: Array  # [] uint32 of the keys of `tell`


def nothing_asked(n: int) -> Asked:
    """Of N proposals of the policy, of which nothing is predicted."""
    no, zero = jnp.zeros(n, bool), jnp.zeros(n, jnp.float32)
    return Asked(no, no, zero, uac.Prediction(zero, zero, zero), jnp.uint32(0))


class State(NamedTuple):
    """Everything that a search remembers."""

    ppo: ppo.State
    uac: uac.State | None  # None where the critic is off
    buffer: replay.Buffer
    elite: Array  # [ELITE, T] best predicted candidates of the last iteration
    iteration: Array  # [] int32
    trained: Array  # [] int32 different architectures
    asked: Asked
    best: Best
    stats: dict[str, Array]


def critic_of(ctx: Context, state: State) -> tuple[uac.Context, uac.State]:
    """The critic and what it knows, in steps that are taken only where there is one."""
    assert ctx.critic is not None and state.uac is not None
    return ctx.critic, state.uac
