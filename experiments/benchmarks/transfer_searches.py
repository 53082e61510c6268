"""The searches of the benchmark `transfer` on tables, one seed after another."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import table_search
from experiments.benchmarks.presets import SOURCE_ROWS, Preset, source
from experiments.benchmarks.progress import say
from experiments.benchmarks.transfer_methods import EVALUATIONS
from fnas_jax.core.types import Array
from fnas_jax.methods.base import SearchMethod
from fnas_jax.methods.scores import kendall
from fnas_jax.methods.tnas import meta, networks, source_tasks, surrogate
from fnas_jax.methods.tnas import method as tnas
from fnas_jax.methods.tnas.config import Tnas
from fnas_jax.methods.tnas.networks import Weights
from fnas_jax.methods.tnas.source_tasks import SourceTasks
from fnas_jax.spaces.base import Space
from fnas_jax.spaces.enumerate import enumerate_networks
from fnas_jax.tasks import table_index
from fnas_jax.tasks.tables import Table

REGRET_AT = (1, 2, 3, 5, 10, 20, 30, 40, 50)
ROWS = SOURCE_ROWS  # of the history
FULL = "_full"  # the kind of history that is the whole other task
MISLED_ITERATIONS = 150  # at least, where it misleads: the rest of a search has to make up for it


class Outcome(NamedTuple):
    """What S seeds of a method reached on a task."""

    hits: np.ndarray  # [S] evaluations until the first top architecture; inf: never
    regret: np.ndarray  # [S, len(REGRET_AT)] accuracy points, incumbent by observed value
    evaluations: np.ndarray  # [S] spent in all
    seconds: float  # of all seeds together, with compilation
    tau: np.ndarray  # [S] zero-shot Kendall's tau on the whole table; NaN without a history


def searches(
    table: Table, make: Callable[[Any], SearchMethod], each: Any, iterations: int, seeds: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(hits [S], regret [S, ..], evaluations [S]) of S searches by `make(each[s])`, in turn."""
    on = table_search.ground(table)

    def one(pair: tuple[Array, Any]) -> tuple[Array, Array, Array]:
        key, own = pair
        found = table_search.search(on, make(own), key, iterations, REGRET_AT)
        return found.hit, found.regret, found.evaluations

    keys = table_search.seed_keys(seeds)
    found = jax.jit(lambda pairs: jax.lax.map(one, pairs))((keys, each))
    hits, regret, evaluations = map(np.asarray, found)
    return table_search.hits(hits), regret, evaluations


def baseline(
    table: Table, chosen: Preset, seeds: int, other: Table | None, kind: str = ""
) -> Outcome:
    """A method that needs no meta-learning; a warm one knows rows of `other`.

    By a `kind` of `transfer.HISTORIES`, but for the full one.
    """
    start = time.perf_counter()
    known = source(other) if chosen.warm and other is not None else None

    def make(key: Array) -> SearchMethod:
        if known is None:
            return chosen.make(table.space)
        rows = table_search.drawn(known, key)
        told = table_search.misled(jnp.asarray(rows.reward), key, kind)
        return chosen.make(table.space, rows._replace(reward=told))

    keys = table_search.seed_keys(seeds)
    longer = kind in table_search.MISLEADS
    iterations = max(chosen.iterations, MISLED_ITERATIONS) if longer else chosen.iterations
    found = searches(table, make, keys, iterations, seeds)
    return Outcome(*found, time.perf_counter() - start, np.full(seeds, np.nan))


def draw(space: Space, other: Table, key: Array, kind: str) -> SourceTasks:
    """The rows of the other task that a seed knows, by one of `transfer.HISTORIES`."""
    rows = table_search.history_rows(key, len(other.archs), ROWS)
    reward = table_search.misled(jnp.asarray(other.judged)[rows], key, kind)
    everyone = jnp.ones(ROWS, bool)
    forms = space.canonical(jnp.asarray(other.archs)[rows])
    return SourceTasks(
        forms[None], source_tasks.standardise(reward, everyone)[None], everyone[None]
    )


def learn(space: Space, config: Tnas, known: SourceTasks, key: Array) -> Weights:
    """The weights that one history teaches."""
    key_weights, key_meta = jax.random.split(key)
    weights = networks.init(key_weights, space, config, 1, 1)
    return meta.fit(meta.Context(space, config, known), weights, key_meta).best


def search(
    space: Space,
    config: Tnas,
    known: SourceTasks,
    w: Weights,
    support: SourceTasks | None = None,
    capacity: int = EVALUATIONS,
) -> SearchMethod:
    """TNAS with weights that were learnt from the `known` tasks."""
    ctx = tnas.context(
        space, config, proposals=1, capacity=capacity, source=known, weights=w, support=support
    )
    return tnas.make(ctx)


def sampled(table: Table) -> tuple[Array, Array]:
    """(forms [m, T], accuracies [m]) of at most 1000 networks of the table."""
    forms = np.random.default_rng(0).permutation(enumerate_networks(table.space))[:1000]
    rows = np.asarray(table_index.of(table).row_of(jnp.asarray(forms)))
    return jnp.asarray(forms), jnp.asarray(table.judged[rows])


def zero_shot(
    space: Space, some: tuple[Array, Array], config: Tnas, w: Weights, known: SourceTasks
) -> Array:
    """[] Kendall's tau of what is predicted of `some` networks without any evaluation."""
    model = surrogate.condition(space, config, w, known)
    mean = surrogate.conditioned(space, config, model, some[0]).mean
    return kendall(mean, some[1], jnp.isfinite(some[1]))


def transferred(table: Table, config: Tnas, seeds: int, other: Table, kind: str) -> Outcome:
    """TNAS on `table` with a history of the `other` task."""
    space, some, start = table.space, sampled(table), time.perf_counter()
    keys = table_search.seed_keys(seeds)
    if kind == FULL:
        task = np.zeros(len(other.archs), np.int32)
        whole = source_tasks.gather(space, other.archs, other.judged, task)
        support = source_tasks.support(whole, config.support)
        w = jax.jit(lambda key: learn(space, config, whole, key))(keys[0])
        say(f"  learnt from the full history in {time.perf_counter() - start:.0f} s")
        found = searches(
            table,
            lambda _: search(space, config, whole, w, support),
            jnp.zeros(seeds),
            EVALUATIONS,
            seeds,
        )
        tau = zero_shot(space, some, config, w, support)
        return Outcome(*found, time.perf_counter() - start, np.full(seeds, tau))

    def prepared(key: Array) -> tuple[SourceTasks, Weights, Array]:
        known = draw(space, other, key, kind)
        w = learn(space, config, known, jax.random.fold_in(key, table_search.LEARNING))
        return known, w, zero_shot(space, some, config, w, known)

    known, w, tau = jax.block_until_ready(jax.jit(lambda k: jax.lax.map(prepared, k))(keys))
    spent = (time.perf_counter() - start) / seeds
    say(f"  {spent:.1f} s a seed of meta-learning")
    most = MISLED_ITERATIONS if kind else EVALUATIONS
    found = searches(
        table, lambda own: search(space, config, *own, capacity=most), (known, w), most, seeds
    )
    return Outcome(*found, time.perf_counter() - start, np.asarray(tau))


def scratch(table: Table, config: Tnas, seeds: int) -> Outcome:
    """TNAS without any history: the deep kernel, not meta-learnt."""
    start = time.perf_counter()
    ctx = tnas.context(table.space, config, proposals=1, capacity=2 * EVALUATIONS)
    found = searches(
        table,
        lambda _: tnas.make(ctx),
        jnp.zeros(seeds),
        2 * EVALUATIONS,
        seeds,
    )
    return Outcome(*found, time.perf_counter() - start, np.full(seeds, np.nan))


def speed(table: Table, other: Table) -> tuple[float, float]:
    """Seconds of meta-learning on a whole task and of a trial, by the product's default sizes."""
    space, config = table.space, Tnas()
    whole = source_tasks.gather(
        space, other.archs, other.judged, np.zeros(len(other.archs), np.int32)
    )
    start = time.perf_counter()
    learning = jax.jit(lambda key: learn(space, config, whole, key))
    w = jax.block_until_ready(learning(jax.random.key(0)))
    learnt = time.perf_counter() - start
    method = search(space, config, whole, w, source_tasks.support(whole, config.support))
    state, ask = jax.jit(method.init)(jax.random.key(1)), jax.jit(method.ask)
    spent = []
    for i in range(11):
        start = time.perf_counter()
        jax.block_until_ready(ask(state, jax.random.key(i)))
        spent.append(time.perf_counter() - start)
    return learnt, float(np.median(spent[1:]))  # the first compiles
