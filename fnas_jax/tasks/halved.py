"""Batches of children of which those stop early that fall behind (`training.halving`).

They train side by side, from rung to rung; at each, those that are still there are judged, and all
hosts decide alike which go on. A child that does is trained by the very steps that it would have
made without the others. Long batches are kept on the way, as all are (`long_batches`).
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core import devices, hosts, identity
from fnas_jax.core.keep import NOWHERE
from fnas_jax.core.types import Array, UserError
from fnas_jax.tasks import long_batches
from fnas_jax.tasks.context import Batch, TrainContext
from fnas_jax.training import halving, parts, population, streaming
from fnas_jax.training.child import Progress
from fnas_jax.training.halving import Ladder
from fnas_jax.training.minibatches import Data
from fnas_jax.training.population import Child, Context, Trained
from fnas_jax.training.streaming import Compiled

_DEALING = 2**31  # the key of brackets is folded with it, those of children with their places


class Climbing(NamedTuple):
    """M children in training, R rungs; on the devices over which children are divided."""

    progress: Progress
    going: Array  # [M] bool
    readings: Array  # [M, R] float32 accuracies at the rungs, NaN where a child did not come
    rewards: Array  # [M, R] float32 of these, NaN also for failed ones
    # [M, 4] float32 latency (ms), multiply-adds (millions), parameters (millions), and the price:
    # as they were when the batch began, also where it goes on after a kill and is timed anew
    costs: Array


class Ranked(NamedTuple):
    """What children are compared by, beside their readings; numpy, the same on all hosts."""

    ladder: Ladder
    costs: Any  # [M, 4] float32, as `Climbing` has them
    brackets: Any  # [M] int32 rungs that each of them skips


class Halved(NamedTuple):
    """M children after their training; numpy, the same on all hosts."""

    going: Any  # as `Climbing` has these
    readings: Any
    rewards: Any


class How(NamedTuple):
    """How batches are trained; nothing that changes."""

    context: TrainContext
    population: Context
    compiled: Compiled
    chunk: int | None  # images on a device at a time; None: all


def make(ctx: TrainContext, trained: Context, chunk: int | None) -> How:
    """The compiled parts of trainings by `trained`."""
    if chunk is not None:
        chunk = streaming.with_a_batch(chunk, trained)
    return How(ctx, trained, streaming.compiled(trained), chunk)


def rungs(ctx: TrainContext) -> tuple[int, ...]:
    """Steps after which children are judged; (): all are trained in full.

    Raises UserError where nobody could stop although that is asked for.
    """
    settings = ctx.settings
    found = halving.rungs(settings.steps, settings.halving, settings.rungs)
    if settings.halving and not found:
        raise UserError(
            f"with children.halving={settings.halving} and children.steps={settings.steps} there is"
            " no rung at which children could stop; allowed are a halving of 2 to 16 and more steps"
            " than that, or 0: all are trained in full, but by hyperband and bohb"
        )
    return found


def empty(ctx: TrainContext) -> Ladder:
    """What is known before the first child; there are rungs."""
    return halving.empty(len(rungs(ctx)), ctx.settings.brackets)


def dealt(ctx: TrainContext, key: Array, new: Array) -> np.ndarray:
    """[N] int32: the brackets of the children of `new` [N] of a batch with this `key`."""
    among = halving.shares(len(rungs(ctx)), ctx.settings.halving, ctx.settings.brackets)
    return halving.dealt(jax.random.fold_in(key, _DEALING), new, among)


def ranked(ctx: TrainContext, ladder: Ladder, batch: Batch, brackets: np.ndarray) -> Ranked:
    """For the children of `batch`, of these `brackets` [M]; numbers that nobody knows are NaN."""
    latency = np.full(len(batch.new), np.nan) if batch.latency_ms is None else batch.latency_ms
    costs = (latency, np.asarray(batch.macs) / 1e6, np.asarray(batch.params) / 1e6)
    numbers = (*costs, ctx.prices(batch.canonical))
    by = np.stack(numbers, axis=1).astype(np.float32)
    return Ranked(jax.device_get(ladder), by, brackets)


def train(
    how: How, by: Ranked, data: Data, archs: Array, active: Array, keys: Array, *start: Any
) -> tuple[Trained, Halved]:
    """Trains children; arguments as of `population.make`, whose `start` are the last two."""
    ctx, total, at = how.context, how.context.settings.steps, rungs(how.context)
    pool, sources = start or (None, None)
    children = Child(archs, active, population.checked_keys(archs, active, keys), sources)
    unread = np.full((len(active), len(at)), np.nan, np.float32)
    unread, costs = devices.shard((unread, by.costs), how.population.mesh)
    begun = Climbing(how.compiled.begin(pool, children), active, unread, unread, costs)
    training = streaming.training_of(how.population, how.compiled, children, total)._replace(
        advance=functools.partial(advance, how, by, data, children, at),
        lost=functools.partial(lost, how, children),
        over=nobody,
        edges=at,
    )
    first, keep = parts.Kept(0, 0.0, begun), NOWHERE
    if long_batches.are_long(ctx):
        given, keep = (archs, active, long_batches.raw(keys)), ctx.keep
        of, name = long_batches.described(ctx, given, begun.progress, how.chunk)
        of += identity.of_arrays(tuple(by.ladder))
        training = training._replace(name=name, of=of)
        first = long_batches.kept(keep, training, begun, how.population)
    settings, mesh = ctx.settings, how.population.mesh
    spans = streaming.spans(settings, mesh, data, total, how.chunk, first.step)
    end = parts.run(training, first, spans, keep)
    whole = streaming.judged(
        how.population, how.compiled, how.chunk, data, (end.progress, children)
    )
    return whole, Halved(*hosts.gather((end.going, end.readings, end.rewards)))


def advance(
    how: How,
    by: Ranked,
    everything: Data,
    children: Child,
    at: tuple[int, ...],
    data: Data,
    now: Climbing,
    done: int,
    upto: int,
    first: int,
) -> Climbing:
    """As `parts.Training` has it: after the steps up to `upto`, and the rung there, if any."""
    mesh, own = how.population.mesh, children._replace(active=now.going)
    span = streaming.span_of(mesh, data, done, upto, first, how.context.settings.steps)
    progress = how.compiled.advance(span, now.progress, own)
    if how.population.own is not None:  # programs for each child give nothing where none is run
        progress = _where(now.going, progress, now.progress)
    now = now._replace(progress=progress)
    if upto not in at:
        return now
    return decided(how, by, everything, own, at.index(upto), now)


def decided(
    how: How, by: Ranked, data: Data, children: Child, rung: int, now: Climbing
) -> Climbing:
    """`now` after the children that are still there, the active ones, have come to a rung.

    Those are judged whose bracket does not skip it.
    """
    ctx, mesh = how.context, how.population.mesh
    here = by.brackets <= rung
    children = children._replace(active=children.active & devices.shard(here, mesh))
    judged = streaming.judged(
        how.population, how.compiled, how.chunk, data, (now.progress, children)
    )
    outcome, going, costs, *read = hosts.gather(
        (judged.outcome, now.going, now.costs, now.readings, now.rewards)
    )
    accuracy = np.where(going & here, outcome.accuracy, np.nan).astype(np.float32)
    reward = np.asarray(ctx.reward(jnp.asarray(accuracy), *jnp.asarray(costs[:, :3]).T))
    reward = reward * costs[:, 3]
    reward = np.where(outcome.ok & np.isfinite(reward), reward, np.nan).astype(np.float32)
    read = [_with(r, rung, v) for r, v in zip(read, (accuracy, reward), strict=True)]
    going = going & halving.goes_on(by.ladder, rung, reward, ctx.settings.halving, by.brackets)
    going, readings, rewards = devices.shard((going, *read), mesh)
    return now._replace(going=going, readings=readings, rewards=rewards)


def nobody(now: Climbing) -> bool:
    """Whether no child goes on."""
    return not hosts.gather(now.going).any()


@jax.jit
def _where(mask: Array, these: Progress, others: Progress) -> Progress:
    """`these` [M, ..] of the children of `mask` [M], and `others` of the rest."""

    def chosen(a: Array, b: Array) -> Array:
        return jnp.where(mask.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(chosen, these, others)


def _with(numbers: np.ndarray, column: int, values: np.ndarray) -> np.ndarray:
    """A copy of `numbers` [M, R] with other values [M] in one column."""
    changed = np.array(numbers)
    changed[:, column] = values
    return changed


def lost(how: How, children: Child, now: Climbing) -> bool:
    """Whether nothing will come of any child that goes on; False where none does."""
    own = children._replace(active=now.going)
    return bool(np.asarray(how.compiled.lost(now.progress, own) & now.going.any()))
