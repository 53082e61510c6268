"""What the methods of the benchmark `transfer` find on image tasks, where the others are known.

Figures are means over the tasks of `image_tasks.py`, one of which at a time is left out; `low` and
`high` are over the seeds of the searches. Meta-learning, and so tau, has one seed. Methods are
compared with `gp_ei` seed by seed: `accuracy@N_minus_gp_ei` in shares, and the share of seeds won.
"""

from __future__ import annotations

import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import image_tasks, records
from experiments.benchmarks.progress import followed, say
from experiments.benchmarks.records import Record
from fnas_jax import scan
from fnas_jax.core.types import Array
from fnas_jax.methods.baselines import gp, random
from fnas_jax.methods.baselines.config import Gp
from fnas_jax.methods.fnas import method as fnas
from fnas_jax.methods.fnas import transfer
from fnas_jax.methods.fnas.config import Aeb, Config, Uac
from fnas_jax.methods.scores import kendall
from fnas_jax.methods.tnas import features, meta, networks, source_tasks, surrogate
from fnas_jax.methods.tnas import method as tnas
from fnas_jax.methods.tnas.config import Tnas
from fnas_jax.methods.tnas.source_tasks import SourceTasks
from fnas_jax.spaces.base import Space
from fnas_jax.spaces.enumerate import enumerate_networks
from fnas_jax.tasks import table_index, tables, tabular

BENCHMARK, TASK = "transfer", "image_tasks"
AGAINST = "gp_ei"
ROWS = 40  # of each known task
BEST_AT = (1, 2, 3, 5, 10, 20)
VARIANTS = {  # the product's defaults, and one part changed
    "tnas": Tnas(),
    "tnas_joint": Tnas(meta="joint"),
    "tnas_no_data": Tnas(data_encoder=False),
}


class Outcome(NamedTuple):
    """Of one method on one task, S seeds."""

    best: Array  # [S, len(BEST_AT)] best accuracy after so many evaluations
    tau: Array  # [] zero-shot, on all networks of the space; NaN without a history


def search(spc: Space, accuracy: Array, method: Any, seeds: int, iterations: int) -> Array:
    """[S, len(BEST_AT)] of searches among the networks of the space with these accuracies [M]."""
    forms = enumerate_networks(spc)
    nothing = np.full(len(forms), np.nan, np.float32)
    empty = tables.Table("", spc, forms, nothing, nothing[:, None], *[nothing] * 3, note="")
    with jax.ensure_compile_time_eval():
        where = table_index.of(empty)
    # The accuracies are an argument, so that one compiled program serves all tasks.
    table = empty._replace(judged=accuracy, readings=accuracy[:, None])
    evaluator = tabular.evaluator(table, where, lambda accuracy, *costs: accuracy, False)

    def one(key: Array) -> Array:
        _, _, trace = scan.run(method, evaluator, key, iterations)
        count = jnp.cumsum(trace.fresh.reshape(-1))
        reward = jnp.where(trace.fresh & trace.ok, trace.reward, 0.0).reshape(-1)
        return jnp.stack([jnp.max(jnp.where(count <= n, reward, 0.0)) for n in BEST_AT])

    return jax.lax.map(one, jax.random.split(jax.random.key(0), seeds))


def known_tasks(
    named: dict[str, tables.Table], samples: dict[str, np.ndarray], target: str, seed: int
) -> tuple[SourceTasks, int]:
    """The history of all tasks but `target`, with all data sets, and features of an image."""
    others = [name for name in named if name != target]
    rng = np.random.default_rng(seed)
    archs, reward, task = [], [], []
    for q, name in enumerate(others):
        rows = rng.permutation(len(named[name].archs))[:ROWS]
        archs.append(named[name].archs[rows])
        reward.append(named[name].judged[rows])
        task.append(np.full(ROWS, q))
    every = [samples[name].astype(np.float32) / 255 for name in [*others, target]]
    sample = features.sample(every, features.EXTRACTORS[Tnas().features], Tnas().images)
    joined = (np.concatenate(part) for part in (archs, reward, task))
    return source_tasks.gather(named[target].space, *joined, sample), sample.features.shape[-1]


def transferred(
    spc: Space,
    config: Tnas,
    width: int,
    seeds: int,
    known: SourceTasks,
    accuracy: Array,
) -> Outcome:
    """TNAS on one task: meta-learnt once, zero-shot on all networks, then S searches."""
    key_weights, key_meta = jax.random.split(jax.random.key(0))
    weights = networks.init(key_weights, spc, config, len(known.mask), width)
    w = meta.fit(meta.Context(spc, config, known), weights, key_meta).best
    model = surrogate.condition(spc, config, w, known)
    mean = surrogate.conditioned(spc, config, model, jnp.asarray(enumerate_networks(spc))).mean
    tau = kendall(mean, accuracy, jnp.ones(len(mean), bool))
    ctx = tnas.context(
        spc, config, proposals=1, capacity=BEST_AT[-1], source=known, weights=w, features=width
    )
    return Outcome(search(spc, accuracy, tnas.make(ctx), seeds, BEST_AT[-1]), tau)


def plain(
    spc: Space, method: Any, iterations: int, seeds: int, known: Any, accuracy: Array
) -> Outcome:
    """A method that knows of no other task."""
    return Outcome(search(spc, accuracy, method, seeds, iterations), jnp.float32(jnp.nan))


def foreign(known: SourceTasks) -> transfer.SourceTasks:
    """The same history as FNAS reads it, all rows of it.

    Numbers that describe the tasks are left out: the images are standardised and of one shape, so
    that all tasks have the same ones, and the product would drop them.
    """
    tasks, rows, decisions = known.archs.shape
    task = np.repeat(np.arange(tasks, dtype=np.int32), rows)
    archs, reward = known.archs.reshape(-1, decisions), known.scores.reshape(-1)
    nothing = np.zeros((tasks + 1, 0), np.float32)
    return transfer.SourceTasks(archs, reward, task, nothing, tasks * rows)


def warm(
    spc: Space, config: Config, iterations: int, seeds: int, known: SourceTasks, accuracy: Array
) -> Outcome:
    """FNAS that knows the other tasks."""
    method = fnas.make(spc, config, foreign(known))
    return plain(spc, method, iterations, seeds, known, accuracy)


def methods(spc: Space, width: int, seeds: int) -> dict[str, Any]:
    """(history, accuracies) -> Outcome of every method, compiled once each."""
    # Batches of four, of which most are trained. Warming up by default takes two of them, and so
    # nearly half of the evaluations: `fnas_short` does with one.
    small = Config(batch=4, aeb=Aeb(capacity=64))
    short = small._replace(uac=Uac(warmup=4))
    made = {
        "gp_ei": (gp.make(spc, Gp(start=5), batch=1, capacity=BEST_AT[-1]), BEST_AT[-1]),
        "fnas": (fnas.make(spc, small), 30),
        "fnas_short": (fnas.make(spc, short), 30),
        "random": (random.make(spc, batch=1), 40),
    }
    found = {
        name: functools.partial(plain, spc, method, iterations, seeds)
        for name, (method, iterations) in made.items()
    }
    found["fnas_warm"] = functools.partial(warm, spc, small, 30, seeds)
    for name, config in VARIANTS.items():
        found[name] = functools.partial(transferred, spc, config, width, seeds)
    return {name: jax.jit(function) for name, function in found.items()}


def figures(outcomes: dict[str, list[Outcome]], named: dict[str, tables.Table]) -> list[Record]:
    """Records of the outcomes of each method on the named tasks, in this order."""
    top = np.array([table.judged.max() for table in named.values()])[:, None, None]
    found = []
    for method, each in outcomes.items():
        names = (BENCHMARK, TASK, method)
        best = np.stack([o.best for o in each])  # [tasks, S, ..]
        of_seed, missed = best.mean(axis=0), 100 * (top - best).mean(axis=0)
        for metric, values in (("accuracy", of_seed), ("regret", missed)):
            found += [
                records.over_seeds(*names, f"{metric}@{n}", values[:, i], records.mean)
                for i, n in enumerate(BEST_AT)
            ]
        tau = float(np.mean([o.tau for o in each]))
        if np.isfinite(tau):
            found.append(records.record(*names, "tau_zero_shot", tau))
        if AGAINST in outcomes and method != AGAINST:
            theirs = np.stack([o.best for o in outcomes[AGAINST]]).mean(axis=0)
            for i, n in list(enumerate(BEST_AT))[-3:]:
                pairs = (of_seed[:, i], theirs[:, i])
                paired = functools.partial(records.paired, *names, f"accuracy@{n}", AGAINST)
                found += paired(*pairs, records.DIFFERENCE)
    return found


def run(folder: str, seeds: int) -> list[Record]:
    """Trains what is missing, compares all methods, prints and returns the records."""
    image_tasks.train(folder)
    named, samples = image_tasks.tables_of(folder)
    outcomes: dict[str, list[Outcome]] = {}
    compiled: dict[str, Any] = {}
    for number, target in followed(BENCHMARK, enumerate(named), lambda item: item[1]):
        table = named[target]
        known, width = known_tasks(named, samples, target, number)
        compiled, start = compiled or methods(table.space, width, seeds), time.perf_counter()
        for method, function in compiled.items():
            found = jax.device_get(function(known, jnp.asarray(table.judged)))
            outcomes.setdefault(method, []).append(found)
        taus = " ".join(f"{m} {outcomes[m][-1].tau:.2f}" for m in VARIANTS)
        span = f"{table.judged.min():.3f} .. {table.judged.max():.3f}"
        seconds = time.perf_counter() - start
        say(f"{target}: accuracies {span}; tau {taus}; {seconds:.0f} s")
    made = figures(outcomes, named)
    print(*records.lines(made), sep="\n")
    return made
