"""All metrics of a kept network on images whose targets are known, and how sure the main one is."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # whose `stats` takes as long to load as JAX, and loads when it is used

from fnas_jax.core.types import Array
from fnas_jax.objectives.base import Objective

CONFIDENCE = 0.95
RESAMPLES = 500
MOST = 10_000  # images that are resampled; of more, other things are less certain than this
LARGEST = 2**22  # numbers of all images together: what is held at once, and resampled
SEED = 0  # of the bootstrap, so that a network keeps its interval


class Figures(NamedTuple):
    """What a network comes to on n images; JSON-ready."""

    metrics: dict[str, float]  # all of its objective
    table: dict[str, list[float]]  # column: a figure of each class, label or value; {}: none
    interval: dict[str, Any] | None  # of the metric of the search; None: `no_interval` says why
    images: int
    no_interval: str = ""

    def value(self, objective: Objective) -> float:
        """The metric of the search, as `Metrics.accuracy` has it: more is better."""
        return objective.measure.sign * self.metrics[objective.measure.name]


def of(objective: Objective, outputs: np.ndarray, targets: np.ndarray) -> Figures:
    """The figures of `outputs` [n, ..] with `targets` [n, ..]; n is 1 or more."""
    rows = jnp.arange(len(outputs))
    state = jax.jit(functools.partial(_state, objective))(outputs, targets, rows)
    found = of_state(objective, state, len(outputs), outputs.size)
    if found.interval is not None or found.no_interval:
        return found
    return found._replace(interval=resampled(objective, outputs, targets))


def in_parts(
    objective: Objective, parts: Iterable[tuple[np.ndarray, np.ndarray]], n: int
) -> Figures:
    """As `of`, of `parts` (outputs [b, ..], targets [b, ..]) of n images in all, one at a time.

    With an interval of a share of images only: for others, images are drawn again and again.
    """
    state, collect, first, numbers = objective.empty(n), jax.jit(objective.collect), 0, 0
    for outputs, targets in parts:
        rows = first + np.arange(len(outputs))
        state = collect(state, outputs, targets, rows, np.ones(len(outputs), bool))
        first, numbers = first + len(outputs), numbers + outputs.size
    found = of_state(objective, state, n, numbers)
    if found.interval is None and not found.no_interval:
        return found._replace(no_interval="images are counted one part at a time")
    return found


def of_state(objective: Objective, state: Any, n: int, numbers: int) -> Figures:
    """The figures of what `Objective.collect` has kept of n images, of `numbers` outputs in all.

    Without an interval that has to be resampled.
    """
    both = jax.jit(lambda state: (objective.figures(state), objective.table(state)))
    found, table = jax.device_get(both(state))
    metrics = {name: float(value) for name, value in found.items()}
    for name in objective.shares:  # of whole images, which float32 has not exactly
        metrics[name] = round(metrics[name] * n) / n
    columns = {name: [float(x) for x in column] for name, column in table.items()}
    why = why_none(objective, n, numbers)
    return Figures(metrics, columns, proportion(objective, n, metrics), n, why)


def why_none(objective: Objective, n: int, numbers: int) -> str:
    """Why the metric of the search has no interval on n images of `numbers` outputs; "": it has."""
    if objective.measure.name in objective.shares:
        return ""
    if n < 2:
        return "one image cannot be resampled"
    if n > MOST:
        return f"of {n:,} images, which are more than the {MOST:,} that are resampled"
    if numbers > LARGEST:
        return f"of {numbers:,} outputs, which are more than the {LARGEST:,} that are resampled"
    return ""


def proportion(objective: Objective, n: int, metrics: dict[str, float]) -> dict[str, Any] | None:
    """Wilson's interval (1927) of the metric of the search; None where it is no share of images."""
    name = objective.measure.name
    if name not in objective.shares:
        return None
    test = scipy.stats.binomtest(round(metrics[name] * n), n)
    return _described(name, test.proportion_ci(CONFIDENCE, method="wilson"), "wilson")


def resampled(objective: Objective, outputs: np.ndarray, targets: np.ndarray) -> dict[str, Any]:
    """95% of the metric of the search for other images of the kind: a bootstrap over images.

    Its percentiles. It says nothing of another training, whose seed would give another network.
    """
    n, name = len(outputs), objective.measure.name
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
    return _described(name, found, f"bootstrap of {RESAMPLES}")


def _described(name: str, found: Any, method: str) -> dict[str, Any]:
    known = {"metric": name, "low": float(found.low), "high": float(found.high)}
    return known | {"confidence": CONFIDENCE, "method": method}


def _figure(objective: Objective, outputs: Array, targets: Array, rows: Array) -> Array:
    """[] the metric of the search of some of the images, some of them several times."""
    state = _state(objective, outputs, targets, rows)
    return objective.figures(state)[objective.measure.name]


def _state(objective: Objective, outputs: Array, targets: Array, rows: Array) -> Any:
    n = len(rows)
    given = outputs[rows], targets[rows]
    return objective.collect(objective.empty(n), *given, jnp.arange(n), jnp.ones(n, bool))
