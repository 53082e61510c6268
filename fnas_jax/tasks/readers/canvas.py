"""Image sets with other targets than classes, made of the digits of mnist5k.

Each canvas is 40x40x1, uint8. `canvas_labels` and `canvas_masks` are the same canvases, of one to
four digits: which digits are there, and which pixels are theirs. `canvas_position` has one digit,
turned and moved: where it is, in pixels, and by how many degrees it was turned.

Training, validation and test canvases are made of different digits: of each class the first 320,
the next 80 and the last 100. Everything is drawn by one seed, so that the sets are always the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from fnas_jax.tasks.readers.bundled import mnist5k
from fnas_jax.tasks.readers.examples import Part, Source, nearest, resize

SIDE = 40
COUNTS = {"train": 2000, "val": 500, "test": 500}  # canvases
_BOUNDS = {"train": (0, 320), "val": (320, 400), "test": (400, 500)}  # of each class's 500 digits
_CELL, _DIGIT = 20, 16  # digits of 16x16 stand anywhere in cells of 20x20, and never overlap
_INK = 64  # a pixel from here on is the digit's
_SEED = 5000
_TURN = 45.0  # degrees at most, either way
VALUES = ("x", "y", "angle")


def read_labels(image_size: int) -> Source:
    """Which of ten digits are on each canvas: int32 0 or 1 [n, 10]."""
    return _source(_several, image_size, "multilabel", tuple(map(str, range(10))))


def read_masks(image_size: int) -> Source:
    """The digit of each pixel of the same canvases, uint8 [n, H, W]: 0 background, 1 + digit."""
    names = ("background", *map(str, range(10)))
    return _source(_masks, image_size, "segmentation", names)


def read_position(image_size: int) -> Source:
    """Of the one digit of each canvas: its middle in pixels of 40x40, and its turn: [n, 3] float32.

    x to the right and y down from the left upper corner, degrees counter-clockwise.
    """
    return _source(_one, image_size, "regression", VALUES)


# (generator, digits [d, 28, 28], their classes [d]) -> (canvas [SIDE, SIDE], its target)
_Draw = Callable[[np.random.Generator, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def _source(draw: _Draw, image_size: int, objective: str, names: tuple[str, ...]) -> Source:
    digits, labels = mnist5k()
    parts = {}
    for number, (part, count) in enumerate(COUNTS.items()):
        low, high = _BOUNDS[part]
        rows = np.concatenate([np.flatnonzero(labels == c)[low:high] for c in range(10)])
        drawn = np.random.default_rng((_SEED, number))
        made = [draw(drawn, digits[rows], labels[rows]) for _ in range(count)]
        canvases, targets = (np.stack(x) for x in zip(*made, strict=True))
        parts[part] = _part(canvases, targets, image_size)
    return Source(parts["train"], parts["val"], parts["test"], names, objective=objective)


def _part(canvases: np.ndarray, targets: np.ndarray, image_size: int) -> Part:
    """The canvases [n, SIDE, SIDE] in the size that is asked for, masks with them."""
    ids = [hashlib.blake2b(canvas.tobytes(), digest_size=16).digest() for canvas in canvases]
    images, side = canvases[..., None], image_size or SIDE
    if side != SIDE:
        images = np.stack([resize(image, side, side) for image in images])
        if targets.ndim == 3:  # the class of the nearest pixel: there is none between two classes
            targets = np.stack([nearest(mask, side, side) for mask in targets])
    return Part(images, targets, ids)


def _several(
    drawn: np.random.Generator, digits: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    canvas, mask = _masks(drawn, digits, labels)
    return canvas, np.isin(np.arange(1, 11), mask).astype(np.int32)


def _masks(
    drawn: np.random.Generator, digits: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    canvas, mask = np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE), np.uint8)
    cells = drawn.permutation(4)[: drawn.integers(1, 5)]
    for cell in cells:
        row = drawn.integers(len(digits))
        corner = np.array(divmod(int(cell), 2)) * _CELL + drawn.integers(0, _CELL - _DIGIT + 1, 2)
        place = tuple(slice(c, c + _DIGIT) for c in corner)
        digit = _shrunk(digits[row])
        canvas[place] = digit
        mask[place] = np.where(digit >= _INK, 1 + labels[row], 0)
    return canvas, mask


def _shrunk(digit: np.ndarray) -> np.ndarray:
    """[28, 28] -> [16, 16]: without most of the margin of MNIST's digits, which are 20x20."""
    return resize(digit[3:25, 3:25, None], _DIGIT, _DIGIT)[..., 0]


def _one(
    drawn: np.random.Generator, digits: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    angle = drawn.uniform(-_TURN, _TURN)
    turned = Image.fromarray(digits[drawn.integers(len(digits))])
    digit = np.asarray(turned.rotate(angle, Image.Resampling.BILINEAR))
    top, left = drawn.integers(0, SIDE - len(digit) + 1, 2)
    canvas[top : top + len(digit), left : left + len(digit)] = digit
    middle = len(digit) / 2  # where MNIST has a digit's centre of mass
    return canvas, np.array([left + middle, top + middle, angle], np.float32)
