"""Numbers that describe an image, for the data-set encoder: nothing is downloaded, nothing learnt.

`random_conv`: two convolutions with fixed random weights, pooled. `pixels`: the image at 8 x 8,
standardised by pixel. A pretrained network of the user's own may take their place: any function
from images [n, H, W, 3] in [0, 1] to [n, F].
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array
from fnas_jax.methods.tnas.set_encoder import Sample

Extractor = Callable[[Array], Array]  # [n, H, W, 3] float32 in [0, 1] -> [n, F]
SIDE, CHANNELS = 16, (16, 32)  # of the images before and the maps within random_conv


def random_conv(images: Array) -> Array:
    """[n, H, W, 3] -> [n, 128]: random 3x3 convolutions of stride 2, ReLU, 2 x 2 mean pooling."""
    x = jax.image.resize(images, (len(images), SIDE, SIDE, 3), "linear") - 0.5
    key, inputs = jax.random.key(0), 3
    for outputs in CHANNELS:
        key, key_layer = jax.random.split(key)
        kernel = jax.random.normal(key_layer, (3, 3, inputs, outputs)) * (2 / (9 * inputs)) ** 0.5
        x = jax.lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x, inputs = jax.nn.relu(x), outputs
    side = SIDE // 2 ** (len(CHANNELS) + 1)
    pooled = x.reshape(len(x), 2, side, 2, side, inputs).mean(axis=(2, 4))
    return pooled.reshape(len(x), -1)


def pixels(images: Array) -> Array:
    """[n, H, W, 3] -> [n, 64]: grey values at 8 x 8, of mean 0 and variance 1 over each image set.

    The set is standardised as one: single pixels keep their differences of contrast.
    """
    grey = jax.image.resize(images.mean(axis=-1), (len(images), 8, 8), "linear")
    flat = grey.reshape(len(images), -1)
    return (flat - flat.mean()) / (flat.std() + 1e-6)


EXTRACTORS: dict[str, Extractor] = {"random_conv": random_conv, "pixels": pixels}


def sample(images: list[np.ndarray], extract: Extractor, images_per_class: int) -> Sample:
    """Features of Q data sets, each [C, n, H, W, 1 or 3] float32 in [0, 1], padded to one shape.

    The first `images_per_class` images of a class are used. Data sets are told apart by features
    that are standardised over all of them.
    """
    found = []
    for one in images:
        some = jnp.asarray(one[:, :images_per_class])
        flat = some.reshape(-1, *some.shape[2:])
        flat = jnp.broadcast_to(flat, (*flat.shape[:-1], 3))
        found.append(np.asarray(extract(flat)).reshape(*some.shape[:2], -1))
    classes, count = (max(f.shape[axis] for f in found) for axis in (0, 1))
    shape = (len(found), classes, count)
    values, mask = np.zeros((*shape, found[0].shape[-1]), np.float32), np.zeros(shape, bool)
    for q, f in enumerate(found):
        values[q, : f.shape[0], : f.shape[1]] = f
        mask[q, : f.shape[0], : f.shape[1]] = True
    mean, std = values[mask].mean(axis=0), values[mask].std(axis=0) + 1e-3
    values = np.where(mask[..., None], (values - mean) / std, 0.0)
    return Sample(jnp.asarray(values, jnp.float32), jnp.asarray(mask))
