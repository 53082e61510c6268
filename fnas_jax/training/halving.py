"""Children that fall behind stop early: asynchronous successive halving.

At each of some rungs, after a share of the steps, a child is judged, and goes on if it is among the
best 1 / eta of the newest children that were judged there (ASHA: Li et al., MLSys 2020, arXiv
1810.05934, algorithm 2; ours: of the newest, because children that inherit blocks get better while
a search goes on, and its children are decided on once, when they get there, so that a search stays
a function of its seed).

What is reported of a child that was stopped is what full training is expected to have given: its
reading and the mean of what children gained from that rung on that did go on. So the numbers of all
children can be compared, and learnt from; which of them were read is told (`Metrics.stopped`).
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array

WINDOW = 32  # children that are remembered at each rung


class Ladder(NamedTuple):
    """What is known of R rungs by the newest W children; NaN where there were fewer."""

    rewards: Array  # [R, W] float32 of those that were judged there, by their readings
    gains: Array  # [R, W] float32 accuracy after all steps, less that at the rung
    finished: Array  # [W] float32 accuracies after all steps
    stopped: Array  # [] int32 children so far
    saved: Array  # [] float32 training steps that these have not made


class Settled(NamedTuple):
    """N children after their training."""

    accuracy: Array  # [N] float32 measured after all steps, or expected to be
    stopped: Array  # [N] int32 steps after which a child was stopped; 0: it made all


def empty(rungs: int) -> Ladder:
    """Before the first child."""
    unknown = jnp.full((rungs, WINDOW), jnp.nan, jnp.float32)
    return Ladder(unknown, unknown, unknown[0], jnp.int32(0), jnp.float32(0))


def rungs(steps: int, eta: int, most: int) -> tuple[int, ...]:
    """After how many of `steps` children are judged: steps / eta^k for k = `most` to 1.

    Fewer where that leaves no step between them; none for eta 0.
    """
    if not eta:
        return ()
    found = {round(steps / eta**k) for k in range(1, most + 1)}
    return tuple(sorted(found - {0, steps}))


def share(at: tuple[int, ...], steps: int, eta: int) -> float:
    """Of `steps`, how many a child is expected to make where one in `eta` goes on at rungs `at`."""
    ends = (0, *at, steps)
    parts = itertools.pairwise(ends)
    return sum((b - a) / eta**k for k, (a, b) in enumerate(parts)) / steps if at else 1.0


def judgings(at: tuple[int, ...], eta: int) -> float:
    """How often a child is expected to be judged: at the rungs that it reaches, and in the end."""
    return 1.0 + sum(1 / eta**k for k in range(len(at)))


def goes_on(ladder: Ladder, rung: int, rewards: np.ndarray, eta: int) -> np.ndarray:
    """[N] bool: which children go on from a rung where they read `rewards` [N], NaN if not there.

    Those that are among the best 1 / eta (rounded up) of themselves and the newest before them. One
    that is no number (a failed training) does not.
    """
    before = np.asarray(ladder.rewards[rung])
    every = np.concatenate([before[np.isfinite(before)], rewards[np.isfinite(rewards)]])
    most = -(-len(every) // eta)
    better = (every[None] > rewards[:, None]).sum(axis=1)
    return np.isfinite(rewards) & (better < most)


@jax.jit
def settle(
    ladder: Ladder,
    at: Array,
    readings: Array,
    rewards: Array,
    accuracy: Array,
    going: Array,
    total: Array,
) -> tuple[Ladder, Settled]:
    """What becomes of N children, and the ladder that knows them.

    Args:
      ladder: that knows those before them.
      at: [R] int32 steps of the rungs.
      readings: [N, R] float32 accuracies there, NaN where a child did not come.
      rewards: [N, R] float32 of these, NaN also for failed ones.
      accuracy: [N] float32 after the last step that a child made; NaN for those that failed or
        were not trained.
      going: [N] bool: it made all steps.
      total: [] int32 steps.
    """
    came = ~jnp.isnan(readings)
    stopped = came.any(axis=1) & ~going & ~jnp.isnan(accuracy)
    full = jnp.where(going, accuracy, jnp.nan)
    gains = _newest(ladder.gains, (full[:, None] - readings).T)
    finished = _newest(ladder.finished[None], full[None])[0]
    # Of the rung where it was stopped; nothing is gained where nobody has gone on from there.
    mean = jnp.nan_to_num(jnp.nanmean(gains, axis=1))
    last = jnp.argmax(jnp.where(came, at, -1), axis=1)
    # No more than any child has: readings are of a few images, and so are gains.
    most = jnp.nan_to_num(jnp.nanmax(finished), nan=jnp.inf)
    expected = jnp.minimum(accuracy + mean[last], jnp.maximum(most, accuracy))
    made = jnp.where(stopped, at[last], 0)
    ladder = Ladder(
        rewards=_newest(ladder.rewards, rewards.T),
        gains=gains,
        finished=finished,
        stopped=ladder.stopped + stopped.sum(dtype=jnp.int32),
        saved=ladder.saved + jnp.where(stopped, total - made, 0).sum(dtype=jnp.float32),
    )
    return ladder, Settled(jnp.where(stopped, expected, accuracy), made)


def _newest(window: Array, values: Array) -> Array:
    """`window` [R, W] with the numbers among `values` [R, N] behind its own, the newest W."""
    every = jnp.concatenate([window, values], axis=1)
    order = jnp.argsort(~jnp.isnan(every), axis=1, stable=True)  # what is no number comes first
    return jnp.take_along_axis(every, order, axis=1)[:, -window.shape[1] :]
