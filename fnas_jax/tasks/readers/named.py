"""Which reader the name of an image set is for: a name of ours, or a path."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from fnas_jax.core.nearest import nearest
from fnas_jax.core.types import UserError
from fnas_jax.tasks.readers import canvas, formats, kept, masks
from fnas_jax.tasks.readers.bundled import read_digits, read_mnist5k
from fnas_jax.tasks.readers.examples import Source
from fnas_jax.tasks.readers.folder import read_folder
from fnas_jax.tasks.readers.idx import read_fashion_mnist
from fnas_jax.tasks.readers.npz import read_npz
from fnas_jax.tasks.readers.tfds import read_tfds

NAMES = {
    "digits": read_digits,
    "mnist5k": read_mnist5k,
    "fashion_mnist": read_fashion_mnist,
    "canvas_labels": canvas.read_labels,
    "canvas_masks": canvas.read_masks,
    "canvas_position": canvas.read_position,
}
_ALLOWED = (
    f"{', '.join(NAMES)}, tfds:NAME, the path of an .npz, .npy, .parquet, .csv or IDX file, or of"
    " a folder of these or of images"
)


def read(
    name: str,
    data_dir: str,
    image_size: int,
    alpha: str,
    objective: str,
    labels: str,
    cache: str,
) -> Source:
    """The image set `name`: one of `NAMES`, "tfds:NAME", or the path of a file or folder.

    The other arguments are those of `data.load`.

    Raises:
      UserError: no such set, file or folder, or one that cannot be read.
    """
    if name in NAMES:
        return NAMES[name](image_size)
    if name.startswith("tfds:"):
        return read_tfds(name.removeprefix("tfds:"), data_dir, image_size)
    path = Path(name).expanduser()
    if path.suffix.lower() == ".npz":
        return read_npz(path, image_size, objective)
    found = formats.read(path, image_size, alpha, objective, labels) if name else None
    if found is not None:
        return found
    if name and os.path.isdir(path) and objective == "segmentation":
        return masks.read_folder(path, image_size, alpha)
    if name and os.path.isdir(path):
        options = {"reader": "folder", "image_size": image_size, "alpha": alpha}
        return kept.source(path, options, cache, lambda: read_folder(path, image_size, alpha))
    if os.path.isfile(path):
        raise UserError(f"{path} is no file of a format that is read; allowed are {_ALLOWED}.")
    if name and (len(path.parts) > 1 or path.suffix or path.is_absolute()):
        raise UserError(_no_path(path))
    if not name:
        raise UserError(f"The name of the image set is empty; allowed are {_ALLOWED}.")
    # Whoever writes a bare word may mean a folder here as well as a name of ours.
    near = nearest(name.lower(), [*NAMES, "tfds:"])
    raise UserError(
        f"There is no file or folder {path.absolute()}, and no image set is called"
        f" '{name}'; allowed are {_ALLOWED}{near or '.'}"
    )


def _no_path(path: Path) -> str:
    """That there is no such path, as far as there is one, and what is like it there."""
    path = path.absolute()
    there = next(parent for parent in path.parents if os.path.isdir(parent))
    wanted = path.relative_to(there).parts[0]
    inside = [entry.name for entry in there.iterdir()] if os.access(there, os.R_OK) else []
    near = difflib.get_close_matches(wanted, inside, n=1)
    hint = f"; nearest in it: '{near[0]}'" if near else ""
    return f"There is no file or folder {path}: {there} holds no '{wanted}'{hint}."
