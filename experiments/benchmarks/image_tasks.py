"""Eight small image tasks, every network of a small space really trained on each.

    python -m experiments.benchmarks.image_tasks --knowledge DIR

trains what DIR does not hold yet, and can be stopped at any time. `transfer --knowledge DIR` then
compares, leaving one task out at a time: the history are 40 random networks of each of the seven
others. The tasks are classes of the digits of scikit-learn and of mnist5k, rotated, inverted, or
with few different images; all are brought to 8 x 8 pixels and the same numbers of classes and
images, so that one compiled program trains every child. The space is one block of `mnas`: 648
decision vectors, 160 networks. Accuracies are on validation images.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax import scan
from fnas_jax.core import config as config_lib
from fnas_jax.core import devices, workdir
from fnas_jax.core.types import Array, UserError
from fnas_jax.knowledge import history as store
from fnas_jax.methods.baselines import gp, random
from fnas_jax.methods.baselines.config import Gp
from fnas_jax.methods.fnas import method as fnas
from fnas_jax.methods.fnas.config import Aeb, Config
from fnas_jax.methods.scores import kendall
from fnas_jax.methods.tnas import features, meta, networks, source_tasks, surrogate
from fnas_jax.methods.tnas import method as tnas
from fnas_jax.methods.tnas.config import Tnas
from fnas_jax.methods.tnas.source_tasks import SourceTasks
from fnas_jax.spaces import mnas
from fnas_jax.spaces.base import Space
from fnas_jax.spaces.enumerate import enumerate_networks
from fnas_jax.tasks import data, images, tables, tabular, trained
from fnas_jax.tasks.data import Dataset

BENCHMARK, TASK = "transfer", "image_tasks"
LOW, HIGH, EVEN, ODD = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9), (0, 2, 4, 6, 8), (1, 3, 5, 7, 9)
TRAIN, VAL, SIDE, FEW = 480, 320, 8, 60  # images, pixels, different images of a "few" task
STEPS, BATCH = 40, 16  # training steps of a child, children at a time
ROWS = 40  # of each known task
BEST_AT = (1, 2, 3, 5, 10, 20)


class Kind(NamedTuple):
    """How a task is made of a source."""

    source: str
    classes: tuple[int, ...]
    rotate: bool = False
    invert: bool = False
    few: bool = False


TASKS = {
    "digits_low": Kind("digits", LOW),
    "digits_high": Kind("digits", HIGH),
    "digits_even_rotated": Kind("digits", EVEN, rotate=True),
    "digits_odd_inverted": Kind("digits", ODD, invert=True),
    "mnist_low": Kind("mnist5k", LOW),
    "mnist_high_few": Kind("mnist5k", HIGH, few=True),
    "mnist_even_inverted": Kind("mnist5k", EVEN, invert=True),
    "mnist_odd_rotated": Kind("mnist5k", ODD, rotate=True),
}
VARIANTS = {  # the product's defaults, and one part changed
    "tnas": Tnas(),
    "tnas_joint": Tnas(meta="joint"),
    "tnas_no_data": Tnas(data_encoder=False),
}


def space() -> Space:
    """One block of MnasNet's space."""
    return mnas.make(blocks=1, strides=(2,), stem=16, stem_stride=1, head=64)


def dataset(name: str, kind: Kind) -> Dataset:
    """The task's images, standardised here, so that no two tasks need different programs."""
    source = data.load(kind.source, image_size=SIDE)

    def part(pixels: np.ndarray, labels: np.ndarray, count: int, most: int) -> tuple:
        rows = np.flatnonzero(np.isin(labels, kind.classes))[:most]
        rows = np.resize(rows, count)
        found = pixels[rows].astype(np.float32)
        found = found.max() - found if kind.invert else found
        found = np.rot90(found, axes=(1, 2)) if kind.rotate else found
        return np.ascontiguousarray(found), np.searchsorted(kind.classes, labels[rows])

    whole = (
        np.concatenate([source.train_images, source.val_images, source.test_images]),
        np.concatenate([source.train_labels, source.val_labels, source.test_labels]),
    )
    # The sets are in the order of a hash: the first rows are a random sample.
    mine = np.flatnonzero(np.isin(whole[1], kind.classes))
    val, train = mine[:VAL], mine[VAL : VAL + TRAIN]
    train_images, train_labels = part(
        whole[0][train], whole[1][train], TRAIN, FEW if kind.few else TRAIN
    )
    val_images, val_labels = part(whole[0][val], whole[1][val], VAL, VAL)
    middle, spread = train_images.mean(), train_images.std()
    train_images, val_images = ((x - middle) / spread for x in (train_images, val_images))
    return Dataset(
        name=name,
        train_images=train_images,
        train_labels=train_labels.astype(np.int32),
        val_images=val_images,
        val_labels=val_labels.astype(np.int32),
        test_images=val_images[:0],
        test_labels=val_labels[:0].astype(np.int32),
        num_classes=len(kind.classes),
        mean=np.zeros(1, np.float32),
        std=np.ones(1, np.float32),
        class_names=tuple(map(str, kind.classes)),
    )


def configuration() -> Any:
    """How children are trained."""
    config = config_lib.default()
    config.children.steps = STEPS
    config.children.batch_size = 32
    config.akp.enabled = False
    config.search.batch = BATCH
    config.search.budget = BATCH
    return config_lib.validate(config)


def train(folder: str) -> None:
    """Trains every network of the space on every task, but for those that `folder` knows."""
    config, spc = configuration(), space()
    forms = enumerate_networks(spc)
    devices.enable_compilation_cache(config.jax.cache_dir)
    with contextlib.closing(store.open_(folder)) as connection:
        for number, (name, kind) in enumerate(TASKS.items()):
            title, start = f"images/{name}", time.monotonic()
            known = store.rows(connection, spc.name, title).decisions.tolist()
            missing = np.array([f for f in forms if f.tolist() not in known], np.int32)
            if not len(missing):
                continue
            found = dataset(name, kind)
            store.record_images(connection, title, data.sample_images(found))
            evaluator = trained.evaluator(images.train_context(config, spc, found))
            run = store.Run(f"image_tasks_{name}", spc.name, title, STEPS, 0, workdir.versions())
            for i in range(0, len(missing), BATCH):
                some = missing[i : i + BATCH]
                asked = np.resize(some, (BATCH, some.shape[1]))
                key = jax.random.fold_in(jax.random.key(number), int(len(known) + i))
                # A fresh memo each time: it holds one batch.
                _, m = evaluator.evaluate(
                    evaluator.init(), jnp.asarray(asked), jnp.arange(BATCH) < len(some), key
                )
                figures = (m.accuracy, m.reward, m.latency_ms, m.mflops, m.params_m, m.seconds)
                rows = [
                    store.Row(j, arch, True, bool(m.ok[j]), *(float(x[j]) for x in figures))
                    for j, arch in enumerate(some)
                ]
                store.record(connection, run, len(known) + i, rows)
            seconds = time.monotonic() - start
            print(f"{name}: {len(missing)} networks trained in {seconds:.0f} s", flush=True)


def tables_of(folder: str) -> tuple[dict[str, tables.Table], dict[str, np.ndarray]]:
    """(a table of what was trained, the sample of images) of each task. Raises UserError."""
    spc, found = space(), {}
    forms = enumerate_networks(spc)
    with contextlib.closing(store.open_(folder)) as connection:
        samples = store.task_images(connection)
        for name in TASKS:
            rows = store.rows(connection, spc.name, f"images/{name}")
            known = {tuple(d): a for d, a in zip(rows.decisions, rows.accuracy, strict=True)}
            if any(tuple(f) not in known for f in forms):
                raise UserError(
                    f"{folder!r} lacks networks of {name}; run python -m"
                    f" experiments.benchmarks.image_tasks --knowledge {folder}"
                )
            accuracy = np.array([known[tuple(f)] for f in forms], np.float32)
            nothing = np.full(len(forms), np.nan, np.float32)
            found[name] = tables.Table(
                *(name, spc, forms, accuracy, accuracy[:, None], nothing, nothing, nothing),
                note="validation accuracy",
            )
    return found, {name: samples[f"images/{name}"] for name in TASKS}


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
        where = tabular.index(empty)
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
    sample = features.sample(every, features.random_conv, 20)
    joined = (np.concatenate(part) for part in (archs, reward, task))
    return source_tasks.gather(named[target].space, *joined, sample), sample.features.shape[-1]


def transferred(
    spc: Space,
    config: tnas.Config,
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
    ctx = tnas.context(spc, config, capacity=BEST_AT[-1], source=known, weights=w, features=width)
    return Outcome(search(spc, accuracy, tnas.make(ctx), seeds, BEST_AT[-1]), tau)


def plain(
    spc: Space, method: Any, iterations: int, seeds: int, known: Any, accuracy: Array
) -> Outcome:
    """A method that knows of no other task."""
    return Outcome(search(spc, accuracy, method, seeds, iterations), jnp.float32(jnp.nan))


def methods(spc: Space, width: int, seeds: int) -> dict[str, Any]:
    """(history, accuracies) -> Outcome of every method, compiled once each."""
    # Four a time, of which most are trained: so little is no warm-up for its critic.
    small = Config(batch=4, aeb=Aeb(capacity=64))
    made = {
        "gp_ei": (gp.make(spc, Gp(start=5), batch=1, capacity=BEST_AT[-1]), BEST_AT[-1]),
        "fnas": (fnas.make(spc, small), 30),
        "random": (random.make(spc, batch=1), 40),
    }
    found = {
        name: functools.partial(plain, spc, method, iterations, seeds)
        for name, (method, iterations) in made.items()
    }
    for name, config in VARIANTS.items():
        found[name] = functools.partial(transferred, spc, config, width, seeds)
    return {name: jax.jit(function) for name, function in found.items()}


def run(folder: str, seeds: int) -> list[dict[str, Any]]:
    """Trains what is missing, compares all methods, prints and returns the records."""
    train(folder)
    named, samples = tables_of(folder)
    outcomes: dict[str, list[Outcome]] = {}
    compiled: dict[str, Any] = {}
    for number, (target, table) in enumerate(named.items()):
        known, width = known_tasks(named, samples, target, number)
        compiled, start = compiled or methods(table.space, width, seeds), time.perf_counter()
        for method, function in compiled.items():
            found = jax.device_get(function(known, jnp.asarray(table.judged)))
            outcomes.setdefault(method, []).append(found)
        taus = " ".join(f"{m} {outcomes[m][-1].tau:.2f}" for m in VARIANTS)
        spread = f"{table.judged.min():.3f} .. {table.judged.max():.3f}"
        seconds = time.perf_counter() - start
        print(f"{target}: accuracies {spread}; tau {taus}; {seconds:.0f} s", flush=True)
    records = []
    for method, each in outcomes.items():
        best = np.stack([o.best.mean(axis=0) for o in each])  # [tasks, ..]
        top = np.array([table.judged.max() for table in named.values()])[:, None]
        metrics = {f"accuracy@{n}": best[:, i] for i, n in enumerate(BEST_AT)}
        metrics |= {f"regret@{n}": 100 * (top - best)[:, i] for i, n in enumerate(BEST_AT)}
        metrics["tau_zero_shot"] = np.array([o.tau for o in each])
        for metric, values in metrics.items():
            if np.isfinite(values).all():
                names = {"benchmark": BENCHMARK, "task": TASK, "method": method, "metric": metric}
                low, high = float(values.min()), float(values.max())
                figures = {"value": float(values.mean()), "low": low, "high": high}
                records.append({**names, **figures, "n": len(values)})
    for r in records:
        span = f"{r['low']:.4f} .. {r['high']:.4f}"
        print(f"{r['method']:<14}{r['metric']:<15}{r['value']:8.4f}   {span} over tasks")
    return records


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--knowledge", required=True, help="folder of the histories")
    options = parser.parse_args(arguments)
    try:
        train(options.knowledge)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
