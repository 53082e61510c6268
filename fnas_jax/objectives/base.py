"""The interface `Objective`, and from a configuration's names to one.

A module of `OBJECTIVES` has

- `METRICS`: {name: its `Measure`, whose scale is not known yet}, the default first, among them
  "loss", whose figure every objective has;
- `study(targets [n, ..], outputs, balanced) -> Known`, in numpy, of the training targets; raises
  UserError where they cannot be balanced, or there is nothing to learn;
- `unjudged(targets [n, ..], metric) -> str`, in numpy, of held-out targets: why `metric` is the
  same of all networks that these judge; "" where it is not;
- `make(known, metric) -> Objective`;
- perhaps `LEAST`: {metric: so many outputs it needs}, of those that say nothing of fewer.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fnas_jax.core.measure import Measure
from fnas_jax.core.nearest import nearest
from fnas_jax.core.types import Array, UserError
from fnas_jax.objectives import OBJECTIVES

SMALLEST = float(np.finfo(np.float32).tiny)  # normal float32

State = Any  # what an objective keeps while evaluation goes through the images in batches


class Known(NamedTuple):
    """What an objective knows of the training targets; JSON-ready by `described`."""

    outputs: int  # numbers that a network gives for an image (dense: for a pixel of it)
    # {metric: figure of a trivial answer}, of those of kind "error": their scale
    trivial: Mapping[str, float]
    centre: tuple[float, ...] = ()  # of values, [outputs]: what a network's 0 means
    spread: tuple[float, ...] = ()  # the same: what its 1 is more
    weights: tuple[Any, ...] = ()  # of classes in the loss of training; (): none


class Objective(NamedTuple):
    """What networks are trained for; pure functions, all of which may stand under `jit`.

    B images of a batch; L classes, labels or values (`outputs`); the targets of a batch are
    [B, ..] as the readers bring them, the network's outputs [B, outputs] or, of a dense one,
    [B, H, W, outputs].
    """

    name: str  # one of OBJECTIVES
    dense: bool  # a network answers for each pixel
    measure: Measure  # what the search is about
    known: Known
    # (outputs, targets, smoothing) -> [] what training minimises, with weights of classes. Linear
    # in the targets, or but for what the outputs have no part in, where `mixes` is not empty
    loss: Callable[[Array, Array, float], Array]
    # (outputs, targets) -> [B] loss of each image, neither smoothed nor weighted
    errors: Callable[[Array, Array], Array]
    # total -> the state before the first of so many images; a pytree of arrays
    empty: Callable[[int], State]
    # (state, outputs, targets, rows [B] int32 in 0..total-1, counted [B] bool) -> state; what is
    # not counted is padding
    collect: Callable[[State, Array, Array, Array, Array], State]
    # state -> {metric: [] float32}, all of METRICS
    figures: Callable[[State], dict[str, Array]]
    # state -> {column: [L] float32}, what is known of each class or label; {}: nothing
    table: Callable[[State], dict[str, Array]]
    # outputs -> (answers, scores), of one length: e.g. labels [B] int32, probabilities [B, C]
    answer: Callable[[Array], tuple[Array, Array]]
    # scores [B, ..] of `answer` -> outputs with these scores, up to what no figure depends on
    undo: Callable[[Array], Array]
    source: str  # `answer` as an expression of `outputs` in Python, with jax and jnp
    pair: tuple[str, str]  # what these two are called
    shapes: tuple[str, str]  # theirs, of N images, for people
    mixes: tuple[str, ...] = ()  # of "mixup" and "cutmix", those that it can be trained with
    smooths: bool = False  # label smoothing means something
    # Metrics that are a share of images, each right or not: their intervals are of proportions
    shares: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """As `Known.outputs`."""
        return self.known.outputs


def module(name: str) -> Any:
    """The module of an objective. Raises UserError for an unknown one."""
    if name not in OBJECTIVES:
        raise UserError(
            f"task.objective is {name!r}; allowed are {', '.join(OBJECTIVES)}"
            f"{nearest(name, OBJECTIVES)}"
        )
    return importlib.import_module(OBJECTIVES[name])


def of(name: str, metric: str, targets: np.ndarray, outputs: int, balanced: bool) -> Objective:
    """The objective `name` by `metric` ("": its own default), for training `targets` [n, ..].

    `balanced`: rare classes count more in the loss of training. Raises UserError for names that
    do not exist, and for what does not fit together.
    """
    kind = module(name)
    metric = checked(name, metric)
    least = getattr(kind, "LEAST", {}).get(metric, 1)
    if outputs < least:
        raise UserError(
            f"task.metric is {metric!r}, which tells nothing of {outputs} classes, as it is the"
            f" same for all networks: it needs {least} or more"
        )
    return kind.make(kind.study(targets, outputs, balanced), metric)


def check_judged(objective: Objective, parts: Mapping[str, np.ndarray]) -> None:
    """Raises UserError where the metric says nothing about networks that a part judges.

    `parts`: held-out targets [n, ..] by what their images are called.
    """
    metric = objective.measure.name
    for part, targets in parts.items():
        why = module(objective.name).unjudged(targets, metric)
        if why:
            raise UserError(f"{why} of the {len(targets)} {part} images, so {metric} says nothing")


def checked(name: str, metric: str) -> str:
    """The metric that `metric` means of the objective `name`. Raises UserError for another one."""
    metrics = module(name).METRICS
    if metric and metric not in metrics:
        raise UserError(
            f"task.metric is {metric!r}; of task.objective={name} it may be"
            f" {', '.join(metrics)}{nearest(metric, metrics)}"
        )
    return metric or next(iter(metrics))


def measure(metrics: Mapping[str, Measure], known: Known, metric: str) -> Measure:
    """The measure of a metric, with the scale that the training targets give it."""
    found = metrics[metric]
    if found.kind != "error":
        return found
    # Above 0, for the score divides by it; errors of any size may be what they are.
    return found._replace(scale=max(float(known.trivial[metric]), SMALLEST))


def of_counts(counts: np.ndarray, balanced: bool) -> Known:
    """What is known of classes by how many images or pixels each has, [C], at least one in all.

    The trivial answer is the share of each class. Balanced weights are n / (classes that occur x
    count of the class), scikit-learn's; of a class that does not occur it is 0.
    """
    counts = np.asarray(counts, np.float64)
    occurs = counts > 0
    share = counts[occurs] / counts.sum()
    weights: tuple[float, ...] = ()
    if balanced:
        each = np.where(occurs, counts.sum() / (occurs.sum() * np.maximum(counts, 1)), 0)
        weights = tuple(map(float, each))
    trivial = {"loss": float(-(share * np.log(share)).sum())}
    return Known(len(counts), trivial, weights=weights)


def mean(values: Array, use: Array) -> Array:
    """[] mean of those of `values` [L] that `use` [L] bool says; 0 where it says none."""
    return jnp.where(use, values, 0.0).sum() / jnp.maximum(use.sum(), 1)


def logarithm(probabilities: Array) -> Array:
    """Logits [.., C] of probabilities [.., C], whose softmax they are; of 0 a finite one."""
    return jnp.log(jnp.maximum(probabilities, jnp.finfo(jnp.float32).tiny))


def described(objective: Objective) -> dict[str, Any]:
    """The objective as architecture.json has it; the inverse of `parse`."""
    known = objective.known
    return {
        "name": objective.name,
        "metric": objective.measure.name,
        **known._asdict(),
        "trivial": dict(known.trivial),
    }


def parse(entry: Mapping[str, Any]) -> Objective:
    """The inverse of `described`. Raises KeyError, TypeError or UserError for anything else."""
    known = Known(
        outputs=int(entry["outputs"]),
        trivial={str(name): float(value) for name, value in entry["trivial"].items()},
        centre=_tuples(entry["centre"]),
        spread=_tuples(entry["spread"]),
        weights=_tuples(entry["weights"]),
    )
    return module(entry["name"]).make(known, checked(entry["name"], entry["metric"]))


def _tuples(value: Any) -> Any:
    """Lists of JSON as the tuples that they were."""
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else float(value)
