"""The decision module: which proposals are trained, and which take their prediction as reward."""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array

COVERAGE = 0.68  # share of errors that one unit of uncertainty is to cover
WINDOW = 64  # errors that the calibration looks back on
PRESUMED = (2.0, 4)  # before errors are known: so large in units of sigma, and so many


class Config(NamedTuple):
    """Hyper-parameters; core/config.py explains and documents the product's defaults."""

    tau: float = 2.0  # in standard deviations of trained scores
    tau_points: float = 0.0  # in hundredths of the reward; above 0 it replaces tau
    warmup: int = 16
    explore: float = 0.05


class Calibration(NamedTuple):
    """The last W errors in units of sigma."""

    ratios: Array  # [W] float32 |score - V| / sigma
    added: Array  # [] int32


def uncalibrated() -> Calibration:
    """Before any error is known."""
    return Calibration(jnp.zeros(WINDOW, jnp.float32), jnp.int32(0))


def recalibrate(calibration: Calibration, ratios: Array, mask: Array) -> Calibration:
    """Adds the masked `ratios` [N] to the window."""
    chex.assert_equal_shape([ratios, mask])
    slot = jnp.where(mask, (calibration.added + jnp.cumsum(mask) - 1) % WINDOW, WINDOW)
    return Calibration(
        calibration.ratios.at[slot].set(ratios, mode="drop"),
        calibration.added + mask.sum(dtype=jnp.int32),
    )


def factor(calibration: Calibration) -> Array:
    """[] float32: the 68% quantile of the window (interpolated).

    A few presumed errors stand beside the first real ones; every four of these replace one.
    """
    start, strength = PRESUMED
    held = jnp.minimum(calibration.added, WINDOW)
    presumed = jnp.maximum(strength - held // 4, 0)
    ratios = jnp.where(jnp.arange(WINDOW) < held, calibration.ratios, jnp.inf)
    extra = jnp.where(jnp.arange(strength) < presumed, start, jnp.inf)
    ratios = jnp.sort(jnp.concatenate([ratios, extra]))
    count = held + presumed
    position = COVERAGE * count - 0.5
    low = jnp.floor(position).astype(jnp.int32)
    share = position - low
    return (1 - share) * ratios[low] + share * ratios[jnp.minimum(low + 1, count - 1)]


def spread(scores: Array, mask: Array, predicted: Array) -> Array:
    """[] float32: standard deviation of the trained scores [C] in the region of the batch.

    The region is the range of the batch's predictions [N]; with fewer than four trained samples
    in it, all of them count, and with fewer than four at all it is 1, the unit of scores.
    """
    inside = mask & (scores >= predicted.min()) & (scores <= predicted.max())
    region = jnp.where(inside.sum() >= 4, inside, mask)
    count = jnp.maximum(region.sum(), 1)
    mean = jnp.sum(jnp.where(region, scores, 0.0)) / count
    variance = jnp.sum(jnp.where(region, (scores - mean) ** 2, 0.0)) / count
    return jnp.where(mask.sum() >= 4, jnp.sqrt(variance), 1.0)


def decide(
    config: Config,
    key: Array,
    uncertainty: Array,
    deviation: Array,
    points: Array,
    trained: Array,
) -> Array:
    """[N] bool: train these.

    Those whose uncertainty [N] exceeds tau times `deviation` [], or, with `tau_points`, whose
    uncertainty `points` [N] in hundredths of the reward exceeds that; everything while fewer than
    `warmup` architectures are `trained` []; and a share `explore` of the confident ones.
    """
    chex.assert_equal_shape([uncertainty, points])
    relative, absolute = uncertainty > config.tau * deviation, points > config.tau_points
    uncertain = absolute if config.tau_points > 0 else relative
    explored = jax.random.uniform(key, uncertainty.shape) < config.explore
    return uncertain | explored | (trained < config.warmup)
