"""The evaluator of children: what is known is looked up, what is new is judged.

How a child is judged is a function that `trained` and `inherited` supply: by training it, or with
the weights of a network for all of them. In whatever form a child is asked for, its canonical form
is what is trained, priced, timed, remembered and reported.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core import budget
from fnas_jax.core.limits import within
from fnas_jax.core.types import Array, Metrics
from fnas_jax.tasks import cache, limited, remaining
from fnas_jax.tasks.base import Evaluator, Hooks
from fnas_jax.tasks.cache import EvaluationCache
from fnas_jax.tasks.context import Batch, TrainContext, batch_of
from fnas_jax.training.child import Outcome

# (what the judge has learnt, batch, key) -> (what it has learnt then, outcomes [N])
Judge = Callable[[Any, Batch, Array], tuple[Any, Outcome]]


class State(NamedTuple):
    """What an evaluator knows."""

    cache: EvaluationCache
    learnt: Any  # the judge's own pytree


def make(
    ctx: TrainContext,
    judge: Judge,
    init: Callable[[], Any],
    stats: Callable[[Any], dict[str, Array]] = lambda learnt: {},
    hooks: Hooks | None = None,
    protocol: str = "",
) -> Evaluator:
    """The evaluator that judges by `judge`; not jittable, because it measures time.

    `init` gives what the judge has learnt at first, `stats` what of it is worth logging; `hooks`
    are functions of the whole `State`, and `protocol` says how it judges.
    """
    counted = remaining.of(ctx.space, limited.allowed(ctx))
    return Evaluator(
        init=functools.partial(initial, ctx, init),
        evaluate=functools.partial(evaluate, ctx, judge),
        jittable=False,
        form=ctx.canonical,
        left=None if counted is None else lambda state: counted(state.cache),
        stats=functools.partial(statistics, ctx, stats),
        hooks=hooks or Hooks(),
        protocol=protocol,
    )


def statistics(
    ctx: TrainContext, of_learnt: Callable[[Any], dict[str, Array]], state: State
) -> dict[str, Array]:
    """What is worth logging: `over_limit` counts networks that a limit kept from being judged."""
    found = of_learnt(state.learnt)
    if not ctx.limits.any:
        return found
    taken = jnp.arange(len(state.cache.canonical)) < state.cache.size
    return found | {"over_limit": (taken & ~state.cache.metrics.fresh).sum()}


def initial(ctx: TrainContext, init: Callable[[], Any]) -> State:
    """Before the first evaluation."""
    capacity = budget.places(ctx.config.search, refused=ctx.limits.any)
    decisions = len(ctx.space.cardinalities)
    return State(cache.empty(capacity, decisions, bool(ctx.settings.halving)), init())


def evaluate(
    ctx: TrainContext, judge: Judge, state: State, archs: Array, mask: Array, key: Array
) -> tuple[State, Metrics]:
    """As `Evaluator.evaluate`.

    Judges what the method wants (`mask`, its `Proposal.train_mask`) and the cache does not hold.
    """
    canonical = ctx.canonical(archs)
    lookup = _look_up(state.cache, canonical, mask)
    if lookup.new.any():
        start = time.monotonic()
        priced = batch_of(ctx, archs, lookup.new)
        # First the limits on costs that are known: nobody waits for the latency of what is refused.
        free = ctx.limits._replace(latency_ms=0.0)
        cheap = within(
            free, jnp.asarray(unknown(len(archs))), priced.macs / 1e6, priced.params / 1e6
        )
        latency = latencies(ctx, priced._replace(new=lookup.new & cheap))
        costs = (latency, priced.macs / 1e6, priced.params / 1e6)
        new = lookup.new & within(ctx.limits, *costs)
        batch = priced._replace(new=new, latency_ms=latency)
        learnt, outcome = state.learnt, nothing(len(archs))
        if batch.new.any():
            learnt, outcome = judge(state.learnt, batch, key)
        measured = measure(ctx, batch, outcome, costs, start)
        state = State(_remember(state.cache, lookup, canonical, measured), learnt)
    return state, _recall(state.cache, lookup)


def latencies(ctx: TrainContext, batch: Batch) -> Array:
    """[N] milliseconds of the new ones, NaN for others.

    By a table or a function, those of all new ones; timed here, where the reward or a limit asks.
    """
    latency, new = unknown(len(batch.new)), np.asarray(batch.new)
    if ctx.latency.of is not None and new.any():
        # Others are not asked for: in their places stands the first new one.
        archs = jnp.where(new[:, None], batch.canonical, batch.canonical[new.argmax()])
        latency = np.where(new, ctx.latency.of(archs), latency)
    elif ctx.times:
        for i in np.flatnonzero(new):
            latency[i] = ctx.latency_ms(batch.canonical[i])
    return jnp.asarray(latency)


def unknown(n: int) -> np.ndarray:
    """[N] costs that nobody has asked for: NaN."""
    return np.full(n, np.nan, np.float32)


def nothing(n: int) -> Outcome:
    """Of N children that were not judged."""
    zeros = jnp.zeros(n, jnp.float32)
    return Outcome(zeros, zeros, jnp.zeros(n, bool))


def measure(
    ctx: TrainContext,
    batch: Batch,
    outcome: Outcome,
    costs: tuple[Array, Array, Array],
    start: float,
) -> Metrics:
    """Metrics of the new children of a batch, judged since `start` (of the monotonic clock)."""
    # The time of a batch is divided in proportion to the multiply-adds of its children.
    work = np.where(batch.new, np.asarray(batch.macs), 0.0)
    seconds = (time.monotonic() - start) * work / max(work.sum(), 1.0)
    ok = outcome.ok & batch.new
    accuracy = jnp.where(ok, outcome.accuracy, 0.0)
    reward = ctx.reward(accuracy, *costs) * ctx.prices(batch.canonical)
    return Metrics(
        accuracy=accuracy,
        reward=jnp.where(ok, reward, 0.0),
        latency_ms=costs[0],
        mflops=costs[1],
        params_m=costs[2],
        seconds=jnp.asarray(seconds, jnp.float32),
        ok=ok,
        fresh=batch.new,
        stopped=stopped(ctx, batch, outcome),
    )


def stopped(ctx: TrainContext, batch: Batch, outcome: Outcome) -> Array | None:
    """[N] int32 as `Metrics.stopped`."""
    if not ctx.settings.halving:
        return None
    if outcome.stopped is None:
        return jnp.zeros(len(batch.new), jnp.int32)
    return jnp.where(batch.new & outcome.ok, outcome.stopped, 0)


_look_up = jax.jit(cache.look_up)
_remember = jax.jit(cache.remember)
_recall = jax.jit(cache.recall)
