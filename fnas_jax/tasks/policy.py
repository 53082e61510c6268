"""RandAugment: a few random operations on every image, of one magnitude.

Cubuk et al., *RandAugment: Practical automated data augmentation with a reduced search space*,
2019, arXiv 1909.13719; magnitudes 0 to 30 and ranges as torchvision has them. The operations are
those of dm-pix, on JAX arrays and under `jit`. It lacks four of the paper's (equalize,
auto-contrast, posterize, sharpness), which are left out, and it adds brightness where the paper
multiplies by it. What an image is moved away from gets its mean colour, not black; masks move with
their images, by the nearest pixel. Values do not move with theirs (the place of something would be
wrong), so that images with values get no operation that moves.
"""

from __future__ import annotations

import functools

import dm_pix as pix
import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import IGNORE, Array, UserError
from fnas_jax.objectives import regression
from fnas_jax.tasks import colour
from fnas_jax.tasks.colour import Pixels
from fnas_jax.tasks.data import Dataset
from fnas_jax.training.config import Recipe
from fnas_jax.training.minibatches import Augment

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


def check(recipe: Recipe) -> None:
    """Raises UserError for numbers of a policy that is off."""
    if recipe.policy == "none":
        plain = Recipe()
        for name in ("policy_layers", "policy_magnitude"):
            if getattr(recipe, name) != getattr(plain, name):
                raise UserError(
                    f"winner.{name} is {getattr(recipe, name)} beside winner.policy=none, which"
                    " does not read it; winner.policy=randaugment does"
                )


def make(recipe: Recipe, dataset: Dataset) -> Augment | None:
    """The policy of `recipe`; None: there is none.

    Raises UserError as `check` does.
    """
    check(recipe)
    if recipe.policy == "none":
        return None
    return of(recipe.policy_layers, recipe.policy_magnitude, dataset)


def of(layers: int, magnitude: int, dataset: Dataset) -> Augment:
    """`layers` operations on each image, of a magnitude of 1 to `MOST`."""
    pixels, strength = colour.pixels_of(dataset), magnitude / MOST
    return functools.partial(apply, pixels, layers, strength, moving=moves(dataset))


def moves(dataset: Dataset) -> bool:
    """Whether the images may be moved: what they are learnt by stays true, or moves alike."""
    return dataset.objective != regression.NAME


def apply(
    pixels: Pixels,
    layers: int,
    strength: float,
    key: Array,
    images: Array,
    masks: Array | None = None,
    moving: bool = True,
) -> tuple[Array, Array | None]:
    """`layers` operations on each of the normalised images [B, H, W, C], drawn anew for each.

    `strength` in [0, 1]: how much of its range an operation uses, in a random direction. Masks
    [B, H, W] are moved alike; None stays None. `moving` False: none of those that move images.
    """
    known = len(OPERATIONS) if images.shape[-1] == 3 else OPERATIONS.index("saturation")
    numbers = np.arange(known)
    if not moving:
        numbers = numbers[(numbers == 0) | (numbers >= _FIRST_COLOUR)]
    for own in jax.random.split(key, layers):
        key_op, key_sign = jax.random.split(own)
        drawn = jax.random.randint(key_op, images.shape[:1], 0, len(numbers))
        chosen = jnp.asarray(numbers)[drawn]
        signed = strength * jax.random.rademacher(key_sign, images.shape[:1], images.dtype)
        images = jax.vmap(functools.partial(operate, pixels))(chosen, signed, images)
        masks = None if masks is None else jax.vmap(move_mask)(chosen, signed, masks)
    return images, masks


def operate(pixels: Pixels, chosen: Array, signed: Array, image: Array) -> Array:
    """Operation number `chosen` [] of OPERATIONS on one normalised image [H, W, C].

    `signed` [] in [-1, 1]. Under `vmap` every image would run all branches of a switch: all moves
    are therefore one interpolation by another matrix, and changes of colour cost little.
    """
    where = positions(chosen, signed, image.shape[0], image.shape[1])
    # Not `pix.affine_transform`, which interpolates between channels, too: several times slower.
    moved = jax.vmap(pix.flat_nd_linear_interpolate_constant, (-1, None), -1)(image, where)
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
    where = positions(chosen, signed, *mask.shape)
    return jax.scipy.ndimage.map_coordinates(
        mask, list(where), order=0, mode="constant", cval=IGNORE
    )


def positions(chosen: Array, signed: Array, height: int, width: int) -> Array:
    """[2, H, W] rows and columns of an image where its new pixels come from, by operation.

    Turned and sheared around the centre, unmoved by operations on colours.
    """

    def of(name: str, most: float) -> Array:
        return jnp.where(chosen == OPERATIONS.index(name), signed * most, 0.0)

    angle = of("rotate", _ROTATE)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    middle_row, middle_column = (height - 1) / 2, (width - 1) / 2
    row = jnp.arange(height)[:, None] - middle_row
    column = jnp.arange(width)[None, :] - middle_column
    rows = cos * row + (of("shear_y", _SHEAR) - sin) * column
    columns = (of("shear_x", _SHEAR) + sin) * row + cos * column
    rows += middle_row + of("translate_y", _TRANSLATE * height)
    columns += middle_column + of("translate_x", _TRANSLATE * width)
    return jnp.stack([rows, columns])
