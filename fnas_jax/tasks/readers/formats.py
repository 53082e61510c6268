"""Which reader a path is for: image sets in files of known formats, and folders of such."""

from __future__ import annotations

from pathlib import Path

from fnas_jax.tasks.readers import idx, npy
from fnas_jax.tasks.readers.examples import Source


def read(path: Path, image_size: int) -> Source | None:
    """The image set of `path`; None where it is of none of these formats.

    Raises:
      UserError: a file or folder of one of them that cannot be read.
    """
    if path.suffix.lower() == ".npy" or npy.is_set(path):
        return npy.read_set(path, image_size)
    if idx.is_idx(path):
        return idx.read_idx(path, image_size)
    return None
