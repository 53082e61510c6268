"""What is done to training images: by the keys `task.augment.*`, and by the kind of the images.

`POLICIES` is the one list of what `task.augment.policy` may be. A policy chooses values for the
other keys; those that the user has given win. What is applied, and not what it was called, stands
in protocols and records: two names for the same thing are the same.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from fnas_jax.core import config as config_lib
from fnas_jax.core.config_values import split_texts
from fnas_jax.core.nearest import nearest
from fnas_jax.core.types import Array, UserError
from fnas_jax.objectives import regression
from fnas_jax.tasks import augment, colour, data, policy
from fnas_jax.tasks.colour import Jitter
from fnas_jax.tasks.config import Augment as Keys
from fnas_jax.tasks.data import Dataset
from fnas_jax.training.minibatches import Augment

_LIGHT = 0.2  # brightness, contrast and saturation of `auto`
_NATURAL = 32  # pixels of the smaller side from which three channels are taken for a photograph
_SIDES = {"left", "right", "clockwise", "anticlockwise", "counterclockwise"}
_NUMBERS = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"}
_STAY = "values would not move with it"  # why no policy moves images with values
_GROUPS = {"flip": ("flip",), "crop": ("crop",), "colour": Jitter._fields}


class Applied(NamedTuple):
    """What is done to training images; as the keys of the same names."""

    flip: bool = False
    crop: int = 0
    cutout: int = 0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    layers: int = 0  # of RandAugment; 0: none
    magnitude: int = 0


class Picked(NamedTuple):
    """What a policy chooses, and why it leaves something out: {"flip": "one channel"}."""

    applied: Applied
    reasons: Mapping[str, str] = MappingProxyType({})


class Choice(NamedTuple):
    """What is applied, and a line that says so; '' where no policy chose."""

    applied: Applied
    said: str


def of(config: Any, dataset: Dataset) -> Choice:
    """What a run's `config` does to the training images of `dataset`. Raises UserError."""
    return choose(config_lib.read(Keys, config.task.augment), dataset)


def choose(keys: Keys, dataset: Dataset) -> Choice:
    """What `keys` do to the training images of `dataset`.

    Raises UserError for keys that no policy reads, or that the images cannot have.
    """
    off = _left_out(keys)
    picked = POLICIES[keys.policy](keys, dataset)
    without = {name: getattr(Applied(), name) for group in off for name in _GROUPS[group]}
    given = _given(keys)
    channels = dataset.image_shape[-1]
    for name in ("saturation", "hue"):
        if name in given and channels != 3:
            raise UserError(
                f"task.augment.{name} is {given[name]:g}, and the images of {dataset.name} have"
                f" {_count(channels, 'channel')}: it needs three"
            )
    applied = picked.applied._replace(**without)._replace(**given)
    reasons = {name: why for name, why in picked.reasons.items() if name not in off}
    return Choice(applied, "" if keys.policy == "none" else _line(keys.policy, applied, reasons))


def make(applied: Applied, dataset: Dataset) -> Augment:
    """The function that does it: RandAugment, then colours, then flip, crop and cutout."""
    steps: list[Augment] = []
    if applied.layers:
        steps.append(policy.of(applied.layers, applied.magnitude, dataset))
    most = Jitter(*(getattr(applied, name) for name in Jitter._fields))
    if any(most):
        steps.append(functools.partial(colour.jitter, colour.pixels_of(dataset), most))
    flip, crop, cutout = applied.flip, applied.crop, applied.cutout
    steps.append(functools.partial(augment.augment, flip=flip, crop=crop, cutout=cutout))
    return steps[0] if len(steps) == 1 else functools.partial(in_turn, tuple(steps))


def in_turn(
    steps: tuple[Augment, ...], key: Array, images: Array, masks: Array | None = None
) -> tuple[Array, Array | None]:
    """An `Augment` of several, each with a key of its own."""
    for own, step in zip(jax.random.split(key, len(steps)), steps, strict=True):
        images, masks = step(own, images, masks)
    return images, masks


def described(applied: Applied) -> dict[str, Any]:
    """For records and protocols; JSON-ready.

    What is off beside flip, crop and cutout is not named, so that rows from before there was more
    stay comparable.
    """
    plain = Applied()._asdict()
    kept = ("flip", "crop", "cutout")
    return {n: value for n, value in applied._asdict().items() if n in kept or value != plain[n]}


def reads_one_way(dataset: Dataset) -> str:
    """Why a mirror image may belong to another class, or to none; '' where nothing speaks for it.

    Images of one channel are digits, letters and scans more often than photographs. Classes that
    are named by numbers may be digits, or just numbered: what they mean is not known.
    """
    if dataset.image_shape[-1] == 1:
        return "one channel"
    names = [name.strip().lower() for name in dataset.class_names]
    for name in names:
        if _SIDES & set(re.findall(r"[a-z]+", name)):
            return f"a class is {name!r}"
    if all(name.isdigit() or len(name) == 1 or name in _NUMBERS for name in names):
        return "classes are numbers or letters"
    return ""


def _none(keys: Keys, dataset: Dataset) -> Picked:
    return Picked(Applied())


def _basic(keys: Keys, dataset: Dataset) -> Picked:
    """Flip and crop by an eighth of the side: 4 of 32 pixels, as He et al., arXiv 1512.03385.

    Not of images with values, e.g. the place of something: only who asks for it by `flip` or `crop`
    knows that the values stay as they are.
    """
    if dataset.objective == regression.NAME:
        return Picked(Applied(), {"flip": _STAY, "crop": _STAY})
    return Picked(Applied(flip=True, crop=max(1, _side(dataset) // 8)))


def _randaugment(keys: Keys, dataset: Dataset) -> Picked:
    reasons = {} if policy.moves(dataset) else {"moves": _STAY}
    return Picked(Applied(layers=keys.layers, magnitude=keys.magnitude), reasons)


def _auto(keys: Keys, dataset: Dataset) -> Picked:
    side, channels, why = _side(dataset), dataset.image_shape[-1], reads_one_way(dataset)
    moved, values = _basic(keys, dataset), dataset.objective == regression.NAME
    if why and not values:  # 2 of 28 pixels: digits in their frame, as MNIST has them, stay whole
        return Picked(Applied(crop=max(1, side // 12)), {"flip": why})
    if channels != 3 or side < _NATURAL:
        shape = f"{_count(channels, 'channel')}, {side} pixels"
        moved = moved if values else Picked(Applied(crop=max(1, side // 8)), {"flip": shape})
        return Picked(moved.applied, {**moved.reasons, "colour": shape})
    unknown = _unknown_range(dataset)
    if unknown:
        return Picked(moved.applied, {**moved.reasons, "colour": unknown})
    lit = moved.applied._replace(brightness=_LIGHT, contrast=_LIGHT, saturation=_LIGHT)
    return Picked(lit, moved.reasons)


# (keys, data set) -> what it chooses; the names are those of `task.augment.policy`
POLICIES: dict[str, Callable[[Keys, Dataset], Picked]] = {
    "none": _none,
    "basic": _basic,
    "auto": _auto,
    "randaugment": _randaugment,
}


def _side(dataset: Dataset) -> int:
    return min(dataset.image_shape[:2])


def _unknown_range(dataset: Dataset) -> str:
    """What pixels are where black and white are not known; '' for uint8 and for 0 to 1."""
    if dataset.train_images.dtype == np.uint8:
        return ""
    low, high = data.pixel_range(dataset.train_images, dataset.val_images)
    return "" if low >= 0 and high <= 1 else f"pixels from {low:.3g} to {high:.3g}"


def _left_out(keys: Keys) -> tuple[str, ...]:
    """The names of `task.augment.off`. Raises UserError, and for keys that the policy ignores."""
    off = split_texts(keys.off)
    for name in off:
        if name not in _GROUPS:
            near = nearest(name, _GROUPS)
            raise UserError(f"task.augment.off is {name!r}; allowed are {', '.join(_GROUPS)}{near}")
        for key in _GROUPS[name]:
            if key in _given(keys):
                raise UserError(f"task.augment.off has {name!r} beside task.augment.{key}")
    if off and keys.policy not in ("basic", "auto"):
        raise UserError(
            f"task.augment.off is {keys.off!r} beside task.augment.policy={keys.policy}, which"
            " chooses none of that"
        )
    for name in ("layers", "magnitude"):
        if keys.policy != "randaugment" and getattr(keys, name) != getattr(Keys(), name):
            raise UserError(
                f"task.augment.{name} is {getattr(keys, name)} beside task.augment.policy="
                f"{keys.policy}, which does not read it; randaugment does"
            )
    return off


def _given(keys: Keys) -> dict[str, Any]:
    """The keys of their own that are not at their defaults, and so the user's."""
    names = (*_GROUPS["flip"], *_GROUPS["crop"], "cutout", *_GROUPS["colour"])
    return {n: getattr(keys, n) for n in names if getattr(keys, n) != getattr(Keys(), n)}


def _line(name: str, applied: Applied, reasons: Mapping[str, str]) -> str:
    """E.g. "augmentation auto: crop 2, no flips (one channel)"."""
    does = []
    if applied.layers:
        does.append(f"{applied.layers} operations of magnitude {applied.magnitude}")
    does += ["flip"] if applied.flip else []
    names = ("crop", "cutout", *Jitter._fields)
    does += [f"{n} {getattr(applied, n):g}" for n in names if getattr(applied, n)]
    for group, why in reasons.items():
        if not any(getattr(applied, key) for key in _GROUPS.get(group, ())):
            does.append(f"no {'flips' if group == 'flip' else group} ({why})")
    return f"augmentation {name}: {', '.join(does) or 'nothing'}"


def _count(number: int, what: str) -> str:
    return f"one {what}" if number == 1 else f"{number} {what}s"
