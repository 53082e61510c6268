"""By which protocol a task's numbers were measured: equal texts, comparable numbers.

Canonical JSON (`core.identity`) for `Evaluator.protocol`. Settings that change how fast a number
is found and not the number have no place in it, nor has the reward: a function of the numbers.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import jax
import numpy as np

from fnas_jax import objectives
from fnas_jax.core import identity
from fnas_jax.core import measure as measures
from fnas_jax.core.measure import Measure
from fnas_jax.objectives.base import Objective
from fnas_jax.tasks import augment_choice, data, latency
from fnas_jax.tasks.context import TrainContext
from fnas_jax.tasks.data import Dataset
from fnas_jax.tasks.tables import Table
from fnas_jax.timing import whole
from fnas_jax.training import halving

# Of the section `children`: they change the speed only, up to rounding.
SPEED = ("group", "backend", "device_images", "eval_batch")
# Only where children stop early, or have several brackets; other texts are as they were before.
HALVING = ("halving", "rungs", "brackets")


def of_images(ctx: TrainContext, weights: str) -> str:
    """The protocol of children whose weights are "fresh", from the "pool", or "inherited".

    Latencies depend on the machine. Where they are timed, it is known by its platform only, and
    what is timed by a number; those of a table or a function are comparable with others of the
    same one.
    """
    task, numbers = ctx.config.task, dataclasses.asdict(ctx.settings)
    without = {*SPEED, "steps", *HALVING} if weights == "inherited" else {*SPEED}
    if not ctx.settings.halving:
        without |= {*HALVING}
    at = halving.rungs(ctx.settings.steps, ctx.settings.halving, ctx.settings.rungs)
    numbers["brackets"] = halving.brackets(at, ctx.settings.brackets)  # of 9, those that there are
    if numbers["brackets"] == 1:
        without |= {"brackets"}
    height, width, channels = ctx.dataset.image_shape
    source = timed() if ctx.times else ctx.latency.identity
    return identity.text(
        {
            "kind": "images",
            "weights": weights,
            "children": {name: n for name, n in numbers.items() if name not in without},
            "augment": augment_choice.described(ctx.augment),
            "image": [height, width, channels],
            "split": {
                "val_fraction": task.val_fraction,
                "test_fraction": task.test_fraction,
                "seed": task.split_seed,
                "train": len(ctx.dataset.train_labels),
                "val": len(ctx.dataset.val_labels),
            },
            "data": data_digest(ctx.dataset),
            "latency_batch": ctx.config.latency.batch_size,
            "platform": jax.default_backend(),
            # Only where there are latencies: rows without any stay comparable with each other.
            **({} if source is None else {"latency": source}),
            **aim(ctx.objective),
        }
    )


def aim(objective: Objective) -> dict[str, Any]:
    """What its networks are trained for and judged by; nothing of classes judged by accuracy.

    These are what all rows were before there were others, and stay comparable with.
    """
    found: dict[str, Any] = {}
    if objective.name != objectives.DEFAULT:
        found["objective"] = objective.name
    if objective.measure != Measure():
        found["measure"] = objective.measure._asdict()
    if objective.known.weights:
        found["class_weights"] = "balanced"
    return found


def timed() -> dict[str, Any]:
    """What children are timed by on this device; rows before `whole.DEFINITION` 2 have none."""
    return {"kind": latency.DEVICE, "definition": whole.DEFINITION}


def data_digest(dataset: Dataset) -> str:
    """Of the labels of both parts and some training images of each class.

    Two folders may have one name. Not of all images, because there may be gigabytes.
    """
    seen = hashlib.blake2b(digest_size=8)
    for part in (dataset.train_labels, dataset.val_labels):
        seen.update(_exact(part).tobytes())
    seen.update(data.sample_images(dataset).tobytes())
    return seen.hexdigest()


def fingerprint(dataset: Dataset) -> str:
    """16 hexadecimal digits of all images, by their native pixels, and labels of the three parts.

    In whatever order they stand, so that it tells whether data are still the same.
    """
    seen = hashlib.blake2b(digest_size=8)
    labels = (dataset.train_labels, dataset.val_labels, dataset.test_labels)
    for names, classes in zip(dataset.names, labels, strict=True):
        order = _sorted(names, classes)
        seen.update(np.ascontiguousarray(names[order], "<u8").tobytes())
        seen.update(_exact(classes[order]).tobytes())
    return seen.hexdigest()


def _sorted(names: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Rows by the names of the images, and those of equal ones by their targets [n, ..]."""
    if targets.ndim == 1:
        return np.lexsort((targets, names))
    keys = [(name, row.tobytes()) for name, row in zip(names.tolist(), targets, strict=True)]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)


def _exact(targets: np.ndarray) -> np.ndarray:
    """Whole numbers in 64 bits, and others, in a form that does not depend on the machine."""
    return np.ascontiguousarray(targets, "<f8" if targets.dtype.kind == "f" else "<i8")


def of_table(table: Table, noisy: bool) -> str:
    """The protocol of look-ups; `noisy`: a query sees one of several readings, not their mean.

    Two files may have one name, and a file may change: all its numbers enter a digest, in whatever
    order its rows stand. What is no accuracy by its name says what it is (`sources.measure_of`);
    texts of accuracies are as they were before there was anything else.
    """
    plain = table.measure.kind == "share" and measures.named(table.metric) is not None
    what = {} if plain else {"measure": table.measure._asdict()}
    seen = hashlib.blake2b(digest_size=8)
    numbers = (table.judged, table.readings, table.latency_ms, table.mflops, table.params_m)
    order = np.lexsort(table.archs.T)
    for column in (table.archs, *numbers):
        seen.update(np.ascontiguousarray(column[order]).tobytes())
    return identity.text(
        {
            "kind": "table",
            "metric": table.metric,
            "noisy": noisy and table.readings.shape[1] > 1,
            "data": seen.hexdigest(),
            **what,
        }
    )


def of_times(table: Table) -> str:
    """Digest of the training times of a table, in whatever order its rows stand; "": it has none.

    Apart from its protocol, because accuracies are comparable whatever trainings have taken.
    """
    if table.seconds is None:
        return ""
    order = np.lexsort(table.archs.T)
    return identity.of_arrays((table.archs[order], table.seconds[order]))
