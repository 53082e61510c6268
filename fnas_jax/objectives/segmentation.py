"""One class of C for each pixel: softmax and cross-entropy; masks [B, H, W] of class numbers.

Pixels of the class `IGNORE` (255, as in PASCAL VOC's annotations) count for nothing: neither in
losses nor in metrics. What evaluation keeps are counts of the other pixels of all images together,
by class: TP_c pixels of class c that are answered c, T_c pixels of it, A_c answers c.

    IoU_c = TP_c / (T_c + A_c - TP_c)       (Jaccard index)
    mean IoU = mean of IoU_c over classes that have pixels or are answered
    pixel accuracy = sum_c TP_c / n
    precision_c = TP_c / A_c                recall_c = TP_c / T_c

(Everingham et al., The PASCAL VOC Challenge, IJCV 2010; Long et al., 2015, arXiv 1411.4038.)
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fnas_jax.core.measure import Measure
from fnas_jax.core.types import IGNORE, Array, UserError
from fnas_jax.objectives import base
from fnas_jax.objectives.base import Known, Objective

NAME = "segmentation"
METRICS = {
    "mean_iou": Measure("mean_iou"),
    "pixel_accuracy": Measure("pixel_accuracy"),
    "loss": Measure("loss", "minimize", "error"),
}
_LOW = 1 << 20


class Total(NamedTuple):
    """A number of pixels, `high` x 2^20 + `low`: more than an int32 holds."""

    high: Array  # int32
    low: Array  # int32 in 0..2^20-1


class Counts(NamedTuple):
    """Of the images so far; C classes."""

    right: Total  # [C] pixels of this class, and answered so
    asked: Total  # [C] pixels of this class
    answered: Total  # [C] pixels answered with this class
    loss: Array  # [] float32 nats, the sum over pixels


def study(targets: np.ndarray, outputs: int, balanced: bool) -> Known:
    """What is known of masks [n, H, W] of `outputs` classes.

    `base.of_counts` of the pixels that count. Raises UserError where fewer than two classes have
    any.
    """
    # One image at a time: the count of all would make them int64 first.
    counts = np.zeros(256, np.float64)
    for mask in targets:
        counts += np.bincount(mask.ravel(), minlength=256)
    counts = counts[:outputs]
    present = np.flatnonzero(counts)
    if len(present) < 2:
        found = f"only class {present[0]}" if len(present) else "no class"
        raise UserError(
            f"the training masks have pixels of {found}, beside those of {IGNORE}, which count for"
            " nothing: task.objective=segmentation needs two classes"
        )
    return base.of_counts(counts, balanced)


def unjudged(targets: np.ndarray, metric: str) -> str:
    """Of masks [n, H, W]: where no pixel counts, no metric has anything to count."""
    # One mask at a time, as `study`: of large sets they are not all in memory.
    return "" if any((mask != IGNORE).any() for mask in targets) else "no pixel has a class in any"


def make(known: Known, metric: str) -> Objective:
    """The objective by one of METRICS."""
    return Objective(
        name=NAME,
        dense=True,
        measure=base.measure(METRICS, known, metric),
        known=known,
        loss=functools.partial(loss, known),
        errors=errors,
        empty=functools.partial(empty, known.outputs),
        collect=collect,
        figures=figures,
        table=table,
        answer=answer,
        undo=base.logarithm,
        source="outputs.argmax(-1).astype(jnp.int32), jax.nn.softmax(outputs)",
        pair=("masks", "probabilities"),
        shapes=("[N, H, W]", f"[N, H, W, {known.outputs}]"),
        mixes=("mixup", "cutmix"),
        smooths=True,
    )


def loss(known: Known, outputs: Array, targets: Array, smoothing: float) -> Array:
    """[] mean cross-entropy in nats, of the pixels that count, of logits [B, H, W, C].

    Masks [B, H, W] have the weight 1 - `smoothing`, and the rest is shared by all classes. With
    weights of classes, each pixel counts by its own.
    """
    labels, counted = _known(targets)
    wanted = optax.smooth_labels(jax.nn.one_hot(labels, outputs.shape[-1]), smoothing)
    nats = optax.softmax_cross_entropy(outputs, wanted)
    if known.weights:
        nats = nats * jnp.asarray(known.weights, jnp.float32)[labels]
    return jnp.where(counted, nats, 0.0).sum() / jnp.maximum(counted.sum(), 1)


def errors(outputs: Array, targets: Array) -> Array:
    """[B] mean cross-entropy in nats of the pixels that count of each image; 0 where none does."""
    nats, counted = _nats(outputs, targets)
    return nats.sum((1, 2)) / jnp.maximum(counted.sum((1, 2)), 1)


def _nats(outputs: Array, targets: Array) -> tuple[Array, Array]:
    """([B, H, W] cross-entropy in nats, 0 of pixels that do not count; whether each counts)."""
    labels, counted = _known(targets)
    nats = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
    return jnp.where(counted, nats, 0.0), counted


def _known(targets: Array) -> tuple[Array, Array]:
    """(int32 classes [B, H, W], 0 of pixels that do not count; whether each counts)."""
    counted = targets != IGNORE
    return jnp.where(counted, targets, 0).astype(jnp.int32), counted


def empty(classes: int, total: int) -> Counts:
    """Before the first image, however many there are."""
    none = jnp.zeros(classes, jnp.int32)
    nothing = Total(none, none)
    return Counts(nothing, nothing, nothing, jnp.float32(0))


def collect(state: Counts, outputs: Array, targets: Array, rows: Array, counted: Array) -> Counts:
    """With B images more: logits [B, H, W, C], masks [B, H, W]."""
    targets = jnp.where(counted[:, None, None], targets, IGNORE)
    nats, counts = _nats(outputs, targets)
    classes = jnp.arange(outputs.shape[-1])
    # Compared and summed, which is many times as fast on CPUs as to scatter pixels into counts.
    is_class = targets[..., None] == classes
    is_answer = (outputs.argmax(-1)[..., None] == classes) & counts[..., None]

    def more(total: Total, pixels: Array) -> Total:
        low = total.low + pixels.sum((0, 1, 2), dtype=jnp.int32)
        return Total(total.high + low // _LOW, low % _LOW)

    return Counts(
        right=more(state.right, is_class & is_answer),
        asked=more(state.asked, is_class),
        answered=more(state.answered, is_answer),
        loss=state.loss + nats.sum(),
    )


def _number(total: Total) -> Array:
    """[C] float32, of which seven digits are right."""
    return total.high.astype(jnp.float32) * _LOW + total.low.astype(jnp.float32)


def figures(state: Counts) -> dict[str, Array]:
    """As `Objective.figures`."""
    right, asked, answered = map(_number, state[:3])
    pixels, occurs = jnp.maximum(asked.sum(), 1), asked + answered > 0
    return {
        "mean_iou": base.mean(table(state)["iou"], occurs),
        "pixel_accuracy": right.sum() / pixels,
        "loss": state.loss / pixels,
    }


def table(state: Counts) -> dict[str, Array]:
    """{column: [C]}; 0 where there is nothing to divide by."""
    right, asked, answered = map(_number, state[:3])
    return {
        "pixels": asked,
        "iou": right / jnp.maximum(asked + answered - right, 1),
        "precision": right / jnp.maximum(answered, 1),
        "recall": right / jnp.maximum(asked, 1),
    }


def answer(outputs: Array) -> tuple[Array, Array]:
    """(masks [B, H, W] int32, probabilities [B, H, W, C]) of logits [B, H, W, C]."""
    return outputs.argmax(-1).astype(jnp.int32), jax.nn.softmax(outputs)
