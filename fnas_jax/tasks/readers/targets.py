"""What labels are, by objective: the columns of a user's arrays as targets, and their names.

Labels of another objective are refused with the name of the one that would take them; which one is
meant is never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fnas_jax.core.types import UserError
from fnas_jax.tasks.readers import masks
from fnas_jax.tasks.readers.examples import name_classes

LARGEST = float(np.finfo(np.float32).max)

Columns = Sequence[np.ndarray]  # the labels of each part of a set, as they were given
# (columns, how errors call the set) -> (targets of each part, names of classes, labels or values)
Reader = Callable[[Columns, str], tuple[list[np.ndarray], tuple[str, ...]]]


def read(objective: str, columns: Columns, source: str) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """(targets of each part, names) of labels for `objective`. Raises UserError."""
    if objective not in READERS:
        raise UserError(
            f"{source} is an array set, and task.objective is {objective!r}, of which arrays have"
            f" no labels yet; they have for {', '.join(READERS)}"
        )
    return READERS[objective](columns, source)


def classes(columns: Columns, source: str) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """int32 class numbers [n] of numbers or names, [n] or [n, 1]."""
    for labels in columns:
        if labels.ndim == 3:
            raise UserError(
                f"The labels of {source} have shape {list(labels.shape)}: one class number or name"
                " per image is needed, as an array of shape [n]; task.objective=segmentation takes"
                " masks."
            )
        if labels.ndim == 2 and labels.shape[1] > 1:
            takes = "multilabel" if _zeros_and_ones(labels) else "regression"
            raise UserError(
                f"The labels of {source} have shape {list(labels.shape)}: one class number or name"
                f" per image is needed, as an array of shape [n]; task.objective={takes} takes"
                f" several {'labels' if takes == 'multilabel' else 'values'} of an image."
            )
        if labels.dtype.kind == "f" and not _whole(labels):
            raise UserError(
                f"The labels of {source} are fractions (e.g."
                f" {float(labels.flat[int(np.argmax(labels.ravel() % 1 != 0))]):g}): class numbers"
                " or names are needed; task.objective=regression takes values."
            )
    return name_classes(columns, source)


def several(columns: Columns, source: str) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """int32 0 or 1 [n, L]: which of L labels each image has."""
    found = []
    for labels in columns:
        if labels.ndim != 2:
            raise UserError(
                f"The labels of {source} have shape {list(labels.shape)}: task.objective=multilabel"
                " needs 0 or 1 for each label, as an array of shape [n, L];"
                " task.objective=classification takes one class of each image."
            )
        if labels.dtype.kind not in "biuf" or not _zeros_and_ones(labels):
            raise UserError(
                f"The labels of {source} are not all 0 or 1, which task.objective=multilabel needs;"
                " task.objective=regression takes values."
            )
        found.append(labels.astype(np.int32))
    return found, _numbered(found, source)


def values(columns: Columns, source: str) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """float64 [n, R]: R values of each image, of numbers [n] or [n, R]."""
    found = []
    for labels in columns:
        if labels.dtype.kind not in "biuf" or labels.ndim not in (1, 2):
            raise UserError(
                f"The labels of {source} have shape {list(labels.shape)} and dtype {labels.dtype}:"
                " task.objective=regression needs numbers, as an array of shape [n] or [n, R]."
            )
        exact = (labels[:, None] if labels.ndim == 1 else labels).astype(np.float64)
        if not np.isfinite(exact).all():
            row = int(np.flatnonzero(~np.isfinite(exact).all(1))[0])
            raise UserError(f"The value of row {row} of {source} is not finite.")
        if exact.size and np.abs(exact).max() > LARGEST:
            place = np.unravel_index(np.abs(exact).argmax(), exact.shape)
            raise UserError(
                f"The value of row {place[0]} of {source} is {exact[place]:g}, and float32, in"
                f" which networks answer, ends at {LARGEST:.3g}: give the values in a larger unit."
            )
        found.append(exact)
    return found, _numbered(found, source)


def check_float32(values: np.ndarray, source: str) -> None:
    """Raises UserError where float32 loses what differs between values [n, R] of training images.

    That is where numbers of float32 as large as the largest value lie further apart than a
    thousandth of the values' deviation. Values that are all the same are not judged here.
    """
    exact = np.asarray(values, np.float64)
    steps = np.spacing(np.abs(exact).max(0).astype(np.float32)).astype(np.float64)
    lost = (steps > exact.std(0) / 1000) & (np.ptp(exact, 0) > 0)
    if lost.any():
        column = int(np.argmax(lost))
        raise UserError(
            f"Value {column} of {source} has the mean {exact[:, column].mean():.6g} and the"
            f" deviation {exact[:, column].std():.3g}, which float32, in which networks answer,"
            f" holds in steps of {steps[column]:.3g} only: subtract the mean first, or give the"
            " values in another unit."
        )


READERS: dict[str, Reader] = {
    "classification": classes,
    "multilabel": several,
    "regression": values,
    "segmentation": masks.read,
}


def _numbered(found: Columns, source: str) -> tuple[str, ...]:
    """Numbers as names of the columns, of which every part has as many. Raises UserError."""
    widths = {targets.shape[1] for targets in found}
    if len(widths) > 1:
        raise UserError(f"The labels of the parts of {source} have {sorted(widths)} columns.")
    return tuple(map(str, range(widths.pop())))


def _zeros_and_ones(labels: np.ndarray) -> bool:
    return labels.dtype.kind in "biuf" and bool(np.isin(labels, (0, 1)).all())


def _whole(labels: np.ndarray) -> bool:
    """No finite fraction; what is not finite is told by who reads class numbers."""
    return bool((~np.isfinite(labels) | (labels == np.floor(labels))).all())
