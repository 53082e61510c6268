"""The reward of a trained architecture: accuracy under a soft or hard cost constraint."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax.numpy as jnp
import numpy as np

from fnas_jax.core import measure as measures
from fnas_jax.core.measure import Measure
from fnas_jax.core.types import COSTS, Array, UserError

CHOICES = ("none", *COSTS)  # of `reward.cost`
ACCURACY = Measure()


class Reward(NamedTuple):
    """What a search maximises."""

    cost: str  # that it needs, one of CHOICES
    compute: Callable[[Array, Array, Array, Array], Array]  # as `from_config`
    # The same of another measure, e.g. that of stored rows; raises UserError where it cannot be
    by: Callable[[Measure], Callable[[Array, Array, Array, Array], Array]]


def mnas_reward(accuracy: Array, cost: Array, target: float, alpha: float, beta: float) -> Array:
    """R = ACC (COST / TARGET)^w with w = alpha where COST <= TARGET, else beta. [N] -> [N].

    `cost` and `target` have the same unit. Soft constraint: alpha = beta = -0.07; hard: alpha = 0,
    beta = -1. Source: MnasNet (arXiv 1807.11626), equations 2 and 3.
    """
    chex.assert_equal_shape([accuracy, cost])
    ratio = cost / target
    exponent = jnp.where(ratio <= 1, alpha, beta)
    return accuracy * jnp.maximum(ratio, 1e-6) ** exponent


def from_config(
    config: Any, measure: Measure = ACCURACY
) -> Callable[[Array, Array, Array, Array], Array]:
    """The function (accuracy, latency_ms, mflops, params_m) -> reward, all [N], of `config.reward`.

    The accuracy is that of `Metrics`, of a task with this `measure`. With cost "none" the reward is
    its score. Raises UserError for an unknown cost, a cost without a positive target, or one that
    a measure of unknown values cannot be weighed with.
    """
    reward = config.reward
    cost = reward.cost
    if cost not in CHOICES:
        raise UserError(f"reward.cost is {cost!r}; allowed are {', '.join(CHOICES)}")
    if cost == "none":
        return lambda accuracy, latency_ms, mflops, params_m: measures.score(measure, accuracy)
    if measure.kind == "number":
        raise UserError(
            f"reward.cost is {cost!r}, and the metric is {measure.name!r}: only an accuracy, or"
            " another metric whose scale is known, can be weighed with a cost; weigh them in the"
            " metric itself"
        )
    target, alpha, beta = float(reward.target), float(reward.alpha), float(reward.beta)
    if not target > 0:
        raise UserError(f"reward.target is {target}; with reward.cost {cost!r} it must be above 0")

    def compute(accuracy: Array, latency_ms: Array, mflops: Array, params_m: Array) -> Array:
        costs = {"latency_ms": latency_ms, "mflops": mflops, "params_m": params_m}
        return mnas_reward(measures.score(measure, accuracy), costs[cost], target, alpha, beta)

    return compute


def define(config: Any, measure: Measure = ACCURACY) -> Reward:
    """The reward of `config.reward`. Raises UserError as `from_config` does."""
    by = functools.partial(from_config, config)
    return Reward(config.reward.cost, by(measure), by)


def recompute(
    reward: Reward,
    accuracy: np.ndarray,
    latency_ms: np.ndarray,
    mflops: np.ndarray,
    params_m: np.ndarray,
    measure: Measure | None = None,
) -> np.ndarray:
    """[R] float64 rewards of R networks that were measured for any reward.

    By `measure`; None: by that of the reward. NaN where the accuracy, or the cost that `reward`
    needs, is not known, or cannot be weighed with what the accuracies measure.
    """
    compute = reward.compute
    if measure is not None:
        try:
            compute = reward.by(measure)
        except UserError:
            return np.full(len(accuracy), np.nan)
    costs = {"latency_ms": latency_ms, "mflops": mflops, "params_m": params_m}
    figures = (jnp.asarray(x, jnp.float32) for x in (accuracy, *costs.values()))
    known = np.isfinite(accuracy)
    if reward.cost != "none":  # asked of the cost itself, because NaN to the power 0 is 1
        known &= np.isfinite(costs[reward.cost])
    return np.where(known, np.asarray(compute(*figures), np.float64), np.nan)
