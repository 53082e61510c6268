"""The methods of the benchmark `image_search`, as they run there."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
import ml_collections

from fnas_jax.core import config as config_lib
from fnas_jax.core.types import Array, Metrics, Proposal
from fnas_jax.methods.base import SearchMethod
from fnas_jax.methods.baselines import ppo, random, tpe
from fnas_jax.methods.fnas import build as fnas

BUILDERS = {"fnas": fnas.build, "ppo": ppo.build, "random": random.build, "tpe": tpe.build}
FRESH = {"akp.enabled": False}


class Preset(NamedTuple):
    """A method and how its children are trained."""

    method: str  # of BUILDERS
    settings: dict[str, Any]
    short: bool  # children train for a share of the steps only
    like: str = ""  # trains children for as many steps as the search of this preset has cost


PRESETS = {
    "ppo": Preset("ppo", FRESH, short=False),
    "ppo_short": Preset("ppo", FRESH, short=True),
    "ppo_pool": Preset("ppo", {}, short=True),
    "random": Preset("random", FRESH, short=False, like="fnas"),
    "fnas": Preset("fnas", {}, short=True),
    "fnas_no_akp": Preset("fnas", FRESH, short=False),
    "fnas_no_uac": Preset("fnas", {"uac.enabled": False}, short=True),
    "fnas_no_aeb": Preset("fnas", {"aeb.enabled": False}, short=True),
}


def in_order(names: list[str]) -> list[str]:
    """`names` with each preset behind the one that it is `like`."""
    return sorted(names, key=lambda name: bool(PRESETS[name].like))


def configure(
    config: ml_collections.ConfigDict, name: str, short: float
) -> ml_collections.ConfigDict:
    """`config` as the preset has it; children that train `short` do so for that share of steps."""
    changed = config_lib.flatten(config) | PRESETS[name].settings
    if PRESETS[name].short:
        changed["children.steps"] = max(round(short * changed["children.steps"]), 1)
    return config_lib.validate(config_lib.nest(changed))


class Limited(NamedTuple):
    """The state of a method that may still train some children."""

    inner: Any
    left: Array  # [] int32


def limited(method: SearchMethod, children: int) -> SearchMethod:
    """`method`, of whose proposals no more than so many children are trained in all."""
    return method._replace(
        init=lambda key: Limited(method.init(key), jnp.int32(children)),
        ask=functools.partial(_ask, method),
        tell=functools.partial(_tell, method),
        best=lambda state: method.best(state.inner),
        stats=lambda state: method.stats(state.inner),
    )


def _ask(method: SearchMethod, state: Limited, key: Array) -> tuple[Limited, Proposal]:
    inner, proposal = method.ask(state.inner, key)
    room = jnp.arange(len(proposal.train_mask)) < state.left
    return state._replace(inner=inner), proposal._replace(train_mask=proposal.train_mask & room)


def _tell(method: SearchMethod, state: Limited, proposal: Proposal, metrics: Metrics) -> Limited:
    inner = method.tell(state.inner, proposal, metrics)
    return Limited(inner, state.left - metrics.fresh.sum(dtype=jnp.int32))
