"""`python -m fnas_jax.predict`: what a network that a search has left says of image files."""

from __future__ import annotations

import csv
import logging
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from fnas_jax.core import signals

if __name__ == "__main__":
    signals.starting()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before JAX loads: no chatter from XLA

import numpy as np
from absl import flags

from fnas_jax.core import cli, exits
from fnas_jax.core.types import UserError
from fnas_jax.objectives import classification, multilabel, regression
from fnas_jax.ship import inputs, mask_files
from fnas_jax.ship.inputs import Inputs
from fnas_jax.ship.model import BATCH, Model, at_once, in_batches, load
from fnas_jax.tasks.readers import decode, folder
from fnas_jax.tasks.readers.decode import Files
from fnas_jax.tasks.readers.examples import Tally, nearest, since

LOG = logging.getLogger(__name__)
MODES = {1: "L", 2: "L", 3: "RGB", 4: "RGB"}  # how files are read, by the channels of the network
MASKS = "predicted"  # the folder of --out, where none is given
USAGE = f"""Prints a class and its probability, or labels, or values, for each image, as CSV.

  python -m fnas_jax.predict --workdir=runs/a --images=photos

PATH of --images is a file or a folder, whose images are read at any depth. What is an image is told
by its content; what is left out is counted. Transparency becomes what it was in training.

A network for masks writes one for each image into a new folder, --out (by default {MASKS}, where
the command is run): a PNG of the image's size, whose pixels are class numbers. Its line of CSV
names it, and has the share of each class."""


def find(path: pathlib.Path) -> list[pathlib.Path]:
    """The image files of a folder, in order, or the one that `path` is. Raises UserError.

    Told by their content; a warning counts the files that are none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"--images is {str(path)!r}; there is no such file or folder")
    left = Tally()
    # Hidden ones are counted by `walk`.
    found = sorted(p for p in folder.walk(path, left) if folder.header_of(p, left) is not None)
    if not found:
        raise UserError(f"{str(path)!r} holds no image ({', '.join(decode.FORMATS)}){since(left)}")
    for note in folder.left_out(left):
        LOG.log(logging.WARNING if note.loud else logging.INFO, "%s", note.text)
    return found


def reading(taken: Inputs) -> tuple[str, Files]:
    """How files are read for a network that takes such images. Raises UserError."""
    mode, files = MODES.get(taken.channels), taken.files
    kept = taken.channels in (2, 4)
    if mode is None or (kept and files.alpha != "keep"):
        raise UserError(
            f"the network takes images of {taken.channels} channels, which files do not have;"
            " fnas_jax.load takes arrays"
        )
    if files.alpha == "keep" and not kept:  # of arrays, which had no transparency
        files = files._replace(alpha=Files().alpha)
    # Where numbers of another scale were learnt, a file's are compared with that as they are.
    as_stored = taken.dtype != "uint8" and files.bits == 8
    return mode, files._replace(bits=0) if as_stored else files


def read(taken: Inputs, path: pathlib.Path) -> np.ndarray:
    """[height, width, channels]: the image as a network takes it. Raises UserError."""
    return read_sized(taken, path)[0]


def read_sized(taken: Inputs, path: pathlib.Path) -> tuple[np.ndarray, tuple[int, ...]]:
    """(as `read`, (H, W) of the file's image)."""
    image = decode.read_image(path, *reading(taken))
    return inputs.fitted(taken, inputs.checked(taken, image[None]))[0], image.shape[:2]


def columns(model: Model) -> tuple[str, ...]:
    """What `predict` says of an image."""
    if model.objective.name == classification.NAME:
        return ("file", "class", "probability")
    if model.objective.dense:
        return ("file", "mask", *model.class_names)
    answers = ("labels",) if model.objective.name == multilabel.NAME else ()
    return ("file", *answers, *model.class_names)


def predict(model: Model, paths: Sequence[pathlib.Path]) -> Iterator[tuple[Any, ...]]:
    """`columns` of each image, a batch at a time.

    A class and its probability in [0, 1]; the labels that are there, and the probability of each;
    or values, in their units. For masks there is `predict_masks`. Raises UserError.
    """
    for start in range(0, len(paths), BATCH):
        some = paths[start : start + BATCH]
        images = np.stack([read(model.inputs, path) for path in some])
        found = in_batches(model, images, BATCH)  # `read` has checked them
        for path, answer, row in zip(some, *found, strict=True):
            yield path, *_said(model, answer, row)


def predict_masks(
    model: Model, paths: Sequence[pathlib.Path], places: Sequence[pathlib.Path]
) -> Iterator[tuple[Any, ...]]:
    """`columns` of each image, whose mask is written to its place, a batch at a time.

    A mask has the size of the image's file: each pixel the class of the nearest one of the network.
    Shares in [0, 1] are of its pixels. Raises UserError.
    """
    most = at_once(model, BATCH)
    for start in range(0, len(paths), most):
        some = paths[start : start + most], places[start : start + most]
        images, sizes = zip(*(read_sized(model.inputs, path) for path in some[0]), strict=True)
        masks, _ = in_batches(model, np.stack(images), most)
        for path, place, mask, size in zip(*some, masks, sizes, strict=True):
            whole = nearest(mask.astype(np.uint8), *size)
            mask_files.write(whole, place)
            counts = np.bincount(whole.ravel(), minlength=len(model.class_names))
            yield path, place, *map(float, counts / whole.size)


def _said(model: Model, answer: np.ndarray, row: np.ndarray) -> tuple[Any, ...]:
    if model.objective.name == classification.NAME:
        return model.class_names[int(answer)], float(row[int(answer)])
    if model.objective.name == multilabel.NAME:
        there = [name for name, here in zip(model.class_names, answer, strict=True) if here]
        return "|".join(there), *map(float, row)
    return tuple(map(float, answer))


def answers(model: Model, images: pathlib.Path, out: str) -> Iterator[tuple[Any, ...]]:
    """`columns` of each image of a file or folder; masks go to the folder `out` ("": `MASKS`).

    Raises UserError, also for an `out` that nothing would be written to.
    """
    if not model.objective.dense:
        if out:
            raise UserError(
                f"--out is {out!r}, a folder for masks, and the network answers"
                f" {' and '.join(model.objective.pair)}, which are printed"
            )
        return predict(model, find(images))
    paths, folder = find(images), pathlib.Path(out or MASKS).expanduser()
    mask_files.claim(folder, images)
    inside = mask_files.places(paths, images if images.is_dir() else images.parent)
    return predict_masks(model, paths, [folder / place for place in inside])


def _text(model: Model, said: Any) -> Any:
    """A number for CSV: of a probability six decimals, of a value, of any size, seven digits."""
    if not isinstance(said, float):
        return said
    return f"{said:.7g}" if model.objective.name == regression.NAME else f"{said:.6f}"


def define(values: flags.FlagValues) -> None:
    """Declares the flags of this command."""
    cli.define_workdir(values)
    flags.DEFINE_string("images", "", "image file, or folder of them", flag_values=values)
    out = f"new folder for masks, of a network that answers these (default: {MASKS})"
    flags.DEFINE_string("out", "", out, flag_values=values)


def command(argv: Sequence[str] | None = None) -> int:
    """Runs the command with `argv` (without the program's name); returns the exit code."""

    def body() -> None:
        values = cli.parse_flags(sys.argv[1:] if argv is None else argv, define, USAGE)
        model = load(cli.require(values, "workdir"))
        images = pathlib.Path(cli.require(values, "images")).expanduser()
        said = answers(model, images, values.out)
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns(model))
        for row in said:
            writer.writerow([_text(model, x) for x in row])

    return exits.run_command(body)


if __name__ == "__main__":
    signals.leave(command())
