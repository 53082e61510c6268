"""The numbers of TNAS and what its search remembers."""

from __future__ import annotations

from typing import NamedTuple

from fnas_jax.core.types import Array
from fnas_jax.methods.base import Best
from fnas_jax.methods.tnas import meta, networks
from fnas_jax.methods.tnas.source_tasks import TARGETS
from fnas_jax.methods.tnas.surrogate import Conditioned, Surrogate

ACQUISITIONS, ADAPTATIONS, DESIGNS = ("ei", "ucb"), ("none", "gp", "all"), ("rank", "random")
OPTIONS = {
    "acquisition": ACQUISITIONS,
    "adapt": ADAPTATIONS,
    "design": DESIGNS,
    "target": TARGETS,
}


class Config(NamedTuple):
    """Hyper-parameters; core/config.py explains and documents the product's defaults."""

    batch: int = 1  # N
    capacity: int = 100  # C architectures that it can learn from; what comes after is random
    start: int = 5  # size of the initial design without a history
    start_warm: int = 1  # and with one
    design: str = "rank"
    acquisition: str = "ei"
    beta: float = 1.0
    adapt: str = "gp"
    adapt_steps: int = 5  # of adapt="all"
    target: str = "rank"
    trust: float = 0.9  # prior probability that the history tells of this task
    limit: int = 100_000  # spaces of at most so many decision vectors are searched whole
    pool: int = 512  # candidates in larger ones
    net: networks.Config = networks.Config()
    meta: meta.Config = meta.Config()


class Component(NamedTuple):
    """One process: cold or warm."""

    surrogate: Surrogate
    view: Conditioned  # of the whole space where it is listed; else empty
    own: Conditioned  # of the C places; `variance` is not kept


class State(NamedTuple):
    """C places for evaluated forms."""

    forms: Array  # [C, T] int32 canonical; -1 in free places
    rewards: Array  # [C] float32
    told: Array  # [C] bool: has a reward
    places: Array  # [] int32, taken so far
    asked: Array  # [N] int32, places of the last proposal; C: none was left
    cold: Component
    warm: Component | None
    design: Array  # [start, T] int32
    meta: meta.State | None  # of the meta-learning, where this search has to do it
    share: Array  # [] float32 weight of the warm process at the last proposal
    best: Best


def check(config: Config) -> None:
    """Raises ValueError for an unknown option."""
    for name, allowed in OPTIONS.items():
        if getattr(config, name) not in allowed:
            raise ValueError(f"{name} {getattr(config, name)!r} is none of {', '.join(allowed)}")
