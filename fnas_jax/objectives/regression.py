"""R values of an image: a linear head and the squared error of standardised values.

Networks learn (value - mean) / deviation of the training images, and everything that is reported
but the loss is in the values' own units. The loss of an image is the mean over its values of the
squared error in deviations; as a likelihood, that of normal noise of variance 1/2.

The default metric is R2, because it has no unit: values of several units can be averaged in it,
0 is a trivial answer whatever the data, and so a reward can weigh it with a cost. `mae` and `rmse`
are in the values' units, which makes sense of several values only where these have one unit.

    R2 = mean over values r of 1 - sum_i (y_ir - f_ir)^2 / sum_i (y_ir - mean of y_r)^2

as scikit-learn's `r2_score` with uniform averages: of a value that is constant among the images
that judge, 1 where every answer is exact and else 0.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from fnas_jax.core.measure import Measure
from fnas_jax.core.types import Array, UserError
from fnas_jax.objectives import base
from fnas_jax.objectives.base import Known, Objective

NAME = "regression"
METRICS = {
    "r2": Measure("r2", kind="fit"),
    "mae": Measure("mae", "minimize", "error"),
    "rmse": Measure("rmse", "minimize", "error"),
    "loss": Measure("loss", "minimize", "error"),
}


class Answers(NamedTuple):
    """Of all images, of which those to come are zeros; in deviations."""

    outputs: Array  # [total, R] float32
    targets: Array  # [total, R] float32


def study(targets: np.ndarray, outputs: int, balanced: bool) -> Known:
    """What is known of values [n, R] float: mean and deviation, and how far others are from these.

    The trivial answer is the mean; of `mae`, the median. Raises UserError for weights of classes,
    and for a value that is always the same.
    """
    if balanced:
        raise UserError("task.class_weights is balanced, and task.objective=regression has none")
    exact = np.asarray(targets, np.float64)
    centre, spread = exact.mean(0), exact.std(0)
    same = np.flatnonzero(spread <= 1e-6 * np.maximum(np.abs(centre), 1e-30))
    if len(same):
        raise UserError(
            f"value {same[0]} of the labels is {centre[same[0]]:g} for all training images, so"
            " task.objective=regression has nothing to learn"
        )
    trivial = {
        "mae": float(np.abs(exact - np.median(exact, 0)).mean()),
        "rmse": float(spread.mean()),
        "loss": 1.0,
    }
    return Known(outputs, trivial, tuple(map(float, centre)), tuple(map(float, spread)))


def unjudged(targets: np.ndarray, metric: str) -> str:
    """Of values [n, R]: where all are constant, R2 is 0 but for exact answers."""
    if metric != "r2" or (targets != targets[:1]).any():
        return ""
    return "no value differs from one to another"


def make(known: Known, metric: str) -> Objective:
    """The objective by one of METRICS."""
    return Objective(
        name=NAME,
        dense=False,
        measure=base.measure(METRICS, known, metric),
        known=known,
        loss=functools.partial(loss, known),
        errors=functools.partial(errors, known),
        empty=functools.partial(empty, known.outputs),
        collect=functools.partial(collect, known),
        figures=functools.partial(figures, known),
        table=functools.partial(table, known),
        answer=functools.partial(answer, known),
        undo=functools.partial(standardised, known),
        source=f"(outputs * jnp.asarray({known.spread}) + jnp.asarray({known.centre}),) * 2",
        pair=("values", "scores"),
        shapes=(f"[N, {known.outputs}]",) * 2,
        # The loss of mixed values differs from the mixture of losses by what no output is part of.
        # Not cutmix: a part of an image has no part of its value.
        mixes=("mixup",),
    )


def loss(known: Known, outputs: Array, targets: Array, smoothing: float) -> Array:
    """[] mean squared error of outputs [B, R] with values [B, R], in deviations."""
    return errors(known, outputs, targets).mean()


def errors(known: Known, outputs: Array, targets: Array) -> Array:
    """[B] mean squared error over the values of each image."""
    return ((outputs - standardised(known, targets)) ** 2).mean(-1)


def standardised(known: Known, values: Array) -> Array:
    """[.., R] in the values' units -> in deviations from the mean of the training images."""
    return (values - jnp.asarray(known.centre, jnp.float32)) / _spread(known)


def empty(values: int, total: int) -> Answers:
    """Before the first of `total` images."""
    return Answers(jnp.zeros((total, values)), jnp.zeros((total, values)))


def collect(
    known: Known, state: Answers, outputs: Array, targets: Array, rows: Array, counted: Array
) -> Answers:
    """With B images more: outputs [B, R], values [B, R]."""
    rows = jnp.where(counted, rows, len(state.outputs))  # padding falls outside: dropped
    return Answers(
        state.outputs.at[rows].set(outputs.astype(jnp.float32), mode="drop"),
        state.targets.at[rows].set(standardised(known, targets), mode="drop"),
    )


def figures(known: Known, state: Answers) -> dict[str, Array]:
    """As `Objective.figures`."""
    each = table(known, state)
    loss = ((state.outputs - state.targets) ** 2).mean()
    return {name: each[name].mean() for name in ("r2", "mae", "rmse")} | {"loss": loss}


def table(known: Known, state: Answers) -> dict[str, Array]:
    """{metric: [R]}: each value's own."""
    missed = state.outputs - state.targets
    squared = (missed**2).sum(0)
    around = ((state.targets - state.targets.mean(0)) ** 2).sum(0)
    constant = (state.targets == state.targets[0]).all(0)  # rounding leaves a deviation
    fit = 1 - squared / jnp.where(constant, 1.0, around)
    return {
        "r2": jnp.where(constant, jnp.where(squared == 0, 1.0, 0.0), fit),
        "mae": jnp.abs(missed).mean(0) * _spread(known),
        "rmse": jnp.sqrt((missed**2).mean(0)) * _spread(known),
    }


def answer(known: Known, outputs: Array) -> tuple[Array, Array]:
    """The values [B, R] float32 of outputs [B, R], in their units, as answers and as scores."""
    values = outputs * _spread(known) + jnp.asarray(known.centre, jnp.float32)
    return values, values


def _spread(known: Known) -> Array:
    return jnp.asarray(known.spread, jnp.float32)
