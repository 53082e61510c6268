"""Masks as files: PNG with a palette, whose numbers are classes, as `readers.masks` takes them."""

from __future__ import annotations

import pathlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import Image

from fnas_jax.core import disk
from fnas_jax.core.types import UserError


def places(images: Sequence[pathlib.Path], root: pathlib.Path) -> list[pathlib.Path]:
    """Where in a folder the mask of each image is, by where the image is below `root`.

    `a/b.jpg` has `a/b.png`, which is how images and masks are paired when they are read; where two
    images would share one, the masks of all keep the suffix of their image: `a/b.jpg.png`.
    """
    inside = [path.relative_to(root) for path in images]
    short = [path.with_suffix(".png") for path in inside]
    if max(Counter(short).values(), default=0) > 1:
        return [path.with_name(f"{path.name}.png") for path in inside]
    return short


def claim(folder: pathlib.Path, images: pathlib.Path) -> None:
    """Makes a new folder for masks of what is in `images`.

    Raises UserError where `folder` holds anything, so that no mask of before, maybe drawn by hand,
    is overwritten; where it is inside `images`, whose masks would be images next time; or where it
    cannot be written.
    """
    if images.is_dir() and folder.resolve().is_relative_to(images.resolve()):
        raise UserError(
            f"--out is {str(folder)!r}, inside the images, among which masks would be images the"
            " next time; give a folder elsewhere"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = any(folder.iterdir())
    except OSError as error:
        raise disk.unusable(f"--out is {str(folder)!r}, which cannot be written", error) from None
    if taken:
        raise UserError(
            f"--out is {str(folder)!r}, which is not empty; masks go to a new folder, so that none"
            " is overwritten"
        )


def write(mask: np.ndarray, path: pathlib.Path) -> None:
    """Writes uint8 `mask` [H, W] as a PNG. Raises UserError where that is not possible."""
    image = Image.fromarray(mask, "L")
    image.putpalette(colours().tobytes())  # its mode becomes P; numbers stay as they are
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with disk.replacing(path, "wb") as file:
            image.save(file, format="PNG")
    except OSError as error:
        raise disk.unusable(f"the mask {str(path)!r} cannot be written", error) from None


def colours() -> np.ndarray:
    """[256, 3] uint8: red, green and blue of each class, those of PASCAL VOC's annotations.

    Bits 0, 3, 6, .. of the class are the highest bits of red, downwards; 1, 4, 7, .. of green, and
    2, 5 of blue (`VOClabelcolormap` of the VOC2012 development kit). Class 0 is black.
    """
    found = np.zeros((256, 3), np.uint8)
    numbers = np.arange(256)
    for bit in range(8):
        channel, height = bit % 3, 7 - bit // 3
        found[:, channel] |= (((numbers >> bit) & 1) << height).astype(np.uint8)
    return found
