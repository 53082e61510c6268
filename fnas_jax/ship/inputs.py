"""Which images a trained network takes, and how a user's images become these.

It is what the readers of `tasks` did to the images that the network was trained on, in the same
order and by the same functions: pixels in the type of the set, then resized, then (inside the
network's program) normalised.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fnas_jax.core.types import UserError
from fnas_jax.tasks import data
from fnas_jax.tasks.data import Dataset
from fnas_jax.tasks.readers.decode import Files
from fnas_jax.tasks.readers.examples import RESIZING, resize

# How far beyond the pixels of the data set others may lie, in units of their range: far enough for
# other images of the kind, not for 0..255 where 0..16 or 0..1 was learnt.
_MARGIN = 0.5
LARGEST = 1 << 16  # height, width or channels of images
# What reading a description raises that is another's, or was changed.
DAMAGE = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError)


class Inputs(NamedTuple):
    """What a network was trained on."""

    height: int
    width: int
    channels: int
    dtype: str  # of pixels before they are normalised: "uint8" or "float32"
    low: float  # smallest and largest pixel of the data set; 0 and 255 for uint8
    high: float
    mean: tuple[float, ...]  # of each channel, in units of pixels
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    files: Files = Files()  # how image files become such pixels


def of(dataset: Dataset) -> Inputs:
    """The inputs of networks that are trained on `dataset`."""
    height, width, channels = dataset.image_shape
    parts = (dataset.train_images, dataset.val_images, dataset.test_images)
    low, high = data.pixel_range(*parts)
    return Inputs(
        height=height,
        width=width,
        channels=channels,
        dtype=str(dataset.train_images.dtype),
        low=low,
        high=high,
        mean=tuple(map(float, dataset.mean)),
        std=tuple(map(float, dataset.std)),
        class_names=dataset.class_names,
        files=dataset.files,
    )


def described(inputs: Inputs) -> dict[str, Any]:
    """`inputs` as architecture.json has them; the inverse of `parse`."""
    return {
        "height": inputs.height,
        "width": inputs.width,
        "channels": inputs.channels,
        "pixels": {"dtype": inputs.dtype, "low": inputs.low, "high": inputs.high},
        "normalise": {"mean": inputs.mean, "std": inputs.std, "formula": "(pixel - mean) / std"},
        "resize": RESIZING,
        "files": dict(inputs.files._asdict()),
        "classes": inputs.class_names,
    }


def parse(entry: dict[str, Any]) -> Inputs:
    """The inverse of `described`. Raises one of `DAMAGE` for anything else."""
    # Versions that did not say ignored transparency, and so were their networks trained.
    files = entry.get("files", {"alpha": "drop", "bits": 8})
    found = Inputs(
        height=int(entry["height"]),
        width=int(entry["width"]),
        channels=int(entry["channels"]),
        dtype=str(entry["pixels"]["dtype"]),
        low=float(entry["pixels"]["low"]),
        high=float(entry["pixels"]["high"]),
        mean=tuple(map(float, entry["normalise"]["mean"])),
        std=tuple(map(float, entry["normalise"]["std"])),
        class_names=tuple(map(str, entry["classes"])),
        files=Files(str(files["alpha"]), int(files["bits"])),
    )
    _check(found)
    return found


def _check(found: Inputs) -> None:
    """Raises ValueError for what no images can be."""
    sides = {name: getattr(found, name) for name in ("height", "width", "channels")}
    for name, size in sides.items():
        if not 1 <= size <= LARGEST:
            raise ValueError(f"{name} is {size}; 1 to {LARGEST} is possible")
    if found.dtype not in ("uint8", "float32"):
        raise ValueError(f"pixels are {found.dtype!r}; uint8 and float32 are possible")
    scale = (found.low, found.high, *found.mean, *found.std)
    if not (np.isfinite(scale).all() and min(found.std, default=1) > 0 and found.low <= found.high):
        raise ValueError(f"pixels are normalised by {scale}, which is impossible")
    if not len(found.mean) == len(found.std) == found.channels:
        numbers = f"{len(found.mean)} means and {len(found.std)} deviations"
        raise ValueError(f"there are {numbers} for {found.channels} channels")


def checked(inputs: Inputs, images: Any) -> np.ndarray:
    """Images of a user as [N, H, W, channels], their size and type as they were.

    `images`: [N, H, W, channels], or [N, H, W] of one channel, of any size; uint8, or any number
    where the network was trained on such. Or a list of images [H, W, channels] (or [H, W]), each of
    its own size: these come back as `fitted` returns them. Raises UserError.
    """
    try:
        whole = np.asarray(images)
    except ValueError:  # a list of images of several sizes
        return _each(inputs, images)
    if whole.dtype.kind == "O" and whole.ndim == 1:
        return _each(inputs, whole)
    whole = _with_channels(inputs, whole)
    _check_pixels(inputs, whole)
    return whole


def _each(inputs: Inputs, images: Any) -> np.ndarray:
    """[N, height, width, channels] of images of any sizes, each looked at alone."""
    found = np.empty((len(images), inputs.height, inputs.width, inputs.channels), inputs.dtype)
    for i, image in enumerate(images):
        try:
            one = np.asarray(image)[None]
            one = _with_channels(inputs, one)
            _check_pixels(inputs, one)
        except (UserError, ValueError) as error:
            raise UserError(f"image {i} of the list, alone: {error}") from None
        found[i] = fitted(inputs, one)[0]
    return found


def fitted(inputs: Inputs, images: np.ndarray) -> np.ndarray:
    """Images of `checked` -> [N, height, width, channels] of `inputs.dtype`, to be normalised."""
    images = images.astype(inputs.dtype, copy=False)
    shape = (inputs.height, inputs.width)
    if images.shape[1:3] == shape:
        return images
    return np.stack([resize(image, *shape) for image in images])


def _with_channels(inputs: Inputs, images: np.ndarray) -> np.ndarray:
    """[N, H, W] or [N, H, W, C] -> [N, H, W, C]."""
    wanted = f"[N, H, W, {inputs.channels}]" + (" or [N, H, W]" if inputs.channels == 1 else "")
    given = f"the images have shape {list(images.shape)}; {wanted} is needed"
    if images.ndim not in (3, 4):
        raise UserError(f"{given}" + ("; images[None] is one image" if images.ndim == 2 else ""))
    # An image of one pixel's width or three is none; one image in colours looks like this.
    if images.ndim == 3 and images.shape[-1] in (1, 3) and images.shape[-1] != inputs.width:
        raise UserError(f"{given}; images[None] is one image")
    channels = images.shape[3] if images.ndim == 4 else 1
    if channels != inputs.channels:
        raise UserError(
            f"{given}: they have {channels} channel{'s' * (channels != 1)}, and the network was"
            f" trained on images of {inputs.channels}"
        )
    if 0 in images.shape[1:3]:
        raise UserError(f"{given}, with H and W of at least 1")
    return images.reshape(*images.shape[:3], inputs.channels)


def _check_pixels(inputs: Inputs, images: np.ndarray) -> None:
    """Raises UserError for pixels of another type, or in other units, than those learnt."""
    if inputs.dtype == "uint8":
        if images.dtype != np.uint8:
            raise UserError(
                f"the images are {images.dtype}; uint8 from 0 to 255 is needed, which is what the"
                " network was trained on"
            )
        return
    if images.dtype.kind == "b" and (inputs.low, inputs.high) == (0.0, 1.0):
        return  # as it was trained on: 0 and 1
    if images.dtype.kind not in "uif":
        scale = f"from {inputs.low:g} to {inputs.high:g}"
        raise UserError(
            f"the images are {images.dtype}; numbers are needed, {scale} as in training"
        )
    if not images.size:
        return
    low, high = float(images.min()), float(images.max())
    margin = _MARGIN * (inputs.high - inputs.low)
    if not inputs.low - margin <= low <= high <= inputs.high + margin:  # or NaN
        raise UserError(
            f"the pixels of the images reach from {low:g} to {high:g}; the network was trained on"
            f" pixels from {inputs.low:g} to {inputs.high:g}, so bring them to that scale first"
        )
