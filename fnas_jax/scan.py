"""A whole search as one pure function of a key, for tasks whose evaluator is jittable.

`jax.jit(jax.vmap(lambda key: run(method, evaluator, key, iterations)))` runs as many searches at
once as it is given keys.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array, Metrics, Proposal
from fnas_jax.methods.base import SearchMethod
from fnas_jax.tasks.base import Evaluator


class Trace(NamedTuple):
    """All proposals of a search in order, I iterations of N; P = I N after `flat`."""

    archs: Array  # [I, N, T] int32
    reward: Array  # [I, N] float32; meaningful where `ok`
    ok: Array  # [I, N] bool: has a measured reward
    fresh: Array  # [I, N] bool: was counted as an evaluation
    predicted: Array  # [I, N] float32 what the method predicted; 0 where it predicts nothing
    stats: dict[str, Array]  # [I] each: the method's statistics
    seconds: Array | None = None  # [I, N] float32 as `Metrics.seconds`; None: not told


class Progress(NamedTuple):
    """A search as a function of its proposals; `judged` and `top` come from outside."""

    evaluations: Array  # [P] int32 fresh evaluations up to and with each proposal
    incumbent: Array  # [P] float32 judged value of the best observed so far; -inf before any
    hit: Array  # [] int32 evaluations when the first of the top was evaluated; -1: never
    # Of a trace with seconds, where each proposal takes its place after all before it:
    seconds: Array | None = None  # [P] float32 spent up to and with each proposal
    hit_seconds: Array | None = None  # [] float32 spent at `hit`; infinite: never


def step(
    method: SearchMethod, evaluator: Evaluator, state: Any, known: Any, key: Array
) -> tuple[Any, Any, Proposal, Metrics]:
    """One iteration: ask, evaluate, tell. Returns both new states, the proposal and metrics."""
    key_ask, key_evaluate = jax.random.split(key)
    state, proposal = method.ask(state, key_ask)
    known, metrics = evaluator.evaluate(known, proposal.archs, proposal.train_mask, key_evaluate)
    return method.tell(state, proposal, metrics), known, proposal, metrics


def run(
    method: SearchMethod, evaluator: Evaluator, key: Array, iterations: int
) -> tuple[Any, Any, Trace]:
    """A search of `iterations` iterations in one `lax.scan`.

    Returns the method's and the evaluator's last states and the trace.
    """
    if not evaluator.jittable:
        raise ValueError("only a jittable evaluator can run inside a scan")
    key_init, key_steps = jax.random.split(key)

    def body(carry: tuple[Any, Any], i: Array) -> tuple[tuple[Any, Any], Trace]:
        state, known, proposal, metrics = step(
            method, evaluator, *carry, jax.random.fold_in(key_steps, i)
        )
        trace = Trace(
            archs=proposal.archs,
            reward=metrics.reward,
            ok=metrics.ok,
            fresh=metrics.fresh,
            predicted=proposal.predicted,
            stats=method.stats(state),
            seconds=metrics.seconds,
        )
        return (state, known), trace

    start = (method.init(key_init), evaluator.init())
    (state, known), trace = jax.lax.scan(body, start, jnp.arange(iterations))
    return state, known, trace


def progress(trace: Trace, judged: Array, top: Array) -> Progress:
    """Counts evaluations and follows the incumbent of one search.

    `judged` [I, N] float is the true value of each proposal and `top` [I, N] bool says which ones
    the search is after. The incumbent is the first proposal with the highest *observed* reward.
    """
    chex.assert_equal_shape([trace.reward, judged, top])
    reward, ok, fresh = (x.reshape(-1) for x in (trace.reward, trace.ok, trace.fresh))
    evaluations = jnp.cumsum(fresh.astype(jnp.int32))
    reward = jnp.where(ok, reward, -jnp.inf)
    record = jax.lax.cummax(reward)
    before = jnp.concatenate([jnp.full(1, -jnp.inf, reward.dtype), record[:-1]])
    holder = jax.lax.cummax(jnp.where(reward > before, jnp.arange(reward.size), -1))
    incumbent = jnp.where(holder < 0, -jnp.inf, judged.reshape(-1)[holder])
    found = fresh & ok & top.reshape(-1)
    hit = jnp.where(found.any(), evaluations[jnp.argmax(found)], -1)
    if trace.seconds is None:
        return Progress(evaluations, incumbent, hit)
    seconds = jnp.cumsum(trace.seconds.reshape(-1))
    hit_seconds = jnp.where(found.any(), seconds[jnp.argmax(found)], jnp.inf)
    return Progress(evaluations, incumbent, hit, seconds, hit_seconds)
