"""What every reader returns, and the one function that gathers images into arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from fnas_jax.core import stages
from fnas_jax.core.mapped import Images, Mapped, chunks
from fnas_jax.core.types import UserError

# The names that folders and arrays of a set already divided may have.
PART_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}

_MANY = 10  # different labels, of which each should have several images

_BILINEAR = Image.Resampling.BILINEAR


class Part(NamedTuple):
    """Labelled images, in no particular order."""

    images: Images  # [n, H, W, C] uint8 or float32
    # Targets of the objective: classes [n] int32, labels [n, L] int32 0 or 1, values [n, R]
    # float64 (of a `Dataset` float32), or masks [n, H, W] uint8
    labels: np.ndarray
    ids: list[bytes]  # n digests of the native pixels: an example's name, wherever it was stored
    sizes: tuple[tuple[int, int], ...] = ()  # different native heights and widths; (): unknown


class Note(NamedTuple):
    """A sentence about a set, for its user."""

    text: str
    loud: bool = True  # a warning, where False is for what was only to be expected


class Source(NamedTuple):
    """An image set as its maker divided it; `data.load` splits what is missing."""

    train: Part
    val: Part | None
    test: Part | None
    class_names: tuple[str, ...]  # or those of labels or values
    notes: tuple[Note, ...] = ()  # what was left out, or read otherwise than one might think
    bits: int = 8  # of the image files that it is of, as `decode.Files`
    objective: str = "classification"  # that its labels are for


def source_of(
    parts: Mapping[str, Part],
    class_names: tuple[str, ...],
    notes: Iterable[Note],
    bits: int = 8,
    objective: str = "classification",
) -> Source:
    """A `Source` of parts by "train", which is among them, "val" and "test"."""
    held = parts.get("val"), parts.get("test")
    return Source(parts["train"], *held, class_names, tuple(notes), bits, objective)


@dataclass
class Tally:
    """What a reader leaves out: how many of each kind, the first of them, and why."""

    kinds: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, kind: str, path: Path, why: str = "") -> None:
        """Counts one more."""
        count, first = self.kinds.get(kind, (0, f"{path}{': ' * bool(why)}{why}"))
        self.kinds[kind] = (count + 1, first)

    def count(self, kind: str) -> int:
        """How many of one kind."""
        return self.kinds.get(kind, (0, ""))[0]

    def divided(self, kind: str) -> tuple[str, str]:
        """(text of one kind, text of all others), "" where there is none."""
        texts = {k: f"{count} x {k} ({first})" for k, (count, first) in sorted(self.kinds.items())}
        return texts.pop(kind, ""), ", ".join(texts.values())


def since(left: Tally) -> str:
    """To be put behind what a set lacks: what was left out of it."""
    texts = [text for text in left.divided("hidden")[::-1] if text]
    return f" (left out: {', '.join(texts)})" if texts else ""


class Example(NamedTuple):
    """One image on its way from a file to a `Part`."""

    where: str  # how an error message should name it, e.g. a path or "row 17"
    image: np.ndarray  # [H, W, C] uint8 or float32
    label: int | np.ndarray  # a class number, or other targets of an image, as numpy has them


RESIZING = "bilinear, antialiased where it shrinks, the aspect ratio not kept (Pillow)"


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """[H, W, C] -> [height, width, C] of the same dtype, uint8 or float32: as `RESIZING` says.

    uint8 is rounded to the nearest value.
    """
    if image.shape[:2] == (height, width):
        return image
    channels = [
        Image.fromarray(np.ascontiguousarray(image[..., c])).resize((width, height), _BILINEAR)
        for c in range(image.shape[-1])
    ]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)


def collect(
    examples: Iterable[Example],
    image_size: int,
    source: str,
    left: Tally | None = None,
    total: int = 0,
) -> Part:
    """Gathers examples into a `Part`, each resized as it comes so that originals can be large.

    Args:
      examples: images of one dtype and number of channels.
      image_size: side in pixels of the square that every image becomes; 0 keeps the native size,
        which must then be the same for all.
      source: name of the set for error messages.
      left: where `examples` counts what it leaves out, which is then said of a set without images.
      total: how many there are, at most; 0: unknown. It is told where reading them takes long.

    Raises:
      UserError: no example at all, or shapes that differ.
    """
    images: list[np.ndarray] = []
    labels: list[int | np.ndarray] = []
    ids: list[bytes] = []
    sizes: set[tuple[int, int]] = set()
    first = ""
    for where, image, label in examples:
        sizes.add(image.shape[:2])
        ids.append(hashlib.blake2b(image.tobytes(), digest_size=16).digest())
        if isinstance(label, np.ndarray) and label.ndim == 2:
            label = _fitted(label, image, image_size, f"{where} of {source}")
        image = resize(image, image_size, image_size) if image_size else image
        if images and image.shape != images[0].shape:
            raise UserError(
                f"The images of {source} differ in size ({first} is {_size(images[0])}, {where} is "
                f"{_size(image)}): set task.image_size to resize them all to one square."
            )
        first = first or where
        images.append(image)
        labels.append(label)
        stages.counted(len(images), total, f"images of {source}")
    if not images:
        raise UserError(f"{source} holds no images{since(left) if left else ''}.")
    several = isinstance(labels[0], np.ndarray)
    targets = np.stack(labels) if several else np.asarray(labels, np.int32)
    return Part(np.stack(images), targets, ids, tuple(sorted(sizes)))


def _fitted(mask: np.ndarray, image: np.ndarray, image_size: int, what: str) -> np.ndarray:
    """The mask [H, W] of an image in the size that is asked for. Raises UserError for another's."""
    if mask.shape != image.shape[:2]:
        sizes = "x".join(map(str, mask.shape)), "x".join(map(str, image.shape[:2]))
        raise UserError(f"The mask of {what} has {sizes[0]} pixels, and its image {sizes[1]}.")
    return nearest(mask, image_size, image_size) if image_size else mask


def nearest(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """[H, W] -> [height, width], the class of the nearest pixel: there is none between two."""
    rows, columns = (
        ((np.arange(wanted) + 0.5) * size / wanted).astype(int)
        for wanted, size in zip((height, width), mask.shape, strict=True)
    )
    return mask[rows[:, None], columns[None, :]]


def gather(images: Mapped, labels: np.ndarray, source: str) -> Part:
    """A `Part` of images that stay in their file. Raises UserError for none, or not finite ones."""
    if not len(images):
        raise UserError(f"{source} holds no images.")
    ids: list[bytes] = []
    for chunk in chunks(images):
        if chunk.dtype != np.uint8 and not np.isfinite(chunk).all():
            row = len(ids) + int(np.flatnonzero(~np.isfinite(chunk).all(axis=(1, 2, 3)))[0])
            stored = images.viewed(images.shape[1:], np.float64)[row]
            raise UserError(f"{source}: row {row} holds {unfit(stored)}.")
        ids += [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in chunk]
        stages.counted(len(ids), len(images), f"images of {source}")
    size = (images.shape[1], images.shape[2])
    if labels.ndim == 3 and len(labels):
        _fitted(labels[0], images[0], 0, source)
    targets = labels if labels.ndim > 1 else labels.astype(np.int32)
    return Part(images, targets, ids, (size,))


def unfit(numbers: np.ndarray) -> str:
    """Why numbers [..], as they are stored, are not all finite as float32."""
    if not np.isfinite(numbers).all():
        return "values that are not finite"
    return f"values too large for float32 ({numbers.flat[np.abs(numbers).argmax()]:g})"


def as_float32(numbers: np.ndarray) -> np.ndarray:
    """A copy as float32, infinite where that is not large enough: `unfit` says so in words."""
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)


def name_classes(
    raw: Sequence[np.ndarray], source: str
) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Turns the label columns of all parts of a set into int32 in 0..C-1 and C class names.

    Whole numbers (also stored as floats or booleans, or as [n, 1]) from 0 to C-1 are kept. Others
    are numbered in their order and named by what they were, as texts are in alphabetical order.

    Raises:
      UserError: labels of another kind, one-hot or fractional, or more different ones than classes
        can be.
    """
    columns = []
    for labels in raw:
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1:
            raise UserError(
                f"The labels of {source} have shape {list(labels.shape)}: one class number or name "
                "per image is needed, as an array of shape [n]."
            )
        columns.append(labels)
    joined = np.concatenate([texts(c, source) if c.dtype.kind == "S" else c for c in columns])
    whole = joined if joined.dtype.kind == "U" else _whole_numbers(joined, source)
    values, numbers = np.unique(whole, return_inverse=True)
    if len(values) >= _MANY and 2 * len(values) > len(whole):
        some = ", ".join(map(str, values[:3].tolist()))
        raise UserError(
            f"The labels of {source} have {len(values)} different values ({some}, ..) for"
            f" {len(whole)} images: these are ids or measurements, no classes, of which each needs"
            " several images."
        )
    class_names = tuple(map(str, values.tolist()))
    ends = np.cumsum([len(column) for column in columns])[:-1]
    return np.split(numbers.astype(np.int32), ends), class_names


def texts(labels: np.ndarray, source: str) -> np.ndarray:
    """Bytes as the texts that they are in UTF-8. Raises UserError."""
    try:
        return np.char.decode(labels, "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"The labels of {source} are bytes, and no UTF-8: {error}.") from None


def _whole_numbers(labels: np.ndarray, source: str) -> np.ndarray:
    if labels.dtype.kind not in "biuf":
        raise UserError(
            f"The labels of {source} have dtype {labels.dtype}: class numbers or names are needed."
        )
    bad = ~np.isfinite(labels) | (labels != np.floor(labels)) | (np.abs(labels) >= 2.0**63)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise UserError(
            f"Label {labels[row]} of {source} (row {row}) is no class number: "
            "whole numbers are needed."
        )
    return labels.astype(np.int64)


def reason(error: BaseException) -> str:
    """The first line of a foreign error, to be quoted in a sentence of ours."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _size(image: np.ndarray) -> str:
    return "x".join(map(str, image.shape))
