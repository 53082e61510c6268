"""Masks, of which each pixel is a class: of arrays, and of a folder of image files.

`ROOT/images/..` and `ROOT/masks/..` hold files of equal names but for the suffix, at any depth, or
the same under `ROOT/train`, `ROOT/val` and `ROOT/test`. A mask has one channel, whose numbers are
classes from 0 (of a palette, its indices, as in PASCAL VOC); 255 counts for nothing.
`ROOT/classes.txt`, which may be there, has a name on each line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fnas_jax.core.types import IGNORE, UserError
from fnas_jax.tasks.readers import decode
from fnas_jax.tasks.readers.decode import Files, Header
from fnas_jax.tasks.readers.examples import (
    PART_NAMES,
    Example,
    Part,
    Source,
    Tally,
    collect,
    reason,
    since,
    source_of,
)
from fnas_jax.tasks.readers.folder import Found, header_of, left_out, linked, told
from fnas_jax.tasks.readers.tree import walk

IMAGES, MASKS, NAMES = "images", "masks", "classes.txt"
_ONE_CHANNEL = {"1", "L", "P"}  # modes of Pillow whose numbers are classes


class Pair(NamedTuple):
    """An image and its mask."""

    image: Path
    header: Header
    mask: Path


def read(columns: Sequence[np.ndarray], source: str) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """(uint8 masks [n, H, W] of each part, names) of whole numbers [n, H, W] or [n, H, W, 1].

    Names are numbers, up to the largest class. Raises UserError.
    """
    found = []
    for masks in columns:
        if masks.ndim == 4 and masks.shape[-1] == 1:
            masks = masks[..., 0]
        if masks.ndim != 3 or masks.dtype.kind not in "biu":
            raise UserError(
                f"The labels of {source} have shape {list(masks.shape)} and dtype {masks.dtype}:"
                " task.objective=segmentation needs the class of each pixel, as whole numbers of"
                " shape [n, H, W]."
            )
        if masks.size and not 0 <= masks.min() <= masks.max() <= IGNORE:
            raise UserError(
                f"The masks of {source} reach from {masks.min()} to {masks.max()}: classes are 0 to"
                f" {IGNORE - 1}, and {IGNORE} is for pixels that count for nothing."
            )
        found.append(masks.astype(np.uint8))
    largest = max((int(m[m != IGNORE].max(initial=0)) for m in found), default=0)
    return found, tuple(map(str, range(largest + 1)))


def read_folder(root: Path, image_size: int, alpha: str = Files().alpha) -> Source:
    """Reads every image that has a mask; files without the other are left out, and counted.

    Images as `readers.folder` reads them. Raises UserError for no such folder, no pairs, a mask of
    several channels or another size than its image's, and as `collect` does.
    """
    if not os.path.isdir(root):
        raise UserError(f"There is no folder {root.absolute()}.")
    left = Tally()
    places = _places(root)
    found = {part: _pairs(place, left) for part, place in places.items()}
    everything = [pair for pairs in found.values() for pair in pairs]
    if not found["train"]:
        raise UserError(
            f"{root.absolute()} holds no image with a mask: {IMAGES}/NAME.jpg and {MASKS}/NAME.png"
            f" are needed, or both under train, val and test{since(left)}."
        )
    mode, files = decode.files_of((pair.header for pair in everything), alpha)
    parts: dict[str, Part] = {}
    for part, pairs in found.items():
        examples = _examples(pairs, mode, files, root, left)
        parts[part] = collect(examples, image_size, str(places[part]), left, len(pairs))
    headers = [Found(pair.image, "", pair.header) for pair in everything]
    both = (*headers, *(Found(pair.mask, "", pair.header) for pair in everything))
    notes = (*left_out(left), *linked(root, both), *told(headers, mode, files))
    names = _names(root, [part.labels for part in parts.values()])
    return source_of(parts, names, notes, files.bits, "segmentation")


def _places(root: Path) -> dict[str, Path]:
    """The folder of each part that holds images and masks; 'train' is always among them."""
    found = {}
    for part, spellings in PART_NAMES.items():
        present = [root / name for name in spellings if (root / name / IMAGES).is_dir()]
        if present:
            found[part] = present[0]
    return found if "train" in found else {"train": root}


def _pairs(place: Path, left: Tally) -> list[Pair]:
    """Images of the folder that have a mask, in order."""
    stems: list[dict[Path, Path]] = []
    for kind in (IMAGES, MASKS):
        folder = place / kind
        files = walk(folder, left) if folder.is_dir() else ()
        stems.append({path.relative_to(folder).with_suffix(""): path for path in files})
    images, masks = stems
    found = []
    for stem, path in images.items():
        header = header_of(path, left)
        if header is not None and stem in masks:
            found.append(Pair(path, header, masks[stem]))
        elif header is not None:
            left.add("image without mask", path)
    for stem in masks.keys() - images.keys():
        left.add("mask without image", masks[stem])
    return found


def _examples(
    pairs: list[Pair], mode: str, files: Files, root: Path, left: Tally
) -> Iterator[Example]:
    """The examples; those that turn out to be damaged are counted in `left`."""
    for image, _, mask in pairs:
        try:
            with image.open("rb") as file:
                pixels = decode.pixels_of(file, mode, files)
            classes = _mask(mask)
        except decode.UNREADABLE as error:
            left.add("damaged image or mask", image, reason(error))
            continue
        yield Example(str(image.relative_to(root)), pixels, classes)


def _mask(path: Path) -> np.ndarray:
    """[H, W] uint8. Raises UserError for another kind of image, and what Pillow raises."""
    with decode.opened(path) as image:
        if image.mode not in _ONE_CHANNEL:
            raise UserError(
                f"The mask {path} has pixels of the kind {image.mode}: one channel of 8 bits (or a"
                " palette), whose numbers are classes, is needed."
            )
        return np.asarray(image).astype(np.uint8)


def _names(root: Path, masks: list[np.ndarray]) -> tuple[str, ...]:
    """Those of `classes.txt`, or numbers. Raises UserError where there are too few."""
    _, numbers = read(masks, str(root))
    file = root / NAMES
    if not file.is_file():
        return numbers
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    given = tuple(line.strip() for line in lines if line.strip())
    if len(given) < len(numbers):
        raise UserError(
            f"{file} has {len(given)} names, and the masks have classes up to {len(numbers) - 1}."
        )
    return given
