"""`latency.source`: where the latencies come from that rewards and limits go by."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fnas_jax.core import attributes, callables, devices
from fnas_jax.core.types import Array, UserError
from fnas_jax.networks import readable
from fnas_jax.spaces.base import Space
from fnas_jax.tasks import data
from fnas_jax.tasks.data import Dataset
from fnas_jax.timing import lookup, units, whole
from fnas_jax.timing import table as tables
from fnas_jax.timing.table import Table

DEVICE = "device"
TABLE, PYTHON = "table:", "python:"


class Source(NamedTuple):
    """Where latencies come from."""

    name: str = DEVICE  # `latency.source`
    # archs [N, T] in canonical form -> milliseconds [N] float32; None: each is timed here
    of: Callable[[Array], np.ndarray] | None = None
    # The same for nothing, pure and jittable; NaN where `of` raises. None: each is asked for
    predict: Callable[[Array], Array] | None = None
    device: str = ""  # whose latencies a table holds, as `devices.describe` has it; "": unknown
    # What makes its numbers comparable, for the protocol; None: `latency.batch_size`, the platform
    identity: dict[str, str] | None = None

    @property
    def is_here(self) -> bool:
        """Whether its latencies are those of this device."""
        return self.of is None or self.device == devices.describe()

    def described(self, arch: Array) -> dict[str, Any]:
        """What it says of one network [T], for people and programs; JSON-ready."""
        assert self.of is not None
        kind = self.name.partition(":")[0]
        value = float(self.of(jnp.asarray(arch)[None])[0])
        return {"source": kind, "device": self.device or None, "ms": value}


def open_(config: Any, space: Space, dataset: Dataset) -> Source:
    """The source of `config.latency.source`, for networks of `space` on the images of `dataset`.

    Raises UserError where there is none of that name, or it cannot be used for these.
    """
    name = config.latency.source
    if name == DEVICE:
        return Source()
    if name.startswith(TABLE):
        path = name.removeprefix(TABLE)
        shape, classes = dataset.image_shape, units.of_images(dataset.outputs)
        found = tables.read(path)
        tables.check(found, path, space, shape, classes, config.latency.batch_size)
        rows = found.operations_ms
        predict = lookup.predictor(space, shape, classes, found.fixed_ms, rows)
        of = functools.partial(look_up, predict, found, space, shape, classes)
        known = {"kind": "table", "digest": found.digest}
        return Source(name, of, predict, found.device, known)
    if name.startswith(PYTHON):
        module, _, attribute = name.removeprefix(PYTHON).partition(":")
        if module and attribute:
            function = attributes.find("latency.source", name, module, attribute)
            if not callable(function):
                made = type(function).__name__
                raise UserError(f"latency.source is {name!r}, a {made}, which cannot be called")
            of = functools.partial(ask, name, function, space, dataset)
            known = {"kind": name, "digest": _digest(name, function)}
            return Source(name, of, identity=known)
    raise UserError(
        f"latency.source is {name!r}; allowed are {DEVICE}, {TABLE}FILE and {PYTHON}MODULE:FUNCTION"
    )


def _digest(name: str, function: Any) -> str:
    """By which latencies of another function of this `name` are told apart. Raises UserError."""
    try:
        return callables.digest(function)
    except UserError as error:
        raise UserError(f"latency.source is {name!r}: {error}") from None


def images_of(dataset: Dataset) -> whole.Images:
    """What networks take that are trained on `dataset`."""
    normalise = functools.partial(data.normalise, mean=dataset.mean, std=dataset.std)
    pixels = dataset.train_images.dtype
    return whole.Images(dataset.image_shape, pixels, dataset.outputs, normalise)


def look_up(
    predict: Callable[[Array], Array],
    table: Table,
    space: Space,
    image_shape: tuple[int, int, int],
    classes: int,
    archs: Array,
) -> np.ndarray:
    """[N] milliseconds of `archs` [N, T]. Raises UserError for an operation without a row."""
    found = np.asarray(predict(archs))
    for arch in np.asarray(archs)[np.isnan(found)]:  # hardly ever: see `lookup.of_space`
        needed = units.of_network(space, arch, image_shape, classes)
        missing = [unit.key for unit in needed if unit.key not in table.operations_ms]
        raise UserError(
            f"the table of latencies has no row {', '.join(missing)}, which"
            f" {space.describe(arch)['text']} needs"
        )
    return found


def ask(
    name: str,
    function: Callable[[dict[str, Any]], float],
    space: Space,
    dataset: Dataset,
    archs: Array,
) -> np.ndarray:
    """[N] milliseconds of `archs` [N, T], as the user's function says. Raises UserError."""
    known: dict[bytes, float] = {}  # each network is asked for once
    for arch in np.asarray(archs):
        if arch.tobytes() not in known:
            known[arch.tobytes()] = _answer(name, function, network(space, dataset, arch))
    return np.asarray([known[arch.tobytes()] for arch in np.asarray(archs)], np.float32)


def network(space: Space, dataset: Dataset, arch: np.ndarray) -> dict[str, Any]:
    """What a user's function is told of a network [T]; JSON-ready.

    "space", "arch", "decisions" (by name), "text", "layers" (`networks.readable`, as in
    architecture.json), "image" ([height, width, channels]) and "classes".
    """
    shape = dataset.image_shape
    return {
        "space": space.name,
        "arch": arch.tolist(),
        "decisions": dict(zip(space.names, arch.tolist(), strict=True)),
        "text": space.describe(arch)["text"],
        "layers": readable.layers(space.spec, arch, shape[-1], dataset.outputs),
        "image": list(shape),
        "classes": dataset.num_classes,
    }


def _answer(name: str, function: Callable[[dict[str, Any]], float], told: dict[str, Any]) -> float:
    try:
        answer = function(told)
    except Exception as error:  # whatever the user's function raises
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"latency.source {name!r} failed for {told['text']}: {reason}") from error
    try:
        value = float(answer)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise UserError(
            f"latency.source {name!r} returned {answer!r} for {told['text']}; a number of"
            " milliseconds above 0 is needed"
        )
    return value
