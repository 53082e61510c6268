"""Reader of a user's `.npz` file, or of the same arrays in memory.

Keys: `images` and `labels`, or `x_train`, `y_train` and, if the file is already divided, `x_val`,
`y_val`, `x_test`, `y_test`. Also understood: `train_images`, `train_labels` and so on (as MedMNIST
names them), `x`/`y`, `X`/`Y`, `data`/`target`, `image`/`label`. Optional: `class_names` [C] text.

Images: [n, H, W] or [n, H, W, C], uint8, or any other number (kept as float32). Labels: for
classification [n] or [n, 1], whole numbers, or text; for multilabel 0 or 1 [n, L]; for regression
any numbers, [n] or [n, R]; `class_names` are then the names of labels or values. What is not read,
and class numbers other than 0 to C-1, is told.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fnas_jax.core import npy
from fnas_jax.core.mapped import Images, Mapped
from fnas_jax.core.types import UserError
from fnas_jax.tasks.readers import class_names, keys, stored, targets
from fnas_jax.tasks.readers.examples import (
    Example,
    Note,
    Part,
    Source,
    as_float32,
    collect,
    gather,
    reason,
    source_of,
    unfit,
)

_MAX_CHANNELS = 16  # more than that in the last axis is a mistake in the order of the axes
_OPAQUE = (1, 3)  # channels of grey images and of coloured ones
_USUAL = (*_OPAQUE, 4)  # and of coloured ones with transparency


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
    found, notes = keys.find(arrays, source, objective == "segmentation")
    columns = [arrays[y] for _, y in found.values()]
    labels, names = targets.read(objective, columns, source)
    given = arrays.get("class_names")
    more: list[Note] = []
    if objective != "classification":
        exact = objective != "segmentation"  # a class may have no pixel
        if given is not None:
            names = class_names.of_columns(given, len(names), source, exact)
    elif given is not None:
        labels, names, more = class_names.renamed(labels, names, columns, given, source)
    else:
        more = class_names.numbered(names, columns)
    called = {part: f"'{x}' of {source}" for part, (x, _) in found.items()}
    read = {part: _as_images(arrays[x], called[part]) for part, (x, _) in found.items()}
    read, mixed = _of_one_type(read)
    parts: dict[str, Part] = {}
    for (part, images), numbers in zip(read.items(), labels, strict=True):
        if len(images) != len(numbers):
            raise UserError(
                f"{source} holds {len(images)} images but {len(numbers)} labels ({part})."
            )
        rows = (
            Example(f"row {i}", image, label if label.ndim else int(label))
            for i, (image, label) in enumerate(zip(images, numbers, strict=True))
        )
        if isinstance(images, Mapped) and not image_size:
            parts[part] = gather(images, numbers, called[part])
        else:
            parts[part] = collect(rows, image_size, called[part], total=len(images))
    return source_of(parts, names, (*notes, *more, *mixed), objective=objective)


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
        with path.open("rb") as file:
            single = file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX
        if not single:
            return stored.members(path)
    except FileNotFoundError:
        raise UserError(f"There is no file {path.absolute()}.") from None
    except npy.UNREADABLE as error:
        raise UserError(f"{path} cannot be read as an .npz file: {reason(error)}") from None
    raise UserError(f"{path} is a single array, not an .npz file of images and labels.")


def _as_images(images: Images, what: str) -> Images:
    """[n, H, W] or [n, H, W, C] of any number -> [n, H, W, C] uint8 or float32."""
    shape = list(images.shape)
    if images.ndim == 3:
        images = _with_channel(images)
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise UserError(
            f"{what}: shape {shape} is neither [n, H, W] nor [n, H, W, C]{_flat(shape)}."
        )
    channels = images.shape[-1]
    if _channels_first(*images.shape[1:]):
        raise UserError(
            f"{what}: shape {shape} means images of {images.shape[1]} x {images.shape[2]} pixels"
            f" and {channels} channels; the channels come last: np.moveaxis(images, 1, -1) puts"
            " them there where they are the first axis of an image."
        )
    if channels > _MAX_CHANNELS:
        raise UserError(
            f"{what}: shape {shape} means {channels} channels, at most {_MAX_CHANNELS} are allowed."
        )
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind not in "biuf":
        raise UserError(f"{what}: dtype {images.dtype} is no number.")
    numbers = _as_float32(images)
    if isinstance(numbers, Mapped):  # looked at when it is read
        return numbers
    if not np.isfinite(numbers).all():
        row = int(np.flatnonzero(~np.isfinite(numbers).all(axis=(1, 2, 3)))[0])
        raise UserError(f"{what}: row {row} holds {unfit(images[row])}.")
    return numbers


def _with_channel(images: Images) -> Images:
    """[n, H, W] -> [n, H, W, 1]."""
    if isinstance(images, Mapped):
        return images.viewed((*images.shape[1:], 1), images.dtype)
    return images[..., None]


def _channels_first(height: int, width: int, channels: int) -> bool:
    """Whether [height, width, channels] is more likely [C, H, W] of a grey or coloured image.

    Of one that is square also where its side is a number that channels could be, as in [3, 4, 4].
    """
    square = height in _OPAQUE and width == channels and channels not in _OPAQUE
    return square or (height in _USUAL and channels not in _USUAL and height != width)


def _flat(shape: list[int]) -> str:
    """How images that are rows of pixels become images, where these are square."""
    side = math.isqrt(shape[1]) if len(shape) == 2 else 0
    if side < 2 or side * side != shape[1]:
        return ""
    return f"; images.reshape(-1, {side}, {side}) makes {side} x {side} pixels of each row"


def _of_one_type(images: dict[str, Images]) -> tuple[dict[str, Images], list[Note]]:
    """All as float32 where some are and some are not, which is told."""
    types = {part: str(array.dtype) for part, array in images.items()}
    if len(set(types.values())) == 1:
        return images, []
    listed = ", ".join(f"'{part}' {kind}" for part, kind in types.items())
    note = Note(f"the images are of several types ({listed}): all are taken as float32")
    return {part: _as_float32(array) for part, array in images.items()}, [note]


def _as_float32(images: Images) -> Images:
    if isinstance(images, Mapped):
        return images.viewed(images.shape[1:], np.float32)
    return as_float32(images)
