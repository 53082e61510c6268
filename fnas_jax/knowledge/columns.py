"""What a query of the history finds, as arrays: some rows at a time, so that they fit into memory.

A row as Python has it takes some kilobytes, and a store may have millions.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fnas_jax.core import jsons

CHUNK = 2000  # rows at a time, which fit into a processor's cache
DIGITS = 9  # of a number that surely is an int32


class Texts(NamedTuple):
    """A column of texts, of which few are different."""

    place: np.ndarray  # [R] int32 of each row's among them
    different: list[str]

    def whole(self) -> np.ndarray:
        """[R] str, which takes four bytes for each character."""
        return np.asarray(self.different or [""], str)[self.place]


def read(cursor: sqlite3.Cursor, kinds: Mapping[str, type]) -> tuple[dict[str, Any], set[int]]:
    """({name: [R] of its kind}, the numbers of decisions that there are) of the rows of `cursor`.

    `kinds` are in the order of its columns. Of kind float are floats, where NULL is NaN; of kind
    str are `Texts`, where NULL is ''. Of kind list are decisions, JSON lists that become [R, T]
    int32: [0, 0] where there are none or several numbers T of them. Raises ValueError, TypeError or
    OverflowError for values that are none of their kinds.
    """
    known: dict[str, dict[str, int]] = {name: {} for name, kind in kinds.items() if kind is str}
    chunks = [_arrays(rows, kinds, known) for rows in itertools.chain([()], _chunks(cursor))]
    sizes: set[int] = set().union(*(found for _, found in chunks))
    arrays = [found for found, _ in chunks]
    whole: dict[str, Any] = {}
    for name, kind in kinds.items():
        columns = [found.pop(name) for found in arrays]  # which are not needed any more then
        if kind is list:
            columns = [c for c in columns if len(c)] if len(sizes) == 1 else columns[:1]
        whole[name] = np.concatenate(columns)
        if kind is str:
            whole[name] = Texts(whole[name], list(known[name]))
    return whole, sizes


def _chunks(cursor: sqlite3.Cursor) -> Iterator[Sequence[tuple]]:
    while rows := cursor.fetchmany(CHUNK):
        yield rows


def _arrays(
    rows: Sequence[tuple], kinds: Mapping[str, type], known: dict[str, dict[str, int]]
) -> tuple[dict[str, np.ndarray], set[int]]:
    columns = zip(*rows, strict=True) if rows else [()] * len(kinds)
    found: dict[str, np.ndarray] = {}
    sizes: set[int] = set()
    for (name, kind), column in zip(kinds.items(), columns, strict=True):
        if kind is list:
            found[name], sizes = decisions(column)
        elif kind is str:
            found[name] = _places(column, known[name])
        else:
            found[name] = np.asarray(column, kind)
    return found, sizes


def _places(column: Sequence[str | None], known: dict[str, int]) -> np.ndarray:
    """[n] int32 of each text among the `known` ones, which get those that are new."""
    own = dict.fromkeys(column)
    for text in own:
        if not isinstance(text, str | None):
            raise TypeError(f"{text!r} stands where a text should")
        own[text] = known.setdefault(text or "", len(known))
    return np.fromiter(map(own.__getitem__, column), np.int32, len(column))


def decisions(column: Sequence[str]) -> tuple[np.ndarray, set[int]]:
    """([n, T] int32 of n JSON lists, the numbers T); [0, 0] where there are none or several T."""
    text = ",".join(column)
    if column and (found := _as_written(text.encode(), len(column))) is not None:
        return found, {found.shape[1]}
    archs = jsons.parse(f"[{text}]")  # many short texts would take ten times
    if len(archs) != len(column):
        raise ValueError(f"{len(column)} rows have {len(archs)} lists of decisions")
    sizes = set(map(len, archs))
    if len(sizes) != 1:
        return np.zeros((0, 0), np.int32), sizes
    found = np.asarray(archs, np.int64)
    if np.any(found != found.astype(np.int32)):  # which older versions of numpy would cut
        raise OverflowError(f"{np.abs(found).max()} is more than a decision can be")
    return found.astype(np.int32), sizes


def _as_written(texts: bytes, count: int) -> np.ndarray | None:
    """[count, T] int32 of `texts`, joined by commas, where they are as `history.record` has them.

    None where they are not: of several numbers of decisions, with other spaces, or damaged. JSON's
    own reader takes four times as long, because it makes an object of each number.
    """
    size = texts[: texts.find(b"]")].count(b",") + 1
    text = np.frombuffer(texts, np.uint8)
    digit = (text >= ord("0")) & (text <= ord("9"))
    starts = np.flatnonzero(digit[1:] > digit[:-1]) + 1
    ends = np.flatnonzero(digit[:-1] > digit[1:])
    if not len(starts) == len(ends) == count * size or (ends - starts).max(initial=0) >= DIGITS:
        return None
    # Each number stands behind the bracket or space that is its own, and nothing else is there.
    one = b"[" + b", " * (size - 1) + b"]"
    if text[~digit].tobytes() != b",".join([one] * count):
        return None
    before = np.full((count, size), ord(" "), np.uint8)
    before[:, 0] = ord("[")
    if not np.array_equal(text[starts - 1], before.reshape(-1)):
        return None
    if np.any((text[starts] == ord("0")) & (starts < ends)):  # no number of JSON
        return None
    found = np.zeros(len(starts), np.int32)
    for place in range(int((ends - starts).max(initial=0)) + 1):
        more = ends - place >= starts
        found[more] += 10**place * (text[ends[more] - place].astype(np.int32) - ord("0"))
    return found.reshape(count, size)
