"""RandAugment for the final training: a few random operations on every image, of one magnitude.

Cubuk et al., *RandAugment: Practical automated data augmentation with a reduced search space*,
2019, arXiv 1909.13719; magnitudes 0 to 30 and ranges as torchvision has them. The operations are
those of dm-pix, on JAX arrays and under `jit`. It lacks four of the paper's (equalize,
auto-contrast, posterize, sharpness), which are left out, and it adds brightness where the paper
multiplies by it. What an image is moved away from gets its mean colour, not black; masks move with
their images, by the nearest pixel.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array, UserError
from fnas_jax.tasks import data
from fnas_jax.tasks.data import Dataset
from fnas_jax.training.config import Recipe
from fnas_jax.training.minibatches import IGNORE, Augment

MOST = 30  # the largest magnitude
_ROTATE, _SHEAR, _TRANSLATE = np.deg2rad(30), 0.3, 150 / 331  # at most; the last of a side
_COLOUR = 0.9  # most that brightness, contrast and saturation change
OPERATIONS = (
    "identity",
    "rotate",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "brightness",
    "contrast",
    "solarize",
    "saturation",  # of images with three channels only
)
_FIRST_COLOUR = OPERATIONS.index("brightness")


class Pixels(NamedTuple):
    """How normalised images become numbers in [0, 1], and back."""

    scale: np.ndarray  # [C]; (normalised - offset) * scale
    offset: np.ndarray  # [C]


def check(recipe: Recipe) -> None:
    """Raises UserError for a policy whose package is missing, or numbers of one that is off."""
    if recipe.policy == "none":
        plain = Recipe()
        for name in ("policy_layers", "policy_magnitude"):
            if getattr(recipe, name) != getattr(plain, name):
                raise UserError(
                    f"winner.{name} is {getattr(recipe, name)} beside winner.policy=none, which"
                    " does not read it; winner.policy=randaugment does"
                )
    elif importlib.util.find_spec("dm_pix") is None:
        raise UserError(
            f"winner.policy is {recipe.policy!r}, which needs dm-pix: pip install fnas-jax[augment]"
        )


def make(recipe: Recipe, dataset: Dataset) -> Augment | None:
    """The policy of `recipe`; None: there is none.

    Raises UserError as `check` does.
    """
    check(recipe)
    if recipe.policy == "none":
        return None
    return functools.partial(
        apply, pixels_of(dataset), recipe.policy_layers, recipe.policy_magnitude / MOST
    )


def pixels_of(dataset: Dataset) -> Pixels:
    """Of 0 to 255 where images are uint8, else of the smallest to the largest training pixel."""
    low, high = data.pixel_range(dataset.train_images, dataset.val_images)
    scale = dataset.std / max(high - low, 1e-6)
    return Pixels(scale, (low - dataset.mean) / dataset.std)


def apply(
    pixels: Pixels,
    layers: int,
    strength: float,
    key: Array,
    images: Array,
    masks: Array | None = None,
) -> tuple[Array, Array | None]:
    """`layers` operations on each of the normalised images [B, H, W, C], drawn anew for each.

    `strength` in [0, 1]: how much of its range an operation uses, in a random direction. Masks
    [B, H, W] are moved alike; None stays None.
    """
    known = len(OPERATIONS) if images.shape[-1] == 3 else OPERATIONS.index("saturation")
    for own in jax.random.split(key, layers):
        key_op, key_sign = jax.random.split(own)
        chosen = jax.random.randint(key_op, images.shape[:1], 0, known)
        signed = strength * jax.random.rademacher(key_sign, images.shape[:1], images.dtype)
        images = jax.vmap(functools.partial(operate, pixels))(chosen, signed, images)
        masks = None if masks is None else jax.vmap(move_mask)(chosen, signed, masks)
    return images, masks


def operate(pixels: Pixels, chosen: Array, signed: Array, image: Array) -> Array:
    """Operation number `chosen` [] of OPERATIONS on one normalised image [H, W, C].

    `signed` [] in [-1, 1]. Under `vmap` every image would run all branches of a switch: all moves
    are therefore one interpolation by another matrix, and changes of colour cost little.
    """
    pix = _library()
    matrix, offset = affine(chosen, signed, image.shape)
    # Positions in fewer bits than float32, as accelerators multiply by default, would be others.
    with jax.default_matmul_precision("highest"):
        moved = pix.affine_transform(image, matrix, offset=offset, mode="constant", cval=0.0)
    shown = (image - pixels.offset) * pixels.scale
    changed = [
        pix.adjust_brightness(shown, _COLOUR * signed),
        pix.adjust_contrast(shown, 1 + _COLOUR * signed),
        pix.solarize(shown, 1 - jnp.abs(signed)),
    ]
    if image.shape[-1] == 3:
        changed.append(pix.adjust_saturation(shown, 1 + _COLOUR * signed))
    which = jnp.clip(chosen - _FIRST_COLOUR, 0, len(changed) - 1)
    coloured = jnp.clip(jax.lax.select_n(which, *changed), 0, 1) / pixels.scale + pixels.offset
    return jnp.where(chosen < _FIRST_COLOUR, moved, coloured).astype(image.dtype)


def move_mask(chosen: Array, signed: Array, mask: Array) -> Array:
    """The mask [H, W] of an image after operation `chosen` []; `IGNORE` where no pixel was.

    `signed` [] as of `operate`. Of the same dtype, which holds `IGNORE`.
    """
    image = mask.astype(jnp.float32)[..., None]
    matrix, offset = affine(chosen, signed, image.shape)
    with jax.default_matmul_precision("highest"):
        moved = _library().affine_transform(
            image, matrix, offset=offset, order=0, mode="constant", cval=IGNORE
        )
    return moved[..., 0].astype(mask.dtype)


def affine(chosen: Array, signed: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """(matrix [3, 3], offset [3]): where the pixels of an [H, W, C] image come from, by operation.

    Position in the old image = matrix @ (row, column, channel) + offset; turned and sheared around
    the centre, unmoved by operations on colours.
    """

    def of(name: str, most: float) -> Array:
        return jnp.where(chosen == OPERATIONS.index(name), signed * most, 0.0)

    height, width = shape[:2]
    angle = of("rotate", _ROTATE)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    rows = jnp.stack([cos, of("shear_y", _SHEAR) - sin])
    columns = jnp.stack([of("shear_x", _SHEAR) + sin, cos])
    matrix = jnp.eye(3).at[0, :2].set(rows).at[1, :2].set(columns)
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2, 0.0])
    shift = jnp.stack(
        [of("translate_y", _TRANSLATE * height), of("translate_x", _TRANSLATE * width), 0.0 * angle]
    )
    with jax.default_matmul_precision("highest"):
        return matrix, centre - matrix @ centre + shift


def _library() -> Any:
    """dm-pix, which only this policy needs."""
    return importlib.import_module("dm_pix")
