"""Searches on tables: when they find a top architecture, and what they have missed on the way.

A seed is a key that all methods share: whatever they ask for, a row of the table gives each of them
the same reading, and warm ones know the same rows of the other task. So methods are compared seed
by seed.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.presets import Preset, source
from fnas_jax import scan
from fnas_jax.core.sections import Features
from fnas_jax.core.types import Array
from fnas_jax.methods import scores
from fnas_jax.methods.base import SearchMethod
from fnas_jax.methods.fnas.method import RULES
from fnas_jax.methods.fnas.transfer import SourceTasks
from fnas_jax.tasks import table_features, table_index, tabular
from fnas_jax.tasks.base import Evaluator
from fnas_jax.tasks.tables import Table

REGRET_AT = (25, 50, 100, 200, 500)
READINGS, HISTORY, LEARNING, MISLEADING = 2, 3, 4, 5  # purposes of a seed's key; 0, 1: a search
# Histories that mislead: accuracies permuted, and the order upside down.
MISLEADS = PERMUTED, REVERSED = "_misled", "_reversed"


class Ground(NamedTuple):
    """A table, ready to be searched."""

    where: table_index.Index
    evaluator_of: Callable[[Array], Evaluator]  # of a seed's key
    judged: Array  # [M] accuracy by which each row is judged
    top: Array  # [M] bool, whether it is among the best 0.1%
    best: float  # the largest of `judged`


class Result(NamedTuple):
    """What one search came to."""

    hit: Array  # [] evaluations until the first top architecture; -1: never
    best_hit: Array  # [] the same for the table's best one
    regret: Array  # [K] accuracy points, of the incumbent by observed value
    evaluations: Array  # [] spent in all
    hit_seconds: Array  # [] training seconds of the table at `hit`; infinite: never
    trace: scan.Trace


def informed(table: Table) -> Table:
    """The table with what the product's defaults let methods know of its networks."""
    where = table_index.of(table)
    known = table_features.of(Features(), table, where, tabular.existing(table, where))
    return table._replace(space=table.space._replace(features=known))


def ground(table: Table, noisy: bool = True) -> Ground:
    """`noisy`: a query sees one of a row's readings."""
    where = table_index.of(table)
    return Ground(
        where,
        functools.partial(_evaluator, table, where, noisy),
        jnp.asarray(table.judged),
        jnp.asarray(tabular.top_rows(table)),
        float(np.nanmax(table.judged)),
    )


def _evaluator(table: Table, where: table_index.Index, noisy: bool, key: Array) -> Evaluator:
    """The evaluator of a seed, which has drawn the reading of every row beforehand."""
    readings = jnp.asarray(table.readings)
    drawn = jax.random.randint(
        jax.random.fold_in(key, READINGS), (len(readings), 1), 0, readings.shape[1]
    )
    own = table._replace(readings=jnp.take_along_axis(readings, drawn, axis=1))
    return tabular.evaluator(own, where, lambda accuracy, *costs: accuracy, noisy)


def seed_keys(seeds: int) -> Array:
    """[S] the keys that every method starts from."""
    return jax.random.split(jax.random.key(0), seeds)


def history_rows(key: Array, known: int, rows: int) -> Array:
    """[rows] int32: those of `known` rows of the other task that a seed's searches know."""
    return jax.random.choice(jax.random.fold_in(key, HISTORY), known, (rows,), replace=False)


def drawn(known: SourceTasks, key: Array) -> SourceTasks:
    """The rows of the other task that a seed's searches know, `known.rows` of them."""
    rows = history_rows(key, len(known.reward), known.rows)
    archs, reward, task = (jnp.asarray(x)[rows] for x in known[:3])
    return known._replace(archs=archs, reward=reward, task=task)


def misled(reward: Array, key: Array, kind: str) -> Array:
    """What a history says instead of `reward` [n], if its `kind` is one of `MISLEADS`."""
    if kind == PERMUTED:
        return jax.random.permutation(jax.random.fold_in(key, MISLEADING), reward)
    return reward.min() + reward.max() - reward if kind == REVERSED else reward


def search(
    on: Ground, method: SearchMethod, key: Array, iterations: int, regret_at: Sequence[int]
) -> Result:
    """A pure function of the seed's key; regret after each of K numbers of evaluations."""
    return summed(on, scan.run(method, on.evaluator_of(key), key, iterations)[2], regret_at)


def summed(on: Ground, trace: scan.Trace, regret_at: Sequence[int]) -> Result:
    """What a search came to.

    Regret is infinite where the first proposal was more than so many evaluations, and that of a
    search which ended before so many is its last.
    """
    rows = on.where.row_of(trace.archs.reshape(-1, trace.archs.shape[-1])).reshape(trace.ok.shape)
    judged = on.judged[rows]
    progress = scan.progress(trace, judged, on.top[rows])
    best_hit = scan.progress(trace, judged, judged >= jnp.float32(on.best)).hit
    counts = progress.evaluations
    last = jnp.array([jnp.sum(counts <= n) - 1 for n in regret_at])
    regret = jnp.where(last < 0, jnp.inf, 100 * (on.best - progress.incumbent[last]))
    hit_seconds = jnp.float32(jnp.nan) if progress.hit_seconds is None else progress.hit_seconds
    return Result(progress.hit, best_hit, regret, counts[-1], hit_seconds, trace)


def hits(found: Array) -> np.ndarray:
    """[S] float64 of `Result.hit` of S seeds; infinity: never."""
    return np.where(np.asarray(found) < 0, np.inf, np.asarray(found, np.float64))


# ---- all seeds side by side


class Outcome(NamedTuple):
    """What S seeds of a method reached on a table."""

    hits: np.ndarray  # [S] evaluations until the first top architecture; inf: never
    best_hits: np.ndarray  # [S] the same for the table's best one
    regret: np.ndarray  # [S, len(REGRET_AT)] accuracy points, incumbent by observed value
    evaluations: np.ndarray  # [S] evaluations spent in all
    seconds: float  # of all seeds together, after compilation
    coverage: np.ndarray  # [S] share of errors within U, second half; NaN without a critic
    tau: np.ndarray  # [S] Kendall's tau of predictions and first readings, second half
    shares: dict[str, np.ndarray]  # [S] each: of what was trained, by `RULES`; {} without a critic
    # [S] training seconds up to the first top one; inf: never; None: the table has no times
    hit_seconds: np.ndarray | None = None


def measure(
    table: Table, preset: Preset, seeds: int, noisy: bool = True, other: Table | None = None
) -> Outcome:
    """Runs `seeds` searches of one method side by side; a warm one knows rows of `other`."""
    on = ground(table, noisy)
    known = source(other) if preset.warm and other is not None else None
    cold = None if known is not None else preset.make(table.space)

    def one(key: jax.Array) -> tuple[jax.Array, ...]:
        method = cold or preset.make(table.space, drawn(known, key))
        found = search(on, method, key, preset.iterations, REGRET_AT)
        quality = prediction_quality(found.trace)
        of_rules = shares(found.trace)
        counted = found.hit, found.best_hit, found.regret, found.evaluations
        return *counted, *quality, of_rules, found.hit_seconds

    keys = seed_keys(seeds)
    compiled = jax.jit(jax.vmap(one)).lower(keys).compile()
    start = time.perf_counter()
    found = jax.block_until_ready(compiled(keys))
    seconds = time.perf_counter() - start
    *counted, coverage, tau, of_rules, hit_seconds = jax.tree.map(np.asarray, found)
    hit, best_hit, regret, spent = counted
    times = None if table.seconds is None else hit_seconds
    each = hits(hit), hits(best_hit), regret, spent
    return Outcome(*each, seconds, coverage, tau, of_rules, times)


def comparable(mine: Any, theirs: Any) -> tuple[np.ndarray, np.ndarray]:
    """(hits [S], hits [S]) of two outcomes with the same seeds, as far as both were followed.

    Of a search that ended without arriving nothing is known beyond what it spent: a hit of the
    other one after that counts as none, too, because neither is shown to be the better one.
    """
    late = np.isinf(theirs.hits) & (mine.hits > theirs.evaluations)
    their_late = np.isinf(mine.hits) & (theirs.hits > mine.evaluations)
    return np.where(late, np.inf, mine.hits), np.where(their_late, np.inf, theirs.hits)


def shares(trace: scan.Trace) -> dict[str, jax.Array]:
    """[] each: the share of the trained networks that a rule of FNAS asked for; {} elsewhere."""
    trained = jnp.maximum(trace.fresh.sum(), 1)
    known = [rule for rule in RULES if f"for_{rule}" in trace.stats]
    return {rule: trace.stats[f"for_{rule}"].sum() / trained for rule in known}


def prediction_quality(trace: scan.Trace) -> tuple[jax.Array, jax.Array]:
    """Coverage and Kendall's tau of a critic in the second half; NaN where there is none."""
    if "checked" not in trace.stats:
        return jnp.float32(jnp.nan), jnp.float32(jnp.nan)
    half = len(trace.ok) // 2
    covered, checked = (trace.stats[name][half:].sum() for name in ("covered", "checked"))
    fresh = (trace.ok & trace.fresh)[half:].reshape(-1)
    predicted, reward = (x[half:].reshape(-1) for x in (trace.predicted, trace.reward))
    return covered / checked, scores.kendall(predicted, reward, fresh)
