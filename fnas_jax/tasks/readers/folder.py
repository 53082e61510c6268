"""Reader of a folder of PNG and JPEG files, one sub-folder per class.

`ROOT/CLASS/*.png`, or the same under `ROOT/train`, `ROOT/val` and `ROOT/test`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fnas_jax.core.types import UserError
from fnas_jax.tasks.readers.examples import PART_NAMES, Example, Source, collect, reason

SUFFIXES = {".png", ".jpg", ".jpeg"}
_GREY = {"1", "L", "LA", "La"}
# Bad files raise any of these: SyntaxError comes from Pillow's PNG plug-in.
_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def read_folder(root: Path, image_size: int) -> Source:
    """Reads every image: [H, W, 1] where all are grey, else [H, W, 3]; transparency is dropped.

    Classes are numbered in alphabetical order of their folders' names.

    Raises:
      UserError: no such folder, no classes, an unreadable image, images of different size with
        `image_size` 0, or a class in val/ or test/ that train/ lacks.
    """
    if not root.is_dir():
        raise UserError(f"There is no folder {root}.")
    folders = _part_folders(root)
    names = tuple(_classes(folders["train"]))
    if not names:
        raise UserError(
            f"{folders['train']} holds no sub-folder with images (.png, .jpg, .jpeg): one "
            "sub-folder per class is needed."
        )
    files = {part: _files(folder, names) for part, folder in folders.items()}
    listed = [path for part in files.values() for path, _ in part]
    mode = _common_mode(listed, bool(image_size), root)
    parts = {
        part: collect(_read(rows, mode, root), image_size, str(folders[part]))
        for part, rows in files.items()
    }
    return Source(parts["train"], parts.get("val"), parts.get("test"), names)


def _part_folders(root: Path) -> dict[str, Path]:
    if not (root / "train").is_dir():
        return {"train": root}
    folders = {}
    for part, spellings in PART_NAMES.items():
        present = [root / s for s in spellings if (root / s).is_dir()]
        if present:
            folders[part] = present[0]
    # A class that happens to be called "train" is told apart by holding images itself.
    return {"train": root} if _images(root / "train") else folders


def _classes(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and _images(p))


def _images(folder: Path) -> list[Path]:
    return sorted(
        p
        for p in folder.iterdir()
        if p.suffix.lower() in SUFFIXES and p.is_file() and not p.name.startswith(".")
    )


def _files(folder: Path, names: tuple[str, ...]) -> list[tuple[Path, int]]:
    unknown = sorted(set(_classes(folder)) - set(names))
    if unknown:
        raise UserError(
            f"{folder / unknown[0]} is a class that the training images lack; known are: "
            f"{', '.join(names)}."
        )
    numbered = [(folder / name, i) for i, name in enumerate(names) if (folder / name).is_dir()]
    return [(path, label) for sub, label in numbered for path in _images(sub)]


def _common_mode(paths: list[Path], any_size: bool, root: Path) -> str:
    """'L' when every image is grey, else 'RGB'; reads the headers only."""
    modes = set()
    first: tuple[Path, tuple[int, int]] | None = None
    for path in paths:
        try:
            with Image.open(path) as image:
                mode, size = image.mode, image.size
        except _UNREADABLE as error:
            raise UserError(f"{path} cannot be read as an image: {reason(error)}") from None
        if mode.startswith(("I", "F")):
            raise UserError(f"{path} has more than 8 bits per channel: convert it to 8 bits.")
        modes.add(mode)
        first = first or (path, size)
        # Seen now rather than after an hour of decoding. EXIF may still turn an image.
        if not any_size and sorted(size) != sorted(first[1]):
            raise UserError(
                f"The images of {root} differ in size ({first[0]} is {first[1][0]}x{first[1][1]}, "
                f"{path} is {size[0]}x{size[1]}): set task.image_size to resize them to one square."
            )
    return "L" if modes <= _GREY else "RGB"


def _read(rows: list[tuple[Path, int]], mode: str, root: Path) -> Iterator[Example]:
    for path, label in rows:
        yield Example(str(path.relative_to(root)), read_image(path, mode), label)


def read_image(path: Path, mode: str) -> np.ndarray:
    """[H, W, 1] in grey (`mode` "L") or [H, W, 3] ("RGB"), uint8, upright. Raises UserError."""
    try:
        with Image.open(path) as image:
            pixels = np.asarray(ImageOps.exif_transpose(image).convert(mode))
    except _UNREADABLE as error:
        raise UserError(f"{path} cannot be read as an image: {reason(error)}") from None
    return pixels[..., None] if pixels.ndim == 2 else pixels
