"""`python -m fnas_jax.predict`: what a network that a search has left says of image files."""

from __future__ import annotations

import csv
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before JAX loads: no chatter from XLA

import numpy as np
from absl import flags

from fnas_jax.core import cli
from fnas_jax.core.types import UserError
from fnas_jax.ship import inputs
from fnas_jax.ship.model import BATCH, Model, in_batches, load
from fnas_jax.tasks.readers import folder

MODES = {1: "L", 3: "RGB"}  # how files are read, by the channels of the network
USAGE = """Prints a class and its probability for each image, as CSV.

  python -m fnas_jax.predict --workdir=runs/a --images=photos

PATH of --images is a file or a folder, whose images are read at any depth."""


def find(path: pathlib.Path) -> list[pathlib.Path]:
    """The image files of a folder, in order, or the one that `path` is. Raises UserError."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"--images is {str(path)!r}; there is no such file or folder")
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in folder.SUFFIXES)
    if not found:
        raise UserError(f"{str(path)!r} holds no image ({', '.join(sorted(folder.SUFFIXES))})")
    return found


def read(model: Model, path: pathlib.Path) -> np.ndarray:
    """[height, width, channels]: the image as the network takes it. Raises UserError."""
    channels = model.inputs.channels
    if channels not in MODES:
        raise UserError(
            f"the network takes images of {channels} channels, which files do not have;"
            " fnas_jax.load takes arrays"
        )
    image = folder.read_image(path, MODES[channels])
    return inputs.fitted(model.inputs, inputs.checked(model.inputs, image[None]))[0]


def predict(
    model: Model, paths: Sequence[pathlib.Path]
) -> Iterator[tuple[pathlib.Path, str, float]]:
    """(file, class, probability in [0, 1]) of each image, a batch at a time."""
    for start in range(0, len(paths), BATCH):
        some = paths[start : start + BATCH]
        images = np.stack([read(model, path) for path in some])
        labels, probabilities = in_batches(model, images, BATCH)  # `read` has checked them
        for path, label, row in zip(some, labels, probabilities, strict=True):
            yield path, model.class_names[label], float(row[label])


def define(values: flags.FlagValues) -> None:
    """Declares the flags of this command."""
    cli.define_workdir(values)
    flags.DEFINE_string("images", "", "image file, or folder of them", flag_values=values)


def command(argv: Sequence[str] | None = None) -> int:
    """Runs the command with `argv` (without the program's name); returns the exit code."""

    def body() -> None:
        values = cli.parse_flags(sys.argv[1:] if argv is None else argv, define, USAGE)
        model = load(cli.require(values, "workdir"))
        paths = find(pathlib.Path(cli.require(values, "images")).expanduser())
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(("file", "class", "probability"))
        for path, label, probability in predict(model, paths):
            writer.writerow((path, label, f"{probability:.6f}"))

    return cli.run_command(body)


if __name__ == "__main__":
    sys.exit(command())
