"""Which arrays of a set are images and which their labels, by what they are called."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fnas_jax.core.types import UserError
from fnas_jax.tasks.readers.examples import PART_NAMES, Note

# Of masks, beside those of labels
_MASKS = (("images", "masks"), ("image", "mask"), ("x", "masks"))
_DIVIDED_MASKS = (("x_{}", "masks_{}"), ("{}_images", "{}_masks"), ("images_{}", "masks_{}"))
_WHOLE = (
    ("images", "labels"),
    ("image", "label"),
    ("x", "y"),
    ("data", "target"),
    ("data", "labels"),
    ("data", "label"),
)
SPELLINGS = tuple(spelling for spellings in PART_NAMES.values() for spelling in spellings)
_DIVIDED = (
    ("x_{}", "y_{}"),
    ("{}_images", "{}_labels"),
    ("images_{}", "labels_{}"),
    ("{}_x", "{}_y"),
    ("{}_data", "{}_labels"),
    ("{}_data", "{}_target"),
)


def find(
    arrays: Mapping[str, np.ndarray], source: str, masks: bool = False
) -> tuple[dict[str, tuple[str, str]], list[Note]]:
    """The keys (images, labels) of each part, 'train' always among them, and what is not read.

    `masks`: they come before other labels.
    """
    found = _named(arrays, source, masks)
    used = {key for pair in found.values() for key in pair}
    rest = [key for key in arrays if key not in used and key.lower() != "class_names"]
    lower = {key.lower() for key in arrays}
    why: dict[str, list[str]] = {}  # a reason, and what is not read for it
    instead = ", ".join(f"{_counted(x, arrays)}, '{y}'" for x, y in found.values())
    for key in rest:
        partners = {what: of for what, of in _partners(key.lower()).items() if of}
        lacking = {what: of for what, of in partners.items() if not lower.intersection(of)}
        reason = f"there are {instead}" if partners else "no images or labels are called so"
        for what, of in lacking.items():
            reason = f"there are no {what} to it, as '{of[0]}'"
        why.setdefault(reason, []).append(_counted(key, arrays))
    said = [
        f"{', '.join(keys)} {'are' if len(keys) > 1 else 'is'} not read, because {reason}"
        for reason, keys in why.items()
    ]
    return found, [Note(f"of {source}, {'; '.join(said)}")] if said else []


def _counted(key: str, arrays: Mapping[str, np.ndarray]) -> str:
    """'key', and of images how many there are."""
    if not _partners(key.lower())["labels"]:
        return f"'{key}'"
    try:
        return f"'{key}' ({len(arrays[key])})"
    except (TypeError, UserError):  # a single number, or a damaged file that nobody needs
        return f"'{key}'"


def _partners(key: str) -> dict[str, list[str]]:
    """What the "labels" of images of this name may be called, or the "images" of such labels."""
    divided = (*_DIVIDED, *_DIVIDED_MASKS)
    pairs = [(x.format(s), y.format(s)) for s in SPELLINGS for x, y in divided]
    pairs += (*_WHOLE, *_MASKS)
    return {
        "labels": [y for x, y in pairs if x == key],
        "images": [x for x, y in pairs if y == key],
    }


def _named(
    arrays: Mapping[str, np.ndarray], source: str, masks: bool
) -> dict[str, tuple[str, str]]:
    """The keys (images, labels) of each part that the file names; 'train' is always among them."""
    keys = {key.lower(): key for key in arrays}
    divided, found = (*_DIVIDED_MASKS * masks, *_DIVIDED), {}
    for part, spellings in PART_NAMES.items():
        for x, y in [(x.format(s), y.format(s)) for s in spellings for x, y in divided]:
            if x in keys and y in keys and part not in found:
                found[part] = (keys[x], keys[y])
    if "train" in found:
        return found
    for x, y in (*_MASKS * masks, *_WHOLE):
        if x in keys and y in keys:
            return {"train": (keys[x], keys[y])}
    labels = "'masks' (or 'labels')" if masks else "'labels'"
    raise UserError(
        f"{source} holds the keys {sorted(arrays)}: 'images' and {labels} are needed, or 'x_train' "
        "and 'y_train' with, if there are any, 'x_val', 'y_val', 'x_test' and 'y_test'."
    )


def is_key(name: str) -> bool:
    """Whether `name` is that of an array of images or labels, in one of the spellings."""
    pairs = (*_DIVIDED, *_DIVIDED_MASKS)
    divided = (key.format(s) for s in SPELLINGS for pair in pairs for key in pair)
    return name.lower() in {*divided, *(key for pair in (*_WHOLE, *_MASKS) for key in pair)}
