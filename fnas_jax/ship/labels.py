"""Labels of a user, for a kept network: brought to what its objective takes, or refused."""

from __future__ import annotations

from typing import Any

import numpy as np

from fnas_jax.core.types import IGNORE, UserError
from fnas_jax.objectives import classification
from fnas_jax.objectives.base import Objective
from fnas_jax.ship.inputs import Inputs
from fnas_jax.tasks.readers import targets as readers
from fnas_jax.tasks.readers.examples import nearest


def targets(objective: Objective, taken: Inputs, labels: Any) -> np.ndarray:
    """[N, ..] as `objective` takes them, of a network of `taken`. Raises UserError.

    `labels` are class numbers from 0 or names [N] (or [N, 1]); 0 or 1 [N, L]; values [N, R] (or
    [N]); or masks [N, H, W] of any H and W, which are resized as images are.
    """
    if objective.name == classification.NAME:
        return numbers(taken.class_names, labels)
    try:
        given = np.asarray(labels)
    except ValueError as error:
        raise UserError(f"the labels are no array: {error}") from None
    found = readers.read(objective.name, [given], "the data")[0][0]
    if objective.dense:
        return masks(taken, found)
    if found.shape[1:] not in ((objective.outputs,), ()):
        raise UserError(
            f"the labels have shape {list(given.shape)}; {objective.outputs} of each image"
            f" are needed: {', '.join(taken.class_names)}"
        )
    return found


def masks(taken: Inputs, given: np.ndarray) -> np.ndarray:
    """uint8 masks [N, height, width] of those [N, H, W] of a user, by the nearest pixel.

    Raises UserError for classes that the network does not know.
    """
    largest = int(given[given != IGNORE].max(initial=0))
    if largest >= len(taken.class_names):
        raise UserError(
            f"the masks have classes up to {largest}; class numbers are 0 to"
            f" {len(taken.class_names) - 1}, and {IGNORE} for pixels that count for nothing"
        )
    size = (taken.height, taken.width)
    if given.shape[1:] == size or not given.size:
        return given
    return np.stack([nearest(mask, *size) for mask in given])


def numbers(names: tuple[str, ...], labels: Any) -> np.ndarray:
    """Class numbers [N] of class numbers or names. Raises UserError for any other."""
    labels = _label_array(labels)
    if labels.dtype.kind in "US":
        number_of = {name: i for i, name in enumerate(names)}
        unknown = sorted(set(labels.tolist()) - number_of.keys())
        if unknown:
            raise UserError(f"{unknown[0]!r} is no class; these are {', '.join(names)}")
        return np.asarray([number_of[name] for name in labels.tolist()], np.int64)
    if labels.dtype.kind not in "ui" and labels.size:
        raise UserError(f"the labels are {labels.dtype}; class numbers or names are needed")
    if labels.size and not 0 <= labels.min() <= labels.max() < len(names):
        raise UserError(
            f"the labels reach from {labels.min()} to {labels.max()}; class numbers are 0 to"
            f" {len(names) - 1}"
        )
    return labels


def _label_array(given: Any) -> np.ndarray:
    """Labels of a user as an array [N], as a task takes those of images. Raises UserError."""
    try:
        labels = np.asarray(given)
    except ValueError as error:  # a list of lists of several lengths
        raise UserError(f"the labels are no array: {error}") from None
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise UserError(f"the labels have shape {list(labels.shape)}; [N] is needed")
    if labels.dtype.kind == "O" and all(isinstance(label, str) for label in labels):
        return labels.astype(str)  # as pandas has them
    return labels.astype(np.int64) if labels.dtype.kind == "b" else labels


def check_count(images: int, labels: int) -> None:
    """Raises UserError unless there are as many images as labels, at least one."""
    if images != labels or not images:
        raise UserError(
            f"there are {images} images and {labels} labels; one label for each of at least one"
            " image is needed"
        )
