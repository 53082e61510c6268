"""Which images have taught a pool, so that no search is judged on what its blocks have learnt from.

Images go by 64 bits of a digest of their pixels, as they were before any resizing. The names of all
that have taught stand beside the pool in one sorted array, 8 bytes each, which only grows: blocks
outlive the version that they came with. Whoever reads or writes holds the pool's lock.
"""

from __future__ import annotations

import pathlib
from typing import NamedTuple

import numpy as np

from fnas_jax.core import disk, npy
from fnas_jax.core.types import UserError

FILE = "taught.npy"
NOBODY = np.zeros(0, np.uint64)


class Images(NamedTuple):
    """The names of a task's images."""

    train: np.ndarray = NOBODY  # [n] uint64: children learn from these
    val: np.ndarray = NOBODY  # of those that judge children
    test: np.ndarray = NOBODY  # of those that judge winners


def read(folder: pathlib.Path) -> np.ndarray:
    """[n] uint64, sorted: all that have taught the pool in `folder`. Raises UserError."""
    path = folder / FILE
    if not path.exists():
        return NOBODY
    try:
        names = npy.load(path)
    except npy.UNREADABLE as error:
        raise UserError(f"{str(path)!r} cannot be read: {error}") from None
    if names.ndim != 1 or names.dtype != np.uint64:
        raise UserError(f"{str(path)!r} cannot be read: it holds {names.dtype}{list(names.shape)}")
    return names


def add(folder: pathlib.Path, names: np.ndarray) -> None:
    """Says that the images `names` teach the pool, in one step: a reader sees all or none."""
    known = read(folder)
    joined = np.union1d(known, names)
    path = folder / FILE
    if len(joined) == len(known) and path.exists():
        return
    with disk.replacing(path, "wb") as file:
        np.save(file, joined)


def known_of(taught: np.ndarray, judges: np.ndarray, train: np.ndarray) -> int:
    """How many of the images `judges` have `taught`; copies of own training images do not count."""
    return len(np.setdiff1d(np.intersect1d(taught, judges), train))
