"""A trained network that is used: answers and scores of images, as its objective has them.

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

from fnas_jax.core import jsons
from fnas_jax.core.mapped import Images
from fnas_jax.core.types import Array, UserError
from fnas_jax.networks import dense, flax_reference, readable, shipped
from fnas_jax.objectives import base as objectives
from fnas_jax.objectives import classification
from fnas_jax.objectives.base import Objective
from fnas_jax.ship import best, inputs
from fnas_jax.ship import figures as figures_lib
from fnas_jax.ship import labels as labels_lib
from fnas_jax.ship import spec as spec_lib
from fnas_jax.ship.figures import Figures
from fnas_jax.ship.inputs import Inputs
from fnas_jax.tasks import data

BATCH = 256  # images at once
# Of architecture.json, what a model says of itself; what it computes by is read where it is built.
FORM = {
    "arch": [int],
    "canonical": [int],
    "accuracy": {"test": jsons.MAYBE_NUMBER, "test_images": int, "correct": int},
    "training": {"command": str},
    "description": {"text": str},
    "versions": {"fnas_jax": str},
    "data": {"name": str},
    "inputs": {"resize": str},
}
NEEDED = {
    "accuracy": ("test", "test_images"),
    "training": ("command",),
    "description": ("text",),
    "versions": ("fnas_jax",),
    "data": ("name",),
    "inputs": ("resize",),
}


def load(path: str | pathlib.Path) -> Model:
    """The network that a finished search has left.

    `path` is the search's workdir, or its `best/` folder wherever that is now. Raises UserError
    where there is none, or it is not whole.
    """
    record, variables = best.read(path)
    where = repr(str(best.locate(pathlib.Path(path).expanduser()) / best.ARCHITECTURE))
    jsons.record(record, FORM, where, ("arch", *NEEDED))
    for name, kinds in NEEDED.items():
        jsons.record(record[name], {}, f"{name!r} of {where}", kinds)
    try:
        return Model(record, variables)
    except inputs.DAMAGE as error:
        raise UserError(f"the network in {str(path)!r} cannot be rebuilt: {error!r}") from error


class Model:
    """A network and its weights.

    `architecture` is what architecture.json holds, `objective` what it was trained for,
    `class_names` the names of its C classes, labels or values,
    `variables` the weights as Flax has them, of the module `module`.
    """

    def __init__(self, architecture: dict[str, Any], variables: dict[str, Any]):
        """`architecture` as `record.content` makes it.

        Raises UserError where the weights are not those of the network, and one of
        `inputs.DAMAGE` where `architecture` is something else.
        """
        self.architecture = architecture
        self.inputs = inputs.parse(architecture["inputs"])
        self.class_names = self.inputs.class_names
        self.objective = objective_of(architecture, self.class_names)
        if self.objective.outputs != len(self.class_names):
            raise ValueError(f"{self.objective.outputs} outputs, {len(self.class_names)} names")
        self.module = build(architecture, self.inputs, self.objective)
        self.variables = variables
        _check_weights(self.module, self.inputs, variables)
        # The same function: XLA's grouped convolutions take five times as long on CPUs.
        fast = jax.default_backend() == "cpu"
        module = build(architecture, self.inputs, self.objective, fast) if fast else self.module
        self.run = jax.jit(functools.partial(answer, self.objective, module, self.inputs))
        self.outputs = jax.jit(functools.partial(outputs, module, self.inputs))

    def __repr__(self) -> str:
        judged, trained = self.architecture["accuracy"], self.architecture["training"]
        count, measure = judged["test_images"], self.objective.measure
        test = f"{measure.name} {measure.text(judged['test'])} on {count} test images"
        if "correct" in judged:
            test = f"{judged['correct']} of {count} test images right"
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
        """(answers, scores) of N images, as the objective has them, in the order `class_names`.

        For classes labels [N] int32 and probabilities [N, C] float32; for several labels whether
        each is there [N, L] int32 0 or 1, and probabilities [N, L]; for values these [N, R]
        float32, in their units, as both; for masks these [N, height, width] int32, in the size that
        the network takes, and probabilities [N, height, width, C].

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
        """The metric of the search on these images: of classes by default the share that is right,
        of masks the mean IoU.

        As `figures`, which has all of them.
        """
        return self.figures(images, labels, batch_size)[self.objective.measure.name]

    def figures(self, images: Any, labels: Any, batch_size: int = BATCH) -> dict[str, float]:
        """{metric: figure} of all metrics of the objective.

        `images` as `predict` takes them; `labels` [N] (or [N, 1]) class numbers from 0, or names of
        classes; 0 or 1 [N, L]; values [N, R] (or [N]); or masks [N, H, W], resized as images.
        Raises UserError as `predict` does, for labels that do not fit, and where N is 0.
        """
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; it must be 1 or more")
        targets = self.targets(labels)
        checked = inputs.checked(self.inputs, images)
        labels_lib.check_count(len(checked), len(targets))
        return judged(self, checked, targets, batch_size).metrics

    def targets(self, given: Any) -> np.ndarray:
        """Labels of a user as the objective takes them, [N, ..]. Raises UserError."""
        return labels_lib.targets(self.objective, self.inputs, given)


def in_batches(model: Model, images: Images, most: int) -> tuple[np.ndarray, np.ndarray]:
    """As `Model.predict`, of images that `inputs.checked` or a data set's reader has returned."""
    answers, scores = _batched(model, model.run, images, most)
    return answers, scores


def raw_outputs(model: Model, images: Images, most: int) -> np.ndarray:
    """What the network gives [N, ..] for images as of `in_batches`."""
    return _batched(model, model.outputs, images, most)[0]


def judged(model: Model, images: Images, targets: np.ndarray, most: int) -> Figures:
    """All figures on images as of `in_batches`, whose targets are [N, ..]; N is 1 or more.

    What would not be resampled for an interval is counted batch by batch: the scores of all pixels
    would fill the memory.
    """
    most = at_once(model, most)
    if len(images) * numbers_each(model) <= figures_lib.LARGEST:
        return figures_lib.of(model.objective, raw_outputs(model, images, most), targets)
    parts = (slice(start, start + most) for start in range(0, len(images), most))
    found = ((raw_outputs(model, images[part], most), targets[part]) for part in parts)
    return figures_lib.in_parts(model.objective, found, len(images))


def numbers_each(model: Model) -> int:
    """How many numbers the network gives for an image."""
    taken = model.inputs
    return model.objective.outputs * (taken.height * taken.width if model.objective.dense else 1)


def at_once(model: Model, most: int) -> int:
    """`most` images, or as many as have no more than `LARGEST` numbers; at least one."""
    return max(1, min(most, figures_lib.LARGEST // numbers_each(model)))


def _batched(model: Model, run: Any, images: Images, most: int) -> list[np.ndarray]:
    count, taken = len(images), model.inputs
    shape = (1, taken.height, taken.width, taken.channels)
    one = jax.ShapeDtypeStruct(shape, taken.dtype)
    shapes = jax.tree.leaves(jax.eval_shape(run, model.variables, one))
    found = [np.empty((count, *x.shape[1:]), x.dtype) for x in shapes]
    # A program per size is compiled: powers of 2 for few images, and one for all batches of many.
    size = min(most, 1 << max(0, count - 1).bit_length())
    for start in range(0, count, size):
        part = inputs.fitted(taken, images[start : start + size])
        padded = np.pad(part, ((0, size - len(part)), (0, 0), (0, 0), (0, 0)))
        given = jax.tree.leaves(jax.device_get(run(model.variables, padded)))
        for whole, some in zip(found, given, strict=True):
            whole[start : start + len(part)] = some[: len(part)]
    return found


def objective_of(architecture: dict[str, Any], names: tuple[str, ...]) -> Objective:
    """What a network was trained for; those of earlier versions were for classes by accuracy."""
    if "objective" in architecture:
        return objectives.parse(architecture["objective"])
    return classification.of(len(names))


def answer(
    objective: Objective, module: nn.Module, taken: Inputs, variables: Any, images: Array
) -> tuple[Array, Array]:
    """(answers, scores), as `Objective.answer`, of images [B, H, W, C] as `taken` says.

    What is exported, too: it normalises by itself.
    """
    return objective.answer(outputs(module, taken, variables, images))


def outputs(module: nn.Module, taken: Inputs, variables: Any, images: Array) -> Array:
    """What the network gives [B, ..] for images [B, H, W, C] as `taken` says."""
    mean, std = (np.asarray(x, np.float32) for x in (taken.mean, taken.std))
    normalise = functools.partial(data.normalise, mean=mean, std=std)
    return shipped.outputs(module, normalise, variables, images)


def build(
    architecture: dict[str, Any], taken: Inputs, objective: Objective, fast: bool = False
) -> nn.Module:
    """The Flax module that `architecture` describes, which gives numbers for `objective`.

    `fast`: by `layers.convolutions`, of the same parameters; else of stock layers alone.

    Raises as `Model` does, and UserError where this version of fnas_jax makes other layers of it.
    """
    spec, arch = spec_lib.parse(architecture["space"]), architecture["arch"]
    given = dense.of(len(taken.class_names), objective.dense)
    layers = readable.layers(spec, arch, taken.channels, given)
    if layers != architecture["layers"]:
        version = architecture["versions"]["fnas_jax"]
        raise UserError(
            f"the network has layers that fnas_jax {version} made of its decisions and this version"
            " would make otherwise: use that version, or its export to Flax"
        )
    return flax_reference.of_spec(spec, arch, given, fast)


def _check_weights(module: nn.Module, taken: Inputs, variables: dict[str, Any]) -> None:
    """Raises UserError unless names and shapes of `variables` are those of `module`."""
    image = jax.ShapeDtypeStruct((1, taken.height, taken.width, taken.channels), jnp.float32)
    init = functools.partial(module.init, train=False)
    needed = jax.eval_shape(init, jax.random.key(0), image)
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
