"""From times of single operations to times of networks, and how well these are predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy  # whose `stats` loads when it is used

from fnas_jax.timing.units import Unit

# Standard deviations of what is believed before any network was timed, relative to what each is
# about: of the factor of a family of operations, of an operation beside its family, of what all
# operations cost more or less within a network (to the median of their times), of the fixed part
# (to the median of the networks' times), and of a network's time by the clock.
FAMILY, ALONE, SHIFT, FIXED, CLOCK = 0.5, 0.2, 0.3, 0.3, 0.05
ITERATIONS = 10  # of weights for networks that nothing explains


class Prediction(NamedTuple):
    """Milliseconds of what networks consist of: their sum is the time of a network."""

    fixed: float  # of any network: the call, normalisation of pixels, probabilities
    units: dict[Unit, float]


def fit(
    alone: dict[Unit, float], networks: Sequence[Sequence[Unit]], measured: np.ndarray, call: float
) -> Prediction:
    """What operations cost within networks, by whole networks [M] that took `measured` [M] ms.

    Compilers join operations of a network, memory is warm or not: an operation costs another time
    there than `alone`, mostly by a factor that is that of its family. These factors, one more for
    each operation, one constant for all and the fixed part are jointly Gaussian before networks are
    seen (above; `call` ms is expected of the fixed part), and the means given them are taken:
    Bayesian linear regression, in its dual form. The clock is off by more now and then, and a
    network may be cut short by its compiler: errors beyond one standard deviation count in
    proportion, not squared (Huber, 1964, by iterated weights). Times below zero become zero.
    """
    units = list(alone)
    place = {unit: i for i, unit in enumerate(units)}
    times = np.asarray([alone[unit] for unit in units])
    counts = np.zeros((len(networks), len(units)))
    for row, network in zip(counts, networks, strict=True):
        np.add.at(row, [place[unit] for unit in network], 1)
    families = sorted({unit.family for unit in units})
    member = np.asarray([[unit.family == f for f in families] for unit in units], float)
    # What each coefficient, in its standard deviations, adds to the operations' times [U, ..] ..
    shift = np.full((len(units), 1), SHIFT * np.median(times))
    adds = np.hstack([FAMILY * times[:, None] * member, ALONE * np.diag(times), shift])
    # .. and to those of networks; the last one is of the fixed part.
    spread = max(call, FIXED * float(np.median(measured)))
    design = np.hstack([counts @ adds, np.full((len(networks), 1), spread)])
    found = robust(design, measured - counts @ times - call, CLOCK * measured)
    fitted = np.maximum(times + adds @ found[:-1], 0.0).tolist()
    fixed = max(call + spread * float(found[-1]), 0.0)
    return Prediction(fixed, dict(zip(units, fitted, strict=True)))


def robust(design: np.ndarray, target: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """[K] most probable x of `design` [M, K] x = `target` [M], of which each is N(0, 1) before.

    Errors have the standard deviations `deviation` [M], and long tails.
    """
    design, target = design / deviation[:, None], target / deviation
    root, found = np.ones(len(target)), np.zeros(design.shape[1])  # of the equations' weights
    for _ in range(ITERATIONS):
        rows = design * root[:, None]
        gram = rows @ rows.T + np.eye(len(rows))
        found = rows.T @ np.linalg.solve(gram, target * root)
        root = 1 / np.sqrt(np.maximum(np.abs(design @ found - target), 1.0))
    return found


def total(prediction: Prediction, network: Sequence[Unit]) -> float:
    """Milliseconds of a network of these operations."""
    return prediction.fixed + sum(prediction.units[unit] for unit in network)


class Quality(NamedTuple):
    """How well networks are predicted that the prediction was not made with."""

    median_error: float  # |predicted - measured| / measured
    largest_error: float
    kendall_tau: float


def quality(predicted: np.ndarray, measured: np.ndarray) -> Quality:
    """Of networks [V]; tau is NaN where V < 2 or all are predicted alike."""
    errors = np.abs(predicted - measured) / measured
    tau = scipy.stats.kendalltau(predicted, measured)[0] if len(measured) > 1 else np.nan
    return Quality(float(np.median(errors)), float(errors.max()), float(tau))
