"""All metrics of a kept network on images whose targets are known, and how sure the main one is."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from fnas_jax.core.types import Array
from fnas_jax.objectives.base import Objective

CONFIDENCE = 0.95
RESAMPLES = 500
MOST = 10_000  # images; of more, an interval is narrower than what else is uncertain
LARGEST = 2**22  # numbers of all images together: what is held at once, and resampled
SEED = 0  # of the bootstrap, so that a network keeps its interval


class Figures(NamedTuple):
    """What a network comes to on n images; JSON-ready."""

    metrics: dict[str, float]  # all of its objective
    table: dict[str, list[float]]  # column: a figure of each class, label or value; {}: none
    interval: dict[str, Any] | None  # of the metric of the search; None: there are too many images
    images: int

    def value(self, objective: Objective) -> float:
        """The metric of the search, as `Metrics.accuracy` has it: more is better."""
        return objective.measure.sign * self.metrics[objective.measure.name]


def of(objective: Objective, outputs: np.ndarray, targets: np.ndarray) -> Figures:
    """The figures of `outputs` [n, ..] with `targets` [n, ..]; n is 1 or more."""
    rows = jnp.arange(len(outputs))
    state = _state(objective, jnp.asarray(outputs), jnp.asarray(targets), rows)
    found = of_state(objective, state, len(outputs))
    return found._replace(interval=interval(objective, outputs, targets, found.metrics))


def in_parts(
    objective: Objective, parts: Iterable[tuple[np.ndarray, np.ndarray]], n: int
) -> Figures:
    """As `of`, of `parts` (outputs [b, ..], targets [b, ..]) of n images in all, one at a time.

    Without an interval, for which images would be drawn again and again.
    """
    state, collect, first = objective.empty(n), jax.jit(objective.collect), 0
    for outputs, targets in parts:
        rows = first + np.arange(len(outputs))
        state = collect(state, outputs, targets, rows, np.ones(len(outputs), bool))
        first += len(outputs)
    return of_state(objective, state, n)


def of_state(objective: Objective, state: Any, n: int) -> Figures:
    """The figures of what `Objective.collect` has kept of n images, without an interval."""
    found = jax.device_get(objective.figures(state))
    metrics = {name: float(value) for name, value in found.items()}
    for name in objective.shares:  # of whole images, which float32 has not exactly
        metrics[name] = round(metrics[name] * n) / n
    table = jax.device_get(objective.table(state))
    columns = {name: [float(x) for x in column] for name, column in table.items()}
    return Figures(metrics, columns, None, n)


def interval(
    objective: Objective, outputs: np.ndarray, targets: np.ndarray, metrics: dict[str, float]
) -> dict[str, Any] | None:
    """95% of the metric of the search for other images of the kind; None for more than `MOST`,
    and for as many pixels that resampling would take minutes.

    Of a share of images Wilson's interval (1927), of others the percentiles of a bootstrap over
    images. It says nothing of another training, whose seed would give another network.
    """
    n, name = len(outputs), objective.measure.name
    if not 1 < n <= MOST or outputs.size > LARGEST:
        return None
    if name in objective.shares:
        test = scipy.stats.binomtest(round(metrics[name] * n), n)
        found, how = test.proportion_ci(CONFIDENCE, method="wilson"), "wilson"
    else:
        given = jnp.asarray(outputs), jnp.asarray(targets)
        figure = jax.jit(functools.partial(_figure, objective, *given))
        found = scipy.stats.bootstrap(
            (np.arange(n),),
            lambda rows: float(figure(jnp.asarray(rows))),
            n_resamples=RESAMPLES,
            vectorized=False,
            confidence_level=CONFIDENCE,
            method="percentile",
            random_state=np.random.default_rng(SEED),
        ).confidence_interval
        how = f"bootstrap of {RESAMPLES}"
    known = {"metric": name, "low": float(found.low), "high": float(found.high)}
    return known | {"confidence": CONFIDENCE, "method": how}


def _figure(objective: Objective, outputs: Array, targets: Array, rows: Array) -> Array:
    """[] the metric of the search of some of the images, some of them several times."""
    state = _state(objective, outputs, targets, rows)
    return objective.figures(state)[objective.measure.name]


def _state(objective: Objective, outputs: Array, targets: Array, rows: Array) -> Any:
    n = len(rows)
    given = outputs[rows], targets[rows]
    return objective.collect(objective.empty(n), *given, jnp.arange(n), jnp.ones(n, bool))
