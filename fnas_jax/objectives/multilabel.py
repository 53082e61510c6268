"""Which of L labels an image has, each by itself: sigmoid and binary cross-entropy.

The loss of an image is the sum over its labels, so that it is the likelihood of all of them, in
nats, where they are independent given the image. A label is answered where its probability is
above 1/2. Evaluation keeps all outputs, because average precision ranks the images:

    AP_l = mean over images with label l of (images with l that score no less) / (images that do)
    mAP = mean of AP_l over labels that some image has

which is scikit-learn's `average_precision_score`, also for equal scores. Of F1, labels that no
image has and none is answered with are left out, as by its `zero_division=nan`.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fnas_jax.core.measure import Measure
from fnas_jax.core.types import Array, UserError
from fnas_jax.objectives import base
from fnas_jax.objectives.base import Known, Objective

NAME = "multilabel"
METRICS = {
    "mAP": Measure("mAP"),
    "micro_f1": Measure("micro_f1"),
    "macro_f1": Measure("macro_f1"),
    "loss": Measure("loss", "minimize", "error"),
}


class Answers(NamedTuple):
    """Of all images, of which those to come are zeros."""

    outputs: Array  # [total, L] float32 logits
    targets: Array  # [total, L] bool
    loss: Array  # [] float32 nats, the sum over images so far


def study(targets: np.ndarray, outputs: int, balanced: bool) -> Known:
    """What is known of labels [n, L] of 0 and 1.

    The trivial answer is the share of each label. Balanced weights are scikit-learn's of the two
    classes "without" and "with" of each label, [L, 2]; of one that does not occur it is 0. Raises
    UserError where no label tells images apart: each is there in all of them, or in none.
    """
    if not targets.any():
        raise UserError("no training image has any label, so task.objective=multilabel has no aim")
    share = np.asarray(targets, np.float64).mean(0)
    if not ((share > 0) & (share < 1)).any():
        raise UserError(
            "each label is there in all training images or in none, so task.objective=multilabel"
            " has nothing to learn"
        )
    both = np.stack([1 - share, share], -1)  # [L, 2]
    nats = -(both * np.log(np.where(both > 0, both, 1))).sum()
    weights: tuple[tuple[float, ...], ...] = ()
    if balanced:
        occurs = (both > 0).sum(-1, keepdims=True)
        each = np.where(both > 0, 1 / (occurs * np.where(both > 0, both, 1)), 0)
        weights = tuple(tuple(map(float, row)) for row in each)
    return Known(outputs, {"loss": float(nats)}, weights=weights)


def unjudged(targets: np.ndarray, metric: str) -> str:
    """Of labels [n, L]: where none occurs, mAP and F1 have nothing to find."""
    return "" if metric == "loss" or targets.any() else "no label is there in any"


def make(known: Known, metric: str) -> Objective:
    """The objective by one of METRICS."""
    return Objective(
        name=NAME,
        dense=False,
        measure=base.measure(METRICS, known, metric),
        known=known,
        loss=functools.partial(loss, known),
        errors=errors,
        empty=functools.partial(empty, known.outputs),
        collect=collect,
        figures=figures,
        table=table,
        answer=answer,
        undo=undo,
        source="(outputs > 0).astype(jnp.int32), jax.nn.sigmoid(outputs)",
        pair=("present", "probabilities"),
        shapes=(f"[N, {known.outputs}]",) * 2,
        mixes=("mixup", "cutmix"),
        smooths=True,
    )


def loss(known: Known, outputs: Array, targets: Array, smoothing: float) -> Array:
    """[] mean over images of the nats of logits [B, L] with labels [B, L] of 0 and 1.

    Smoothing moves both towards 1/2. With weights, each label counts by whether it is there.
    """
    wanted = targets * (1 - smoothing) + smoothing / 2
    nats = optax.sigmoid_binary_cross_entropy(outputs, wanted)
    if known.weights:
        without, there = jnp.asarray(known.weights, jnp.float32).T
        nats = nats * jnp.where(targets > 0, there, without)
    return nats.sum(-1).mean()


def errors(outputs: Array, targets: Array) -> Array:
    """[B] nats of logits [B, L] with labels [B, L]: the sum over labels."""
    return optax.sigmoid_binary_cross_entropy(outputs, targets.astype(outputs.dtype)).sum(-1)


def empty(labels: int, total: int) -> Answers:
    """Before the first of `total` images."""
    zeros = jnp.zeros((total, labels))
    return Answers(zeros, zeros > 0, jnp.float32(0))


def collect(state: Answers, outputs: Array, targets: Array, rows: Array, counted: Array) -> Answers:
    """With B images more: logits [B, L], labels [B, L]."""
    rows = jnp.where(counted, rows, len(state.outputs))  # padding falls outside: dropped
    nats = jnp.where(counted, errors(outputs, targets), 0.0).sum()
    return Answers(
        state.outputs.at[rows].set(outputs.astype(jnp.float32), mode="drop"),
        state.targets.at[rows].set(targets > 0, mode="drop"),
        state.loss + nats,
    )


def figures(state: Answers) -> dict[str, Array]:
    """As `Objective.figures`."""
    each, (right, asked, answered) = table(state), _counts(state)
    return {
        "mAP": base.mean(each["average_precision"], asked > 0),
        "micro_f1": 2 * right.sum() / jnp.maximum((asked + answered).sum(), 1),
        "macro_f1": base.mean(each["f1"], asked + answered > 0),
        "loss": state.loss / len(state.outputs),
    }


def table(state: Answers) -> dict[str, Array]:
    """{column: [L]}; 0 where there is nothing to divide by."""
    right, asked, answered = _counts(state)
    precisions = jax.vmap(average_precision, (1, 1))(state.outputs, state.targets)
    return {
        "images": asked.astype(jnp.float32),
        "precision": right / jnp.maximum(answered, 1),
        "recall": right / jnp.maximum(asked, 1),
        "f1": 2 * right / jnp.maximum(asked + answered, 1),
        "average_precision": precisions,
    }


def average_precision(scores: Array, there: Array) -> Array:
    """[] of scores [n] and whether each image has the label [n] bool; 0 where none has."""
    order = jnp.argsort(-scores)
    falling, hits = -scores[order], jnp.cumsum(there[order])
    # How many images score no less than each: equal scores are one step of the curve.
    no_less = jnp.searchsorted(falling, falling, side="right")
    precision = hits[no_less - 1] / no_less
    return jnp.where(there[order], precision, 0.0).sum() / jnp.maximum(hits[-1], 1)


def _counts(state: Answers) -> tuple[Array, Array, Array]:
    """[L] int32 each: images with the label that are answered so, that have it, that are answered.

    All of int32, of which a set of images has no more than fit.
    """
    answered = state.outputs > 0
    columns = (state.targets & answered, state.targets, answered)
    right, asked, said = (x.sum(0, dtype=jnp.int32) for x in columns)
    return right, asked, said


def answer(outputs: Array) -> tuple[Array, Array]:
    """(whether each label is there [B, L] int32 0 or 1, probabilities [B, L]) of logits [B, L]."""
    return (outputs > 0).astype(jnp.int32), jax.nn.sigmoid(outputs)


def undo(probabilities: Array) -> Array:
    """[B, L] logits of probabilities [B, L]; of 0 and 1 as far as float32 tells them apart."""
    return base.logarithm(probabilities) - base.logarithm(1 - probabilities)
