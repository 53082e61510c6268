"""One class of C for each image: softmax and cross-entropy.

What evaluation keeps are counts by class, of which every metric but `top5` and `loss` is a
function: TP_c images of class c that are answered c, T_c images of it, A_c answers c.

    accuracy = sum_c TP_c / n                       recall_c = TP_c / T_c
    balanced accuracy = mean of recall_c over classes with images
    precision_c = TP_c / A_c                        F1_c = 2 TP_c / (T_c + A_c)
    macro F1 = mean of F1_c over classes that have images or are answered

These are scikit-learn's definitions of the same names.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fnas_jax.core.measure import Measure
from fnas_jax.core.types import Array
from fnas_jax.objectives import base
from fnas_jax.objectives.base import Known, Objective

NAME = "classification"
METRICS = {
    "accuracy": Measure(),
    "balanced_accuracy": Measure("balanced_accuracy"),
    "macro_f1": Measure("macro_f1"),
    "top5": Measure("top5"),
    "loss": Measure("loss", "minimize", "error"),
}
LEAST = {"top5": 6}  # of five classes every image is among the five


class Counts(NamedTuple):
    """Of the images so far; C classes."""

    right: Array  # [C] int32 of this class, and answered so
    asked: Array  # [C] int32 of this class
    answered: Array  # [C] int32 answered with this class
    top5: Array  # [] int32 whose class is among the five of the highest outputs
    loss: Array  # [] float32 nats, the sum over images
    total: Array  # [] int32 images in all


def study(targets: np.ndarray, outputs: int, balanced: bool) -> Known:
    """What is known of labels [n] of `outputs` classes: `base.of_counts` of images."""
    return base.of_counts(np.bincount(targets, minlength=outputs), balanced)


def unjudged(targets: np.ndarray, metric: str) -> str:
    """Of labels [n], whatever they are: nothing is the same of all networks."""
    return ""


def make(known: Known, metric: str) -> Objective:
    """The objective by one of METRICS."""
    return Objective(
        name=NAME,
        dense=False,
        measure=base.measure(METRICS, known, metric),
        known=known,
        loss=functools.partial(loss, known),
        errors=optax.softmax_cross_entropy_with_integer_labels,
        empty=functools.partial(empty, known.outputs),
        collect=collect,
        figures=figures,
        table=table,
        answer=answer,
        undo=base.logarithm,
        source="outputs.argmax(-1).astype(jnp.int32), jax.nn.softmax(outputs)",
        pair=("labels", "probabilities"),
        shapes=("[N]", f"[N, {known.outputs}]"),
        mixes=("mixup", "cutmix"),
        smooths=True,
        shares=("accuracy", "top5"),
    )


def loss(known: Known, outputs: Array, targets: Array, smoothing: float) -> Array:
    """[] mean cross-entropy in nats of logits [B, C] with labels [B] of weight 1 - `smoothing`.

    The rest is shared by all classes. With weights of classes, each image counts by its own.
    """
    wanted = optax.smooth_labels(jax.nn.one_hot(targets, outputs.shape[-1]), smoothing)
    nats = optax.softmax_cross_entropy(outputs, wanted)
    if known.weights:
        nats = nats * jnp.asarray(known.weights, jnp.float32)[targets]
    return nats.mean()


def empty(classes: int, total: int) -> Counts:
    """Before the first of `total` images."""
    none = jnp.zeros(classes, jnp.int32)
    return Counts(none, none, none, jnp.int32(0), jnp.float32(0), jnp.int32(total))


def collect(state: Counts, outputs: Array, targets: Array, rows: Array, counted: Array) -> Counts:
    """With B images more: logits [B, C], labels [B]."""
    one = counted.astype(jnp.int32)
    answers = outputs.argmax(-1)
    nats = optax.softmax_cross_entropy_with_integer_labels(outputs, targets)
    return Counts(
        right=state.right.at[targets].add(one * (answers == targets)),
        asked=state.asked.at[targets].add(one),
        answered=state.answered.at[answers].add(one),
        top5=state.top5 + (counted & (rank(outputs, targets) < 5)).sum(),
        loss=state.loss + jnp.where(counted, nats, 0.0).sum(),
        total=state.total,
    )


def rank(outputs: Array, targets: Array) -> Array:
    """[B] int32 classes that come before the right one; of equal outputs, the lower ones do."""
    own = jnp.take_along_axis(outputs, targets[:, None], axis=1)
    before = jnp.arange(outputs.shape[1]) < targets[:, None]
    return ((outputs > own) | ((outputs == own) & before)).sum(1)


def figures(state: Counts) -> dict[str, Array]:
    """As `Objective.figures`."""
    each = table(state)
    occurs, used = state.asked > 0, state.asked + state.answered > 0
    return {
        "accuracy": state.right.sum() / state.total,
        "balanced_accuracy": base.mean(each["recall"], occurs),
        "macro_f1": base.mean(each["f1"], used),
        "top5": state.top5 / state.total,
        "loss": state.loss / state.total,
    }


def table(state: Counts) -> dict[str, Array]:
    """{column: [C]}; 0 where there is nothing to divide by."""
    return {
        "images": state.asked.astype(jnp.float32),
        "precision": state.right / jnp.maximum(state.answered, 1),
        "recall": state.right / jnp.maximum(state.asked, 1),
        "f1": 2 * state.right / jnp.maximum(state.asked + state.answered, 1),
    }


def answer(outputs: Array) -> tuple[Array, Array]:
    """(labels [B] int32, probabilities [B, C]) of logits [B, C]."""
    return outputs.argmax(-1).astype(jnp.int32), jax.nn.softmax(outputs)


def of(classes: int, metric: str = "accuracy", **changes: Any) -> Objective:
    """The objective of `classes` of which nothing is known but their number.

    As that of networks kept before objectives were written down.
    """
    trivial = {"loss": float(np.log(max(classes, 2)))}
    return make(Known(classes, trivial)._replace(**changes), metric)
