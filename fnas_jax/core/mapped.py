"""Arrays of images that stay in their files: rows are read when they are asked for.

For sets that are larger than memory. Rows are read by their place in the file and not through a
memory map: what was read then does not count as the process's memory, and a file that is cut short
meanwhile is an error that can be told, where a map would end the process.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fnas_jax.core.types import UserError

MAPPED_FROM = 2**28  # bytes of an array: smaller ones are read whole, which is faster
CHUNK = 2**24  # bytes that are read at once where all rows are gone through


class Stored:
    """An array in C order that begins somewhere in a file, which stays open."""

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype):
        self.path, self.offset, self.shape, self.dtype = path, offset, shape, dtype
        self._file = path.open("rb", buffering=0)  # a replaced file is still the one that began

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """[k, ..] of sorted row numbers [k]. Raises UserError where the file is shorter now."""
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        if not found.size:
            return found
        view = found.reshape(-1).view(np.uint8).data
        width = found.nbytes // len(rows)
        # Neighbours come together: `starts` are places in `rows` where a new run begins.
        starts = np.flatnonzero(np.r_[True, np.diff(rows) != 1])
        for first, last in zip(starts, [*starts[1:], len(rows)], strict=True):
            self._fill(view[first * width : last * width], self.offset + int(rows[first]) * width)
        return found

    def _fill(self, view: memoryview, place: int) -> None:
        while view:
            data = os.pread(self._file.fileno(), len(view), place)
            if not data:
                raise UserError(f"{self.path} has been cut short while it was read.")
            view[: len(data)] = data
            view, place = view[len(data) :], place + len(data)


class Mapped:
    """Rows [n, ..] of arrays, of which none is read before it is asked for.

    `x[i]`, `x[a:b]`, `x[rows]` and `x[rows, ..]` are arrays in memory; `take` is another `Mapped`.
    `np.asarray` reads all.
    """

    def __init__(
        self,
        sources: Sequence[Stored | np.ndarray],
        row_shape: tuple[int, ...],
        dtype: np.dtype | type,
        rows: np.ndarray | None = None,
    ):
        """`rows` [n] int64 are places in all `sources` one after another; None: all in order."""
        self.sources = tuple(sources)
        self.edges = np.cumsum([0, *(len(source) for source in self.sources)])
        self.rows = np.arange(self.edges[-1]) if rows is None else rows
        self.shape = (len(self.rows), *row_shape)
        self.dtype = np.dtype(dtype)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that all of it would take."""
        return self.size * self.dtype.itemsize

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple):
            return self[key[0]][(slice(None), *key[1:])]
        if isinstance(key, int | np.integer):
            return self._read(np.atleast_1d(self.rows[key]))[0]
        return self._read(self.rows[key])

    def __iter__(self) -> Iterator[np.ndarray]:
        for chunk in chunks(self):
            yield from chunk

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("rows of files are always copied")
        return self[:].astype(dtype or self.dtype, copy=False)

    def take(self, rows: np.ndarray) -> Mapped:
        """Some of the rows, as unread as they were."""
        return Mapped(self.sources, self.shape[1:], self.dtype, self.rows[rows])

    def viewed(self, row_shape: tuple[int, ...], dtype: np.dtype | type) -> Mapped:
        """The same rows, reshaped and converted when they are read."""
        return Mapped(self.sources, row_shape, dtype, self.rows)

    def _read(self, rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        order = np.argsort(rows, kind="stable")  # files are read from front to back
        for source, first, last in zip(self.sources, self.edges, self.edges[1:], strict=False):
            own = order[np.searchsorted(rows[order], first) : np.searchsorted(rows[order], last)]
            if len(own):
                stored = source[rows[own] - first].reshape(len(own), *self.shape[1:])
                with np.errstate(over="ignore"):  # infinite then, which whoever needs them refuses
                    found[own] = stored
        return found


Images = np.ndarray | Mapped  # [n, H, W, C]


def mapped(path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> Mapped:
    """The array [n, ..] in C order at `offset` of a file."""
    return Mapped((Stored(path, offset, shape, dtype),), shape[1:], dtype)


def chunks(images: Images) -> Iterator[np.ndarray]:
    """`images` in pieces of about `CHUNK` bytes, in order."""
    step = max(1, CHUNK * len(images) // max(1, images.nbytes))
    for first in range(0, len(images), step):
        yield images[first : first + step]


def in_file_order(images: Images) -> Images:
    """The same images in the order in which they are read fastest."""
    return images.take(np.argsort(images.rows)) if isinstance(images, Mapped) else images


def extent(images: Images) -> tuple[float, float]:
    """Smallest and largest number of at least one image, but for NaN."""
    ends = [
        (float(np.nanmin(chunk)), float(np.nanmax(chunk)))
        for chunk in chunks(in_file_order(images))
    ]
    return min(low for low, _ in ends), max(high for _, high in ends)


def take(images: Images, rows: np.ndarray) -> Images:
    """The images [k, H, W, C] of some rows: a copy, or unread."""
    return images.take(rows) if isinstance(images, Mapped) else images[rows]


def joined(*parts: Images) -> Images:
    """Images one after another: a copy, or unread where one of them is."""
    if not any(isinstance(part, Mapped) for part in parts):
        return np.concatenate(parts)
    sources: list[Stored | np.ndarray] = []
    rows, count = [], 0
    for part in parts:
        own = part if isinstance(part, Mapped) else Mapped((part,), part.shape[1:], part.dtype)
        if own.dtype != parts[0].dtype or own.shape[1:] != parts[0].shape[1:]:
            raise ValueError(f"{own.dtype}{own.shape} and {parts[0].dtype}{parts[0].shape}")
        sources += own.sources
        rows.append(own.rows + count)
        count += own.edges[-1]
    return Mapped(sources, parts[0].shape[1:], parts[0].dtype, np.concatenate(rows))


def whole(images: Images) -> np.ndarray:
    """Images in memory."""
    return np.asarray(images)
