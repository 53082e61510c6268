"""The decision module: which proposals are trained, and which take their prediction as reward."""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.methods.fnas.config import Uac
from fnas_jax.methods.scores import LEAST_STD

COVERAGE = 0.68  # share of errors that one unit of uncertainty is to cover
WINDOW = 64  # errors that the calibration looks back on
PRESUMED = (2.0, 4)  # before errors are known: their size in units of sigma, and their number


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
    filled = jnp.minimum(calibration.added, WINDOW)
    presumed = jnp.maximum(strength - filled // 4, 0)
    ratios = jnp.where(jnp.arange(WINDOW) < filled, calibration.ratios, jnp.inf)
    extra = jnp.where(jnp.arange(strength) < presumed, start, jnp.inf)
    ratios = jnp.sort(jnp.concatenate([ratios, extra]))
    count = filled + presumed
    position = COVERAGE * count - 0.5
    low = jnp.floor(position).astype(jnp.int32)
    share = position - low
    return (1 - share) * ratios[low] + share * ratios[jnp.minimum(low + 1, count - 1)]


def score_std(scores: Array, mask: Array, predicted: Array) -> Array:
    """[] float32: standard deviation of the trained scores [C] in the region of the batch.

    The region is the range of the batch's predictions [N]; with fewer than four trained samples
    in it, all of them count, and with fewer than four at all it is 1, the unit of scores. A
    controller that has settled predicts a batch of equals: the region is then a point, against
    which everything would be uncertain, so that it is never below `LEAST_STD` (ours).
    """
    inside = mask & (scores >= predicted.min()) & (scores <= predicted.max())
    region = jnp.where(inside.sum() >= 4, inside, mask)
    count = jnp.maximum(region.sum(), 1)
    mean = jnp.sum(jnp.where(region, scores, 0.0)) / count
    variance = jnp.sum(jnp.where(region, (scores - mean) ** 2, 0.0)) / count
    return jnp.where(mask.sum() >= 4, jnp.maximum(jnp.sqrt(variance), LEAST_STD), 1.0)


class Evidence(NamedTuple):
    """What is known of N proposals before it is decided which of them are trained."""

    uncertainty: Array  # [N] float32 U, in scores
    std: Array  # [] float32 of trained scores, see `score_std`
    points: Array  # [N] float32 U in hundredths of the reward
    trained: Array  # [] int32 architectures trained so far
    known: Array  # [N] bool: stands in the buffer, so another training costs nothing
    acquired: Array  # [N] bool: chosen to be trained, see `acquire.py`


class Decision(NamedTuple):
    """What is trained of N proposals."""

    train: Array  # [N] bool, the `train_mask`
    explored: Array  # [N] bool: of these, the ones that only `uac.explore` asked for


def decide(config: Uac, warmup: int, key: Array, evidence: Evidence | None, n: int) -> Decision:
    """All that decides what FNAS trains of a proposal of n.

    Everything without a critic (`evidence` None), and while fewer than `warmup` architectures are
    trained. Else those

    - whose uncertainty exceeds `uac.tau` times the deviation of scores, or, with
      `uac.tau_points`, that many hundredths of the reward;
    - that were acquired because the critic thinks them the best;
    - that are known already: a reading beats a prediction and costs nothing;
    - and a share `uac.explore` of the rest, the confident ones, which are `explored`: the only
      sample of the errors of what is not trained that is free of selection.

    The other ones take their prediction as reward.
    """
    if evidence is None:
        return Decision(jnp.ones(n, bool), jnp.zeros(n, bool))
    e = evidence
    chex.assert_shape([e.uncertainty, e.points, e.known, e.acquired], (n,))
    relative, absolute = e.uncertainty > config.tau * e.std, e.points > config.tau_points
    uncertain = absolute if config.tau_points > 0 else relative
    needed = uncertain | (e.trained < warmup) | e.known | e.acquired
    explored = ~needed & (jax.random.uniform(key, (n,)) < config.explore)
    return Decision(needed | explored, explored)
