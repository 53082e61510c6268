"""A trained network that is used: labels and probabilities of images.

The network is the plain Flax module with `nn.Conv`, in float32 on every device.
"""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.mapped import Images
from fnas_jax.core.types import Array, UserError
from fnas_jax.networks import flax_reference, readable, shipped
from fnas_jax.ship import best, inputs
from fnas_jax.ship import spec as spec_lib
from fnas_jax.ship.inputs import Inputs
from fnas_jax.tasks import data

BATCH = 256  # images at once


def load(path: str | pathlib.Path) -> Model:
    """The network that a finished search has left.

    `path` is the search's workdir, or its `best/` folder wherever that is now. Raises UserError
    where there is none, or it is not whole.
    """
    record, variables = best.read(path)
    try:
        return Model(record, variables)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the network in {str(path)!r} cannot be rebuilt: {error!r}") from None


class Model:
    """A network and its weights.

    `architecture` is what architecture.json holds, `class_names` the names of the C classes,
    `variables` the weights as Flax has them, of the module `module`.
    """

    def __init__(self, architecture: dict[str, Any], variables: dict[str, Any]):
        """`architecture` as `record.content` makes it.

        Raises UserError where the weights are not those of the network, and KeyError, TypeError
        or ValueError where `architecture` is something else.
        """
        self.architecture = architecture
        self.inputs = inputs.parse(architecture["inputs"])
        self.class_names = self.inputs.class_names
        self.module = build(architecture, self.inputs)
        self.variables = variables
        _check_weights(self.module, self.inputs, variables)
        self.run = jax.jit(functools.partial(classify, self.module, self.inputs))

    def __repr__(self) -> str:
        judged, trained = self.architecture["accuracy"], self.architecture["training"]
        test = f"{judged['correct']} of {judged['test_images']} test images right"
        return f"Model({self.description}; {test}; trained by {trained['command']})"

    @property
    def arch(self) -> list[int]:
        """The choice of each decision, in the canonical form, by which results name networks."""
        return self.architecture.get("canonical", self.architecture["arch"])

    @property
    def description(self) -> str:
        """The network in the words of its space."""
        return self.architecture["description"]["text"]

    def predict(self, images: Any, batch_size: int = BATCH) -> tuple[np.ndarray, np.ndarray]:
        """(labels [N] int32, probabilities [N, C] float32) of images; `class_names[label]`.

        Args:
          images: [N, H, W, channels], or [N, H, W] where the network takes one channel, of any H
            and W: resized as the training images were. Or a list of N such images, each of its own
            size. uint8; where the network was trained on other numbers than 0 to 255
            (`architecture["inputs"]["pixels"]`), numbers of that range.
          batch_size: images at once.

        Raises UserError for images of another rank, type, range or number of channels.
        """
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; it must be 1 or more")
        return in_batches(self, inputs.checked(self.inputs, images), batch_size)

    def evaluate(self, images: Any, labels: Any, batch_size: int = BATCH) -> float:
        """Share in [0, 1] of images that get their label.

        `images` as `predict` takes them; `labels` [N] (or [N, 1]) class numbers from 0, or names of
        classes.
        Raises UserError as `predict` does, for labels that do not fit, and where N is 0.
        """
        numbers = self.numbers(labels)
        found, _ = self.predict(images, batch_size)
        check_count(len(found), len(numbers))
        return int((found == numbers).sum()) / len(found)

    def numbers(self, labels: Any) -> np.ndarray:
        """Class numbers [N] of class numbers or names. Raises UserError for any other."""
        names, labels = self.class_names, _label_array(labels)
        if labels.dtype.kind in "US":
            number_of = {name: i for i, name in enumerate(names)}
            unknown = sorted(set(labels.tolist()) - number_of.keys())
            if unknown:
                raise UserError(f"{unknown[0]!r} is no class; these are {', '.join(names)}")
            return np.asarray([number_of[name] for name in labels.tolist()], np.int64)
        if labels.dtype.kind not in "ui" and labels.size:
            raise UserError(f"the labels are {labels.dtype}; class numbers or names are needed")
        if labels.size and not 0 <= labels.min() <= labels.max() < len(names):
            raise UserError(
                f"the labels reach from {labels.min()} to {labels.max()}; class numbers are 0 to"
                f" {len(names) - 1}"
            )
        return labels


def check_count(images: int, labels: int) -> None:
    """Raises UserError unless there are as many images as labels, at least one."""
    if images != labels or not images:
        raise UserError(
            f"there are {images} images and {labels} labels; one label for each of at least one"
            " image is needed"
        )


def _label_array(given: Any) -> np.ndarray:
    """Labels of a user as an array [N], as a task takes those of images. Raises UserError."""
    try:
        labels = np.asarray(given)
    except ValueError as error:  # a list of lists of several lengths
        raise UserError(f"the labels are no array: {error}") from None
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise UserError(f"the labels have shape {list(labels.shape)}; [N] is needed")
    if labels.dtype.kind == "O" and all(isinstance(label, str) for label in labels):
        return labels.astype(str)  # as pandas has them
    return labels.astype(np.int64) if labels.dtype.kind == "b" else labels


def in_batches(model: Model, images: Images, most: int) -> tuple[np.ndarray, np.ndarray]:
    """As `Model.predict`, of images that `inputs.checked` or a data set's reader has returned."""
    count = len(images)
    labels = np.empty(count, np.int32)
    probabilities = np.empty((count, len(model.class_names)), np.float32)
    # A program per size is compiled: powers of 2 for few images, and one for all batches of many.
    size = min(most, 1 << max(0, count - 1).bit_length())
    for start in range(0, count, size):
        part = inputs.fitted(model.inputs, images[start : start + size])
        padded = np.pad(part, ((0, size - len(part)), (0, 0), (0, 0), (0, 0)))
        found = jax.device_get(model.run(model.variables, padded))
        rows = slice(start, start + len(part))
        labels[rows], probabilities[rows] = (x[: len(part)] for x in found)
    return labels, probabilities


def classify(
    module: nn.Module, taken: Inputs, variables: Any, images: Array
) -> tuple[Array, Array]:
    """(labels [B] int32, probabilities [B, C] float32) of images [B, H, W, C] as `taken` says.

    What is exported, too: it normalises by itself.
    """
    mean, std = (np.asarray(x, np.float32) for x in (taken.mean, taken.std))
    normalise = functools.partial(data.normalise, mean=mean, std=std)
    return shipped.classify(module, normalise, variables, images)


def build(architecture: dict[str, Any], taken: Inputs) -> nn.Module:
    """The Flax module that `architecture` describes.

    Raises as `Model` does, and UserError where this version of fnas_jax makes other layers of it.
    """
    spec, arch, classes = (
        spec_lib.parse(architecture["space"]),
        architecture["arch"],
        taken.class_names,
    )
    layers = readable.layers(spec, arch, taken.channels, len(classes))
    if layers != architecture["layers"]:
        version = architecture["versions"]["fnas_jax"]
        raise UserError(
            f"the network has layers that fnas_jax {version} made of its decisions and this version"
            " would make otherwise: use that version, or its export to Flax"
        )
    return flax_reference.of_spec(spec, arch, len(classes), fast=False)


def _check_weights(module: nn.Module, taken: Inputs, variables: dict[str, Any]) -> None:
    """Raises UserError unless names and shapes of `variables` are those of `module`."""
    image = jnp.zeros((1, taken.height, taken.width, taken.channels))
    needed = jax.eval_shape(lambda: module.init(jax.random.key(0), image, train=False))
    shapes = {name: tuple(leaf.shape) for name, leaf in best.flat(needed).items()}
    given = {name: tuple(leaf.shape) for name, leaf in best.flat(variables).items()}
    wrong = sorted(
        name for name in shapes.keys() | given.keys() if shapes.get(name) != given.get(name)
    )
    if wrong:
        name = wrong[0]
        raise UserError(
            f"the weights do not fit the network: {name} has shape {given.get(name)}, and"
            f" {shapes.get(name)} is needed (None: there is none)"
        )
