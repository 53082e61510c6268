"""Names of the classes of arrays: those of the user, or what the labels were."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from fnas_jax.core.types import UserError
from fnas_jax.tasks.readers.examples import Note, texts

_LISTED = 10  # names in a sentence


def numbered(names: tuple[str, ...], columns: Sequence[np.ndarray]) -> list[Note]:
    """What to know of class numbers that are others than 0 to C-1."""
    if columns[0].dtype.kind in "US" or names == tuple(map(str, range(len(names)))):
        return []
    unlabelled = names[0] == "-1" and len(names) > 2
    hint = "; where -1 marks images without label, leave these out" if unlabelled else ""
    return [Note(f"labels are {quoted(names)}: {len(names)} classes, which are named so{hint}")]


def renamed(
    labels: list[np.ndarray],
    names: tuple[str, ...],
    columns: Sequence[np.ndarray],
    given: np.ndarray,
    source: str,
) -> tuple[list[np.ndarray], tuple[str, ...], list[Note]]:
    """(labels, names, notes) by the user's `given` names of classes.

    Texts are among the given names. Numbers count these from 0, or, where they reach beyond and
    there are as many, name the classes in their order. Names of no image are left out, and told.

    Args:
      labels: of each part, [n] int32 numbers of `names`.
      names: of the C classes by `examples.name_classes`.
      columns: the labels as they were given, of each part.
      given: [C] texts, or more.
      source: name of the set, for errors.

    Raises:
      UserError: too few names, or others than the labels.
    """
    wanted = _as_texts(given, source)
    if columns[0].dtype.kind in "US":
        missing = sorted(set(names) - set(wanted))
        if missing:
            raise UserError(f"Label {missing[0]!r} of {source} is not one of 'class_names'.")
        places = [wanted.index(name) for name in names]
        return _used(labels, places, wanted)
    numbers = list(map(int, names))
    if numbers[0] >= 0 and numbers[-1] < len(wanted):
        return _used(labels, numbers, wanted)
    if len(wanted) == len(names):
        pairs = ", ".join(f"{n} is '{name}'" for n, name in zip(names, wanted, strict=True))
        return labels, wanted, [Note(f"labels begin with {names[0]}: {pairs}")]
    raise UserError(
        f"'class_names' of {source} must be at least {len(names)} texts, one per class; it has"
        f" {len(wanted)}, and the labels are {quoted(names)}."
    )


def of_columns(given: np.ndarray, count: int, source: str, exact: bool = True) -> tuple[str, ...]:
    """The user's names of `count` labels or values, or of at least so many classes of pixels.

    Raises UserError for fewer of them, and, where they are `exact`, for more.
    """
    names = _as_texts(given, source)
    if len(names) < count or (exact and len(names) > count):
        many = f"{count} texts, one per column of its labels"
        many = many if exact else f"at least {count} texts, one per class of its masks"
        raise UserError(f"'class_names' of {source} must be {many}; it has {len(names)}.")
    return names


def quoted(names: Iterable[str]) -> str:
    """The first of some names, and how many more there are; of a set, in alphabetical order."""
    some = sorted(names) if isinstance(names, set) else list(names)
    more = f" and {len(some) - _LISTED} more" if len(some) > _LISTED else ""
    return ", ".join(f"'{name}'" for name in some[:_LISTED]) + more


def _used(
    labels: list[np.ndarray], places: list[int], wanted: tuple[str, ...]
) -> tuple[list[np.ndarray], tuple[str, ...], list[Note]]:
    """As `renamed`; `places`: of each number in `labels`, that of its name in `wanted`."""
    kept = sorted(places)
    notes = []
    if len(kept) < len(wanted):
        lost = quoted(name for i, name in enumerate(wanted) if i not in places)
        notes = [Note(f"of the {len(wanted)} 'class_names', no image is {lost}: left out")]
    order = np.array([kept.index(place) for place in places], np.int32)
    return [order[column] for column in labels], tuple(wanted[i] for i in kept), notes


def _as_texts(given: np.ndarray, source: str) -> tuple[str, ...]:
    given = texts(given, source) if given.dtype.kind == "S" else given
    if given.ndim != 1 or given.dtype.kind != "U":
        raise UserError(
            f"'class_names' of {source} must be texts, one per class, as an array of shape [C]; it"
            f" has shape {list(given.shape)} and dtype {given.dtype}."
        )
    return tuple(str(name) for name in given)
