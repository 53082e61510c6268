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
import sqlite3
import sys
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import records
from experiments.benchmarks.progress import followed, say
from fnas_jax.core import config as config_lib
from fnas_jax.core import devices, workdir
from fnas_jax.core.sections import Features
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import history as store
from fnas_jax.knowledge import task_data
from fnas_jax.spaces import mnas
from fnas_jax.spaces.base import Space
from fnas_jax.spaces.enumerate import enumerate_networks
from fnas_jax.tasks import data, features, images, tables, trained
from fnas_jax.tasks.data import Dataset

LOW, HIGH, EVEN, ODD = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9), (0, 2, 4, 6, 8), (1, 3, 5, 7, 9)
TRAIN, VAL, SIDE, FEW = 480, 320, 8, 60  # images, pixels, different images of a "few" task
STEPS, BATCH = 40, 16  # training steps of a child, children at a time


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


@functools.cache  # to tell the features takes seconds
def space() -> Space:
    """One block of MnasNet's space, with what the product's defaults let methods know of it."""
    plain = mnas.make(blocks=1, strides=(2,), stem=16, stem_stride=1, head=64)
    known = features.of_networks(Features(), plain, (SIDE, SIDE, 1), len(LOW))
    return plain._replace(features=known)


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
    mean, std = train_images.mean(), train_images.std()
    train_images, val_images = ((x - mean) / std for x in (train_images, val_images))
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
            known = own_rows(connection, name).decisions.tolist()
            missing = np.array([f for f in forms if f.tolist() not in known], np.int32)
            if not len(missing):
                continue
            found = dataset(name, kind)
            evaluator = trained.evaluator(images.train_context(config, spc, found))
            # Known by the name alone, as `tables_of` reads it.
            task_data.record_images(connection, title, data.sample_images(found))
            run = store.Run(
                id=run_of(name),
                space=spc.name,
                task=title,
                steps=STEPS,
                seed=0,
                versions=workdir.versions(),
                space_identity=spc.identity,
                protocol=evaluator.protocol,
            )
            words = f"networks of {name}, task {number + 1} of {len(TASKS)}"
            batches = range(0, len(missing), BATCH)
            for i in followed("image_tasks", batches, lambda _, words=words: words):
                some = missing[i : i + BATCH]
                asked = np.resize(some, (BATCH, some.shape[1]))
                key = jax.random.fold_in(jax.random.key(number), int(len(known) + i))
                # A fresh cache each time: it holds one batch.
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
            say(f"{name}: {len(missing)} networks trained in {seconds:.0f} s")


def run_of(name: str) -> str:
    """Id of the run that is all trainings of task `name`, in however many starts."""
    return f"image_tasks_{name}"


def own_rows(connection: sqlite3.Connection, name: str) -> store.Rows:
    """The rows of task `name` that this benchmark has written; a store may hold others."""
    return store.rows(connection, space(), f"images/{name}", run_id=run_of(name))


def tables_of(folder: str) -> tuple[dict[str, tables.Table], dict[str, np.ndarray]]:
    """(a table of what was trained, the sample of images) of each task. Raises UserError."""
    spc, found = space(), {}
    forms = enumerate_networks(spc)
    with contextlib.closing(store.open_(folder)) as connection:
        samples = task_data.task_images(connection)
        for name in TASKS:
            rows = own_rows(connection, name)
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


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__spec__.name}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--knowledge", required=True, help="folder of the histories")
    options = parser.parse_args(arguments)
    try:
        train(options.knowledge)
    except (UserError, OSError) as error:
        return records.fail(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
