"""Which reader a path is for: image sets in files of known formats, and folders of such."""

from __future__ import annotations

import os
from pathlib import Path

from fnas_jax.core.types import UserError
from fnas_jax.tasks.readers import arrow, idx, listed, npy
from fnas_jax.tasks.readers.examples import Source


def read(
    path: Path, image_size: int, alpha: str, objective: str, labels: str = ""
) -> Source | None:
    """The image set of `path`; None where it is of none of these formats.

    `labels` is a file of the labels, ".csv", ".tsv" or ".npy", given by its path, or by its place
    in `path` or beside it; "" means none but what `path` itself has.

    Raises:
      UserError: a file or folder of one of them that cannot be read.
    """
    # Of names that are too long, Path.is_file raises an error before Python 3.13; os.path tells.
    suffix = path.suffix.lower()
    if labels:
        return _labelled(path, image_size, alpha, objective, labels)
    if suffix == ".npy" or npy.is_set(path):
        return npy.read_set(path, image_size, objective)
    if suffix in listed.SUFFIXES:
        return listed.read_listed(path, image_size, alpha, objective)
    if (suffix in arrow.SUFFIXES and os.path.isfile(path)) or arrow.is_set(path):
        return arrow.read_arrow(path, image_size, alpha, objective)
    if idx.is_idx(path):
        return idx.read_idx(path, image_size)
    inside = listed.in_folder(path)
    if inside is None:
        return None
    return listed.read_listed(inside, image_size, alpha, objective)


def _labelled(path: Path, image_size: int, alpha: str, objective: str, labels: str) -> Source:
    """The image set of `path` by a file of labels. Raises UserError for any other file."""
    folder = path if os.path.isdir(path) else path.parent
    file = next(
        (p for p in (Path(labels).expanduser(), folder / labels) if os.path.isfile(p)), Path(labels)
    )
    if not os.path.isfile(file):
        raise UserError(f"task.labels is {labels!r}: there is no such file, nor {folder / labels}.")
    suffix = file.suffix.lower()
    if os.path.isdir(path) and suffix in listed.SUFFIXES:
        return listed.read_listed(file, image_size, alpha, objective, path)
    if path.suffix.lower() == ".npy" and suffix == ".npy":
        return npy.read_set(path, image_size, objective, file)
    raise UserError(
        f"task.labels is {labels!r} for {path}: a folder of images takes a .csv or .tsv file, and"
        " an .npy file of images an .npy file."
    )
