"""Children that fall behind stop early: asynchronous successive halving.

At each of some rungs, after a share of the steps, a child is judged, and goes on if it is among the
best 1 / eta of the newest children that were judged there (ASHA: Li et al., MLSys 2020, arXiv
1810.05934, algorithm 2; ours: of the newest, because children that inherit blocks get better while
a search goes on, and its children are decided on once, when they get there, so that a search stays
a function of its seed).

Hyperband's brackets (Li et al., JMLR 18(185), 2018, arXiv 1603.06560, algorithm 1) hedge against
rungs that come too early: children of bracket b skip the first b rungs, and are compared with those
of their own bracket. They are dealt to brackets when they begin, in Hyperband's shares, which have
all brackets make as many steps where children begin anew at each rung. Here they go on, so that
brackets of many rungs make somewhat fewer.

What is reported of a child that was stopped is what full training is expected to have given: its
reading and the mean of what children gained from that rung on that did go on. So the numbers of all
children can be compared, and learnt from; which of them were read is told (`Metrics.stopped`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array

WINDOW = 32  # children that are remembered at each rung of a bracket


class Ladder(NamedTuple):
    """What is known of R rungs by the newest W children; NaN where there were fewer."""

    # [P, W] float32 of those that were judged there, by their readings; P as `places` has them
    rewards: Array
    gains: Array  # [R, W] float32 accuracy after all steps, less that at the rung
    finished: Array  # [W] float32 accuracies after all steps
    stopped: Array  # [] int32 children so far
    saved: Array  # [] float32 training steps that these have not made


class Settled(NamedTuple):
    """N children after their training."""

    accuracy: Array  # [N] float32 measured after all steps, or expected to be
    stopped: Array  # [N] int32 steps after which a child was stopped; 0: it made all


def empty(rungs: int, brackets: int = 1) -> Ladder:
    """Before the first child."""
    unknown = jnp.full((len(places(rungs, brackets)), WINDOW), jnp.nan, jnp.float32)
    return Ladder(unknown, unknown[:rungs], unknown[0], jnp.int32(0), jnp.float32(0))


def places(rungs: int, brackets: int) -> list[tuple[int, int]]:
    """[P] (bracket, rung) where children are compared. The last bracket there may be has none."""
    return [(bracket, rung) for bracket in range(brackets) for rung in range(bracket, rungs)]


def rungs(steps: int, eta: int, most: int) -> tuple[int, ...]:
    """After how many of `steps` children are judged: steps / eta^k for k = `most` to 1.

    Fewer where that leaves no step between them; none for eta 0.
    """
    if not eta:
        return ()
    found = {round(steps / eta**k) for k in range(1, most + 1)}
    return tuple(sorted(found - {0, steps}))


def brackets(at: tuple[int, ...], most: int) -> int:
    """How many of `most` brackets there are with rungs `at`: the last one skips all of them."""
    return min(most, len(at) + 1)


def shares(rungs: int, eta: int, brackets: int) -> tuple[float, ...]:
    """[B] of all children, how many each bracket has; B is no more than `rungs` + 1.

    In proportion to Hyperband's numbers, (s_max + 1) eta^s / (s + 1) rounded up, of children that
    begin a bracket with s rungs to come.
    """
    left = range(rungs, max(rungs - brackets, -1), -1)
    counts = [math.ceil((rungs + 1) * eta**s / (s + 1)) for s in left]
    return tuple(count / sum(counts) for count in counts)


def dealt(key: Array, new: Array, among: tuple[float, ...]) -> np.ndarray:
    """[N] int32: the bracket of each child, for those of `new` [N] in shares `among` [B].

    As near to these as so many can be, in random order: systematic sampling.
    """
    key_order, key_start = jax.random.split(key)
    random = jax.random.uniform(key_order, new.shape)
    order = jnp.argsort(jnp.argsort(jnp.where(new, random, jnp.inf)))
    points = (order + jax.random.uniform(key_start)) / jnp.maximum(jnp.sum(new), 1)
    found = np.searchsorted(np.cumsum(among), np.asarray(points), side="right")
    return np.where(new, np.minimum(found, len(among) - 1), 0).astype(np.int32)


def share(at: tuple[int, ...], steps: int, eta: int, most: int = 1) -> float:
    """Of `steps`, how many a child is expected to make where one in `eta` goes on at rungs `at`.

    In up to `most` brackets.
    """

    def made(own: tuple[int, ...]) -> float:
        parts = itertools.pairwise((0, *own, steps))
        return sum((b - a) / eta**k for k, (a, b) in enumerate(parts)) / steps

    return _over_brackets(made, at, eta, most)


def judgings(at: tuple[int, ...], eta: int, most: int = 1) -> float:
    """How often a child is expected to be judged: at the rungs that it reaches, and in the end."""
    return _over_brackets(lambda own: 1 + sum(1 / eta**k for k in range(len(own))), at, eta, most)


def _over_brackets(
    of: Callable[[tuple[int, ...]], float], at: tuple[int, ...], eta: int, most: int
) -> float:
    """The mean over children of what is `of` the rungs of their bracket."""
    if not at:
        return 1.0
    among = shares(len(at), eta, most)
    return sum(share * of(at[skipped:]) for skipped, share in enumerate(among))


def goes_on(
    ladder: Ladder, rung: int, rewards: np.ndarray, eta: int, brackets: np.ndarray
) -> np.ndarray:
    """[N] bool: which children go on from a rung where they read `rewards` [N], NaN if not there.

    Those that are among the best 1 / eta (rounded up) of themselves and the newest before them in
    their bracket, of `brackets` [N] int32. One that is no number (a failed training) does not. All
    go on whose bracket skips the rung.
    """
    on = brackets > rung
    for (bracket, where), before in zip(_places_of(ladder), ladder.rewards, strict=True):
        if where == rung:
            own = np.where(brackets == bracket, rewards, np.nan)
            on |= _best(np.asarray(before), own, eta)
    return on


def _best(before: np.ndarray, own: np.ndarray, eta: int) -> np.ndarray:
    """[N] bool: which of `own` [N] are among the best 1 / eta of themselves and `before` [W]."""
    every = np.concatenate([before[np.isfinite(before)], own[np.isfinite(own)]])
    most = -(-len(every) // eta)
    better = (every[None] > own[:, None]).sum(axis=1)
    return np.isfinite(own) & (better < most)


def _places_of(ladder: Ladder) -> list[tuple[int, int]]:
    """`places` of a ladder."""
    rungs = len(ladder.gains)
    return places(rungs, rungs)[: len(ladder.rewards)]


@jax.jit
def settle(
    ladder: Ladder,
    at: Array,
    readings: Array,
    rewards: Array,
    accuracy: Array,
    going: Array,
    total: Array,
    brackets: Array,
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
      brackets: [N] int32 of the children.
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
    compared = [
        jnp.where(brackets == bracket, rewards[:, rung], jnp.nan)
        for bracket, rung in _places_of(ladder)
    ]
    ladder = Ladder(
        rewards=_newest(ladder.rewards, jnp.stack(compared)),
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
