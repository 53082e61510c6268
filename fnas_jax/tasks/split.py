"""Dividing examples into training, validation and test images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from fnas_jax.core.types import UserError
from fnas_jax.tasks.readers.examples import Note


def split(
    ids: Sequence[bytes],
    shares: Sequence[float],
    seed: int,
    name: str,
    strata: np.ndarray | None = None,
    strata_names: Sequence[str] = (),
) -> tuple[list[np.ndarray], tuple[Note, ...]]:
    """(row numbers of one subset per share and of the rest, what could not be divided so).

    Every subset has the same share of every stratum.

    Rows of one id, which is one image, are a group, and no group is divided: a test image that was
    trained on measures memory. Groups are ranked by a hash of (seed, id) and dealt out within each
    stratum in that order, so that a row's fate does not depend on where it stands. A group that
    does not fit into what a subset still lacks is passed on, so that in every stratum a subset has
    its share to within its smallest group, rounding, and at least one group of the stratum. Each
    subset is in the order of the hashes: a prefix of it is a random sample.

    Args:
      ids: n names of examples by their content, as `Part.ids`.
      shares: of each subset, in [0, 1); a share of 0 gives no row. Their sum is less than 1.
      seed: another seed, another split.
      name: of the set, for errors.
      strata: [n] int32, the stratum of each row (for classification its class); None: all rows are
        one stratum. A group of several strata is dealt out with the rarest of them.
      strata_names: of each stratum, for errors; each has to be there.

    The groups of a stratum that has fewer than there are subsets are left to the rest, which the
    notes say with how many rows of it are there. Others of its rows may be in groups of rarer
    strata, which are divided with these.

    Raises:
      UserError: fewer rows in a stratum than subsets, or a subset that nothing is left for.
    """
    salt = str(seed).encode()
    digests = [hashlib.blake2b(id_, key=salt, digest_size=16).digest() for id_ in ids]
    owner = np.zeros(len(ids), np.int64) if strata is None else strata.astype(np.int64)
    order = np.asarray(sorted(range(len(ids)), key=lambda i: (digests[i], owner[i])), np.int64)
    starts = [i for i in range(len(order)) if not i or digests[order[i]] != digests[order[i - 1]]]
    groups = np.split(order, starts[1:]) if len(order) else []
    numbers = np.bincount(owner, minlength=max(1, len(strata_names)))
    of_group = np.array([_rarest(owner[group], numbers) for group in groups], np.int64)
    needed = 1 + sum(share > 0 for share in shares)
    subsets: list[list[int]] = [[] for _ in range(len(shares) + 1)]
    few: dict[int, int] = {}  # strata of some groups, but too few, and how many
    for stratum, rows in enumerate(numbers):
        own = np.flatnonzero(of_group == stratum)
        if rows < needed:
            raise UserError(
                f"{_whose(stratum, strata_names, name)} has {rows} training examples: at least"
                f" {needed} are needed to split it."
            )
        if len(own) < needed:
            if len(own):
                few[stratum] = len(own)
            subsets[-1].extend(own.tolist())
            continue
        dealt = _deal([len(groups[g]) for g in own], shares)
        for subset, places in zip(subsets, dealt, strict=True):
            subset.extend(own[places].tolist())
    if not all(subset for subset, share in zip(subsets, shares, strict=False) if share > 0):
        raise UserError(
            f"{name} has too few different images to split it, {len(groups)} of {len(ids)}, as"
            " equal images stay together: give validation and test images of your own."
        )
    none = np.zeros(0, np.int64)
    found = [np.concatenate([none, *(groups[g] for g in sorted(subset))]) for subset in subsets]
    notes = (
        Note(
            f"{_whose(stratum, strata_names, name)}"
            f" {_too_few(numbers[stratum], count, needed, np.sum(owner[found[-1]] == stratum))}"
        )
        for stratum, count in few.items()
    )
    return found, tuple(notes)


def _whose(stratum: int, names: Sequence[str], name: str) -> str:
    """What errors and notes call a stratum of the set `name`."""
    return f"Class '{names[stratum]}' of {name}" if len(names) else name


def _rarest(strata: np.ndarray, numbers: np.ndarray) -> int:
    """The one of `strata` with the fewest rows, which can spare a group least."""
    return min(set(strata.tolist()), key=lambda stratum: (numbers[stratum], stratum))


def _deal(sizes: list[int], shares: Sequence[float]) -> list[list[int]]:
    """Places of the groups of `sizes`, in their order, that each share and the rest get."""
    left = list(range(len(sizes)))
    later = 1 + sum(share > 0 for share in shares)  # subsets that still need a group
    dealt: list[list[int]] = []
    for share in shares:
        taken: list[int] = []
        if share > 0:
            later -= 1
            taken = _fill(
                [sizes[place] for place in left], max(1, round(share * sum(sizes))), later
            )
        dealt.append([left[i] for i in taken])
        mine = set(taken)
        left = [place for i, place in enumerate(left) if i not in mine]
    return [*dealt, left]


def _fill(sizes: list[int], count: int, spare: int) -> list[int]:
    """Places in `sizes` that make `count` as nearly as they do in this order, but for `spare`."""
    taken: list[int] = []
    total = 0
    for place, size in enumerate(sizes):
        if total >= count or len(taken) == len(sizes) - spare:
            break
        if 2 * total + size <= 2 * count:  # nearer to the count with it than without
            taken.append(place)
            total += size
    return taken or [int(np.argmin(sizes))]


def _too_few(rows: int, groups: int, needed: int, kept: int) -> str:
    """What has become of a stratum of fewer different images than subsets, in words.

    `kept`: how many of its `rows` have stayed training images.
    """
    plural = "s" * (groups != 1)
    become = (
        "all of them are training images, and nothing is judged by them"
        if kept == rows
        else f"{kept} of them stay training images"
    )
    return (
        f"has {rows} training examples, but only {groups} different image{plural} of its own, where"
        f" at least {needed} are needed to split it, as equal images stay together: {become}"
    )
