"""Reader of `.npy` files: a folder of them, or one that names the others.

A folder of `x_train.npy`, `y_train.npy`, .. is read as an `.npz` file with these keys would be
(`readers.npz`). `FOLDER/x.npy` is read with `FOLDER/y.npy`, and `a_images.npy` with `a_labels.npy`.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from fnas_jax.core.mapped import Images
from fnas_jax.core.types import UserError
from fnas_jax.tasks.readers import stored
from fnas_jax.tasks.readers.examples import Source
from fnas_jax.tasks.readers.keys import is_key
from fnas_jax.tasks.readers.npz import read_arrays

# What a file of images is called, and that of its labels.
_PARTNERS = (("images", "labels"), ("image", "label"), ("x", "y"), ("data", "labels"))


class Arrays(Mapping[str, Images]):
    """The arrays of files, each of which is opened when it is asked for."""

    def __init__(self, files: Mapping[str, Path]):
        self.files = dict(files)
        self._read = functools.cache(stored.read_array)

    def __getitem__(self, key: str) -> Images:
        return self._read(self.files[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


def is_set(folder: Path) -> bool:
    """Whether a folder holds arrays of images or labels by their names."""
    return any(is_key(key) for key in _files(folder))


def read_set(
    path: Path, image_size: int, objective: str = "classification", labels: Path | None = None
) -> Source:
    """Reads a folder of `.npy` files, or the set of which one file of images is given.

    `labels`: the file of the labels, where its name does not say so. They are for `objective`.

    Raises:
      UserError: absent or damaged files, images without labels, or arrays that are neither.
    """
    if os.path.isdir(path):
        return read_arrays(Arrays(_files(path)), str(path), image_size, objective)
    if not os.path.isfile(path):
        raise UserError(f"There is no file {path.absolute()}.")
    if labels is not None:
        files = {"images": path, "labels": labels}
    elif is_key(path.stem):
        files = _files(path.parent)
    else:
        files = {"images": path, "labels": _partner(path)}
    return read_arrays(Arrays(files), str(path), image_size, objective)


def _files(folder: Path) -> dict[str, Path]:
    """The files that have a name of an image set's arrays, by it."""
    if not os.path.isdir(folder):
        return {}
    return {
        path.stem: path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() == ".npy" and path.is_file() and _is_known(path.stem)
    }


def _is_known(stem: str) -> bool:
    return is_key(stem) or stem.lower() == "class_names"


def _partner(path: Path) -> Path:
    """The file of the labels of a file of images."""
    tried = []
    for images, labels in _PARTNERS:
        stem, count = re.subn(rf"(?<![a-zA-Z]){images}(?![a-zA-Z])", labels, path.stem)
        if count:
            tried.append(path.with_name(f"{stem}{path.suffix}"))
    found = [partner for partner in tried if os.path.isfile(partner)]
    if not found:
        names = " or ".join(partner.name for partner in tried) or "y.npy beside x.npy"
        raise UserError(
            f"No labels of {path} are found: they are looked for in {names} in its folder;"
            " task.labels=FILE.npy names another file."
        )
    return found[0]
