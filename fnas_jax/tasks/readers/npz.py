"""Reader of a user's `.npz` file, or of the same arrays in memory.

Keys: `images` and `labels`, or `x_train`, `y_train` and, if the file is already divided, `x_val`,
`y_val`, `x_test`, `y_test`. Also understood: `train_images`, `train_labels` and so on (as MedMNIST
names them), `x`/`y`, `X`/`Y`, `data`/`target`, `image`/`label`. Optional: `class_names` [C] text.

Images: [n, H, W] or [n, H, W, C], uint8, or any other number (kept as float32). Labels: for
classification [n] or [n, 1], whole numbers from 0, or text; for multilabel 0 or 1 [n, L]; for
regression any numbers, [n] or [n, R]; `class_names` are then the names of labels or values.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fnas_jax.core import mapped
from fnas_jax.core.mapped import Images, Mapped
from fnas_jax.core.types import UserError
from fnas_jax.tasks.readers import targets
from fnas_jax.tasks.readers.examples import (
    PART_NAMES,
    Example,
    Part,
    Source,
    collect,
    gather,
    reason,
)
from fnas_jax.tasks.readers.stored import mapped_members

_MAX_CHANNELS = 16  # more than that in the last axis is a mistake in the order of the axes
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


def read_npz(path: Path, image_size: int, objective: str = "classification") -> Source:
    """Reads one file; see the module's docstring for what it may hold.

    Raises:
      UserError: not there, not an npz file, unknown keys, or arrays that cannot be images and
        their labels.
    """
    return read_arrays(_open(path), str(path), image_size, objective)


def read_arrays(
    arrays: Mapping[str, Any],
    source: str,
    image_size: int,
    objective: str = "classification",
) -> Source:
    """The image set of `arrays`, which errors call `source`. Raises UserError as `read_npz`.

    Its labels are for `objective`.
    """
    found = _find(arrays, source)
    columns = [y for _, y in found.values()]
    labels, names = targets.read(objective, columns, source)
    if "class_names" in arrays:
        exact = objective != "classification"  # a label without a name would be lost
        given = _given_names(arrays["class_names"], len(names), source, exact)
        if columns[0].dtype.kind in "US":  # numbered alphabetically so far
            labels = _renumber(labels, names, given, source)
        names = given
    parts: dict[str, Part] = {}
    for (part, (stored, _)), numbers in zip(found.items(), labels, strict=True):
        images = _as_images(stored, f"'{part}' images of {source}" if len(found) > 1 else source)
        if len(images) != len(numbers):
            raise UserError(
                f"{source} holds {len(images)} images but {len(numbers)} labels ({part})."
            )
        rows = (
            Example(f"row {i}", image, label if label.ndim else int(label))
            for i, (image, label) in enumerate(zip(images, numbers, strict=True))
        )
        if isinstance(images, Mapped) and not image_size:
            parts[part] = gather(images, numbers, source)
        else:
            parts[part] = collect(rows, image_size, source)
    return Source(parts["train"], parts.get("val"), parts.get("test"), names, objective=objective)


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
    """12 hexadecimal digits of the names, shapes, types and contents of `arrays`."""
    digest = hashlib.blake2b(digest_size=6)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.view(np.uint8).data if array.size else b"")
    return digest.hexdigest()


def _open(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size >= mapped.MAPPED_FROM:
            return mapped_members(path)
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise UserError(f"{path} is a single array, not an .npz file of images and labels.")
        with file:
            return {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise UserError(f"There is no file {path}.") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} cannot be read as an .npz file: {reason(error)}") from None


def is_key(name: str) -> bool:
    """Whether `name` is that of an array of images or labels, in one of the spellings."""
    divided = (key.format(s) for s in SPELLINGS for pair in _DIVIDED for key in pair)
    return name.lower() in {*divided, *(key for pair in _WHOLE for key in pair)}


def _find(
    arrays: Mapping[str, np.ndarray], source: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The (images, labels) of each part that the file names; 'train' is always among them."""
    keys = {key.lower(): key for key in arrays}
    found = {}
    for part, spellings in PART_NAMES.items():
        for x, y in [(x.format(s), y.format(s)) for s in spellings for x, y in _DIVIDED]:
            if x in keys and y in keys and part not in found:
                found[part] = (arrays[keys[x]], arrays[keys[y]])
    if "train" in found:
        return found
    for x, y in _WHOLE:
        if x in keys and y in keys:
            return {"train": (arrays[keys[x]], arrays[keys[y]])}
    raise UserError(
        f"{source} holds the keys {sorted(arrays)}: 'images' and 'labels' are needed, or 'x_train' "
        "and 'y_train' with, if there are any, 'x_val', 'y_val', 'x_test' and 'y_test'."
    )


def _as_images(images: Images, what: str) -> Images:
    """[n, H, W] or [n, H, W, C] of any number -> [n, H, W, C] uint8 or float32."""
    shape = list(images.shape)
    if images.ndim == 3:
        images = _with_channel(images)
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise UserError(f"{what}: shape {shape} is neither [n, H, W] nor [n, H, W, C].")
    if images.shape[-1] > _MAX_CHANNELS:
        order = "; the channels come last" if images.shape[1] <= 4 else ""
        raise UserError(
            f"{what}: shape {shape} means {images.shape[-1]} channels, at most {_MAX_CHANNELS} are "
            f"allowed{order}."
        )
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind not in "biuf":
        raise UserError(f"{what}: dtype {images.dtype} is no number.")
    if isinstance(images, Mapped):
        return images.viewed(images.shape[1:], np.float32)
    images = images.astype(np.float32)
    if not np.isfinite(images).all():
        row = int(np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))[0])
        raise UserError(f"{what}: row {row} holds values that are not finite.")
    return images


def _with_channel(images: Images) -> Images:
    """[n, H, W] -> [n, H, W, 1]."""
    if isinstance(images, Mapped):
        return images.viewed((*images.shape[1:], 1), images.dtype)
    return images[..., None]


def _renumber(
    labels: list[np.ndarray], names: tuple[str, ...], given: tuple[str, ...], source: str
) -> list[np.ndarray]:
    """`labels`, numbers of `names`, as those of `given`. Raises UserError where one is missing."""
    missing = sorted(set(names) - set(given))
    if missing:
        raise UserError(f"Label {missing[0]!r} of {source} is not one of 'class_names'.")
    places = np.array([given.index(name) for name in names], np.int32)
    return [places[column] for column in labels]


def _given_names(
    given: np.ndarray, needed: int, source: str, exact: bool = False
) -> tuple[str, ...]:
    wrong = given.ndim != 1 or len(given) < needed or (exact and len(given) > needed)
    if wrong or given.dtype.kind not in "US":
        number = f"{needed} texts, one per column of its labels"
        number = number if exact else f"at least {needed} texts, one per class"
        raise UserError(
            f"'class_names' of {source} must be {number}; it has"
            f" shape {list(given.shape)} and dtype {given.dtype}."
        )
    return tuple(str(name) for name in given.astype(str))
