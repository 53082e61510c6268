"""All metrics of a kept network on images whose targets are known, and how sure the main one is."""

from __future__ import annotations

import functools
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
LARGEST = 2**22  # numbers of all images together: what is resampled
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
    found = jax.device_get(objective.figures(state))
    metrics = {name: float(value) for name, value in found.items()}
    for name in objective.shares:  # of whole images, which float32 has not exactly
        metrics[name] = round(metrics[name] * len(outputs)) / len(outputs)
    table = jax.device_get(objective.table(state))
    columns = {name: [float(x) for x in column] for name, column in table.items()}
    return Figures(metrics, columns, interval(objective, outputs, targets, metrics), len(outputs))


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
