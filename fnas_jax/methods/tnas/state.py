"""What a search of TNAS works with, and what it remembers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fnas_jax.core.types import Array
from fnas_jax.methods.base import Best
from fnas_jax.methods.candidates import Allowed
from fnas_jax.methods.tnas import meta, surrogate
from fnas_jax.methods.tnas.config import Tnas
from fnas_jax.methods.tnas.gp_mixture import Component
from fnas_jax.methods.tnas.networks import Weights
from fnas_jax.methods.tnas.source_tasks import SourceTasks
from fnas_jax.methods.tnas.surrogate import Conditioned, Surrogate
from fnas_jax.spaces.base import Space


class Context(NamedTuple):
    """Of one search; nothing that changes."""

    space: Space
    config: Tnas
    proposals: int  # N of each `ask`, `search.batch`; `config.batch` are rows of meta-learning
    capacity: int  # C architectures that it can learn from; what comes after is random
    listed: Array | None  # [M, T] int32 all networks of the space, where they are few enough
    source: SourceTasks | None  # the tasks that it learns from
    support: SourceTasks | None  # the rows of these that predictions are conditioned on
    weights: Weights | None  # those that were learnt from `source`; None: to be learnt first
    features: int  # numbers that describe an image
    keep: Callable[[Weights, float], None] | None  # given learnt weights and their tau
    allowed: Allowed | None = None  # which candidates may be proposed; None: all
    existing: Array | None = None  # `Task.existing`

    @property
    def start(self) -> int:
        """Architectures of the initial design."""
        return self.config.start if self.source is None else self.config.start_warm

    @property
    def beta(self) -> float | None:
        """Of the upper bound; None for expected improvement."""
        return self.config.beta if self.config.acquisition == "ucb" else None


class State(NamedTuple):
    """C places for evaluated architectures."""

    archs: Array  # [C, T] int32 canonical; -1 in free places
    rewards: Array  # [C] float32
    observed: Array  # [C] bool: has a reward
    places: Array  # [] int32, taken so far
    asked: Array  # [N] int32, places of the last proposal; C: none was left
    cold: Component
    warm: Component | None
    design: Array  # [start, T] int32
    meta: meta.State | None  # of the meta-learning, where this search has to do it
    share: Array  # [] float32 weight of the warm component at the last proposal
    best: Best


def component(ctx: Context, s: Surrogate) -> Component:
    """Of surrogate `s`, before any architecture of the task is evaluated."""
    own = surrogate.empty(s, ctx.capacity)
    if ctx.listed is None:
        return Component(s, surrogate.empty(s, 0), own)
    return Component(s, surrogate.conditioned(ctx.space, ctx.config, s, ctx.listed), own)


def conditioned(ctx: Context, component: Component, archs: Array) -> Conditioned:
    """The component's predictions for `archs` [M, T]: all there are where the space is listed."""
    if ctx.listed is not None:
        return component.listed
    return surrogate.conditioned(ctx.space, ctx.config, component.surrogate, archs)
