"""Keeps the winner of a search, once it is trained: what is known of it, and `best/`."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from fnas_jax.core import workdir
from fnas_jax.networks import readable
from fnas_jax.objectives import base as objectives
from fnas_jax.objectives.base import Objective
from fnas_jax.ship import best, card, figures, inputs
from fnas_jax.ship import spec as spec_lib
from fnas_jax.ship.model import BATCH, Model, judged
from fnas_jax.tasks import protocols
from fnas_jax.tasks.base import Judged, Task, TrainedNetwork
from fnas_jax.tasks.data import Dataset

LOG = logging.getLogger(__name__)
# Of figures, or of an error of that of a trivial answer: between two orders of summation
_SAME = 1e-3


class Winner(NamedTuple):
    """What was found out about the winner of a search."""

    config: ml_collections.ConfigDict
    task: Task
    judged: Judged
    validation: float | None  # accuracy in [0, 1] by which it won
    command: str  # that trained it: "main" or "retrain"


def keep(
    folder: pathlib.Path, winner: Winner, say: Callable[[str], object]
) -> dict[str, Any] | None:
    """Writes `folder`/best and tells {"folder", "accuracy", "weights", ..}.

    All figures are those of what is kept, on the test images and as `load` computes them:
    `metrics`, `interval` of the metric of the search (None: `no_interval` says why), and `table`,
    columns by class, label or value. None: there is nothing to keep, which `say` is told in one
    line.
    """
    network, dataset = winner.judged.network, winner.task.dataset
    if network is None or dataset is None:
        say(nothing_kept(folder, winner))
        return None
    record = content(winner, network, dataset)
    model = Model(record, network.variables)
    found = judged(model, dataset.test_images, dataset.test_labels, BATCH)
    _compare(model.objective, found, network.accuracy)
    record["accuracy"] |= {"test": found.value(model.objective), "metrics": found.metrics}
    if "accuracy" in found.metrics:
        record["accuracy"]["correct"] = round(found.metrics["accuracy"] * found.images)
    record["accuracy"] |= {"interval": found.interval, "no_interval": found.no_interval}
    best.write(folder, record, network.variables, card.text(record))
    return {
        "folder": best.NAME,
        "accuracy": found.value(model.objective),
        "weights": network.recipe["weights"],
        "metrics": found.metrics,
        "interval": found.interval,
        "no_interval": found.no_interval,  # why there is none
        "table": {"names": model.class_names, **found.table} if found.table else None,
    }


def _compare(objective: Objective, found: figures.Figures, trained: float) -> None:
    """Says so where the kept network does otherwise than by the arithmetic of its training."""
    measure, value, total = objective.measure, found.value(objective), found.images
    if measure.name in objective.shares:
        right, before = round(value * total), round(trained * total)
        if right != before:
            LOG.warning(
                "the winner gets %d of %d test images right in float32, and %d by the arithmetic of"
                " its training; %s/ says the first",
                *(right, total, before, best.NAME),
            )
    elif abs(value - trained) > _SAME * max(measure.scale, abs(value)):
        LOG.warning(
            "the %s of the winner is %s in float32, and %s by the arithmetic of its training; %s/"
            " says the first",
            *(measure.name, measure.text(value), measure.text(trained), best.NAME),
        )


def failure(facts: Mapping[str, Any]) -> str:
    """Why no final training of `Judged.facts` gave a network, in words; "" where one did.

    Or where there was none: without steps nothing is trained, and a table or a function says
    nothing of any. One-shot methods train on from inherited weights, as well or instead.
    """
    tried = [one for one in (facts, facts.get("finetuned") or {}) if one.get("steps")]
    if not tried or any(one.get("accuracy") is not None for one in tried):
        return ""
    steps = tried[0]["steps"]
    return f"the training of the winner failed: its loss is not finite in {steps} steps"


def nothing_kept(folder: pathlib.Path, winner: Winner) -> str:
    """Why `keep` has nothing to keep, in one line."""
    if winner.task.dataset is None:
        reason = f"the task {winner.task.name} trains no network"
    elif winner.config.winner.steps == 0:
        reason = "winner.steps is 0, so the winner was not trained"
    else:
        reason = "the training of the winner failed"
    before = "; that of before stays" if (folder / best.NAME).exists() else ""
    return f"nothing is kept in {best.NAME}/: {reason}{before}"


def content(winner: Winner, network: TrainedNetwork, dataset: Dataset) -> dict[str, Any]:
    """What architecture.json says, but for accuracies on test images and the weights' digest."""
    space, facts = winner.task.space, winner.judged.facts
    objective = network.objective
    classes, channels = dataset.outputs, dataset.image_shape[-1]
    return {
        "format": best.FORMAT,
        "task": f"image {objective.name}",
        "objective": objectives.described(objective),
        "space": {"name": space.name, "key": space.key} | spec_lib.described(space.spec),
        "arch": network.arch.tolist(),
        "canonical": np.asarray(jax.jit(space.canonical)(network.arch[None]))[0].tolist(),
        "decisions": dict(zip(space.names, network.arch.tolist(), strict=True)),
        "description": space.describe(network.arch),
        "layers": readable.layers(space.spec, network.arch, channels, classes),
        "inputs": inputs.described(inputs.of(dataset)),
        "training": network.recipe | {"command": winner.command},
        "accuracy": {
            "validation": winner.validation,
            "test_images": len(dataset.test_labels),
            "test_by_training": network.accuracy,
        },
        "costs": {
            name: facts[name]
            for name in ("mflops", "params_m", "latency_ms", "latency_by_source")
            if name in facts
        },
        "data": {
            "name": winner.task.name,
            "fingerprint": protocols.fingerprint(dataset),
            "train": len(dataset.train_labels),
            "validation": len(dataset.val_labels),
            "test": len(dataset.test_labels),
        },
        "versions": workdir.versions(winner.task.layers),
    }
