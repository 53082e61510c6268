"""What every contestant trains: architectures, images, and how."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fnas_jax.networks import cost
from fnas_jax.spaces import mnas, mobilenetv3
from fnas_jax.spaces.base import Space
from fnas_jax.tasks import data
from fnas_jax.training.config import Children

CLASSES = 10
SIDE = 32
CHANNELS = 3
BATCH = 64
EVAL_BATCH = 250
CHILDREN = Children()  # the defaults of the training
LR, MOMENTUM, WARMUP = CHILDREN.lr, CHILDREN.momentum, CHILDREN.warmup
DECAY, CLIP = CHILDREN.weight_decay, CHILDREN.max_grad_norm


class Images(NamedTuple):
    """Normalised images [n, 32, 32, 3] float32 and labels [n] int32."""

    train_images: np.ndarray
    train_labels: np.ndarray
    eval_images: np.ndarray
    eval_labels: np.ndarray


class Answer(NamedTuple):
    """What a contestant says of the children it was given."""

    seconds: float  # with compilation, without imports
    compile_s: float  # of that; NaN where it cannot be told
    accuracy: list[float]  # of each child on the evaluation images
    step_ms: list[float]  # of each child, without compilation; of ours their common mean


MNAS = "mnas_small"  # four blocks of 16, 24, 32 and 64 channels, for 32x32 pixels
MOBILENETV3 = "mobilenetv3_small"  # its first four stages, of 16, 24, 40 and 56 channels, for these
SPACES = {
    MNAS: lambda: mnas.make(blocks=4, strides=(1, 2, 2, 2), stem=16, stem_stride=1, head=128),
    MOBILENETV3: lambda: mobilenetv3.make(stages=4, width=0.5, strides=(1, 2, 2, 2), stem_stride=1),
}


def space(name: str) -> Space:
    """One of SPACES."""
    return SPACES[name]()


def mflops(name: str, archs: np.ndarray) -> np.ndarray:
    """[N] millions of multiply-adds of archs [N, T] of a space of SPACES."""
    macs = cost.cost(space(name), (SIDE, SIDE, CHANNELS), CLASSES)(jnp.asarray(archs))[1]
    return np.asarray(macs) / 1e6


def images() -> Images:
    """The 5,000 bundled MNIST digits, enlarged to 32x32 and three equal channels."""
    digits = data.load("mnist5k", image_size=SIDE)

    def normalised(part: np.ndarray) -> np.ndarray:
        scaled = (part.astype(np.float32) - digits.mean) / digits.std
        return np.repeat(scaled, CHANNELS, axis=-1)

    return Images(
        normalised(digits.train_images),
        digits.train_labels,
        normalised(digits.val_images),
        digits.val_labels,
    )


def rate(step: int, steps: int) -> float:
    """Learning rate of a step, as `training.optimizer.learning_rate` has it."""
    warm = max(WARMUP * steps, 1.0)
    progress = min(max((step - warm) / max(steps - warm, 1.0), 0.0), 1.0)
    return float(LR * min((step + 1) / warm, 0.5 * (1 + np.cos(np.pi * progress))))


def batches(count: int, steps: int, seed: int) -> Any:
    """Rows [64] of each step, without replacement within an epoch."""
    rng = np.random.default_rng(seed)
    order: list[int] = []
    for _ in range(steps):
        if len(order) < BATCH:
            order = rng.permutation(count).tolist()
        rows, order = order[:BATCH], order[BATCH:]
        yield np.asarray(rows)
