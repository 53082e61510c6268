"""The critic of Gaussian processes, as a search uses it; `processes.py` has their mathematics."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.methods import scores as scoring
from fnas_jax.methods.fnas import improvement, processes, replay, transfer
from fnas_jax.methods.fnas.config import Fnas, Uac
from fnas_jax.methods.fnas.processes import State
from fnas_jax.methods.fnas.replay import ELITE
from fnas_jax.spaces.base import Space


class Context(NamedTuple):
    """What does not change during a search."""

    inner: processes.Context
    verify: int  # architectures picked at a time


def context(
    space: Space,
    config: Uac,
    fnas: Fnas,
    capacity: int,
    source: transfer.SourceTasks | None,
) -> Context:
    """The processes of a search whose buffer holds `capacity` samples."""
    return Context(processes.Context(space, min(config.rows, capacity), source), fnas.verify)


def init(ctx: Context, key: Array) -> State:
    """Processes that know nothing of this task, but what there is of others."""
    return processes.init(ctx.inner, key)


def source_prediction(ctx: Context, state: State, archs: Array) -> Array:
    """[n] scores of canonical `archs` [n, T] by knowledge of other tasks alone; 0 without."""
    return processes.foreign_mean(ctx.inner, state, archs)


def predict(ctx: Context, state: State, archs: Array) -> tuple[Array, Array]:
    """Scores [n] of canonical `archs` [n, T] and their uncertainties [n]."""
    return processes.mixture(state, processes.posterior(ctx.inner, state, archs))


def targets(ctx: Context, state: State, buffer: replay.Buffer) -> Array:
    """[C] scores of the buffer's samples; every process brings them to its own scale."""
    return scoring.rank_scores(buffer.reward, replay.filled(buffer))


def fit(ctx: Context, state: State, buffer: replay.Buffer, scores: Array, places: Array) -> State:
    """The state that knows the `scores` [C] of the buffer's `places`."""
    mask = replay.filled(buffer)[places]
    archs = jnp.maximum(buffer.canonical[places], 0)
    return processes.fit(ctx.inner, state, archs, scores[places], mask)


def reconsider(ctx: Context, state: State, agreement: Array, count: Array) -> State:
    """The same state: processes that know other tasks are weighed in every fit."""
    return state


def source_share(state: State) -> Array:
    """[] float32 share of the prediction that rests on other tasks."""
    return processes.foreign_share(state)


def pick(
    ctx: Context, state: State, key: Array, archs: Array, new: Array, factor: Array
) -> tuple[Array, Array]:
    """Places of the `fnas.verify` most promising of `archs` [m, T] that are `new` [m], and of an
    elite, both by expected improvement.
    """
    return improvement.pick(ctx.inner, state, key, archs, new, ctx.verify, ELITE)
