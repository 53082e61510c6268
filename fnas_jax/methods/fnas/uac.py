"""The uncertainty-aware critic: what is predicted, how surely, and how it learns.

Values are scores (Gaussian scores of the rewards' ranks among the trained samples), so one unit is
one standard deviation of what was trained. V and sigma are those of a mixture of Gaussian processes
(`gp_critic.py`) or of networks (`mlp_critic.py`): two modules with the same functions. U is sigma
times a factor that makes |score - V| <= U hold for 68% of the latest trained samples, judged before
they are learnt from.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array, UserError
from fnas_jax.methods import scores as scoring
from fnas_jax.methods.fnas import decision, gp_critic, mlp_critic, replay, transfer
from fnas_jax.methods.fnas.config import Fnas, Uac
from fnas_jax.spaces.base import Space

# What `uac.uncertainty` says: all that is asked of a model are the functions of these modules.
MODELS = {"gp": gp_critic, "ensemble": mlp_critic, "residual": mlp_critic}
LEAST_SIGMA = 1e-2  # scores; keeps ratios of errors finite
STATS = (
    *("mae", "tau", "coverage", "covered", "checked"),
    *("mae_explored", "coverage_explored", "explored", "calibration_explored"),
    *("calibration", "foreign_rows", "agreement"),
)


class Context(NamedTuple):
    """What does not change during a search whose buffer has C places."""

    config: Uac
    capacity: int  # C
    model: ModuleType  # of `MODELS`
    numbers: Any  # its context
    source: transfer.SourceTasks | None


class Explored(NamedTuple):
    """All errors of confident predictions that are known: those of explored samples."""

    calibration: decision.Calibration
    wrong: Array  # [] float32 sum of |reward - predicted reward|
    covered: Array  # [] float32 how many scores lay within U
    checked: Array  # [] float32 of how many


class State(NamedTuple):
    """What the model has learnt, and what is known of its errors."""

    model: Any  # its state
    calibration: decision.Calibration
    explored: Explored


class Prediction(NamedTuple):
    """Of n architectures."""

    score: Array  # [n] float32 V
    sigma: Array  # [n] float32 uncertainty before calibration
    width: Array  # [n] float32 U


class Reading(NamedTuple):
    """What N proposals turned out to be, beside what was predicted of them."""

    prediction: Prediction
    predicted: Array  # [N] float32 reward that was predicted
    score: Array  # [N] float32 of the reward, on the scale of the prediction
    reward: Array  # [N] float32 as measured
    checked: Array  # [N] bool: new, and the prediction counted
    explored: Array  # [N] bool: trained though the critic was sure


def make(
    space: Space,
    config: Uac,
    fnas: Fnas,
    capacity: int,
    source: transfer.SourceTasks | None = None,
) -> Context:
    """The critic of a search whose buffer holds `capacity` samples.

    Raises UserError for an unknown kind of uncertainty, or numbers that do not suit it.
    """
    if config.uncertainty not in MODELS:
        raise UserError(f"uncertainty {config.uncertainty!r} is none of {', '.join(MODELS)}")
    model = MODELS[config.uncertainty]
    numbers = model.context(space, config, fnas, capacity, source)
    return Context(config, capacity, model, numbers, source)


def init(ctx: Context, key: Array) -> State:
    """A critic that has learnt nothing of this task, but what there is of others."""
    return State(ctx.model.init(ctx.numbers, key), decision.uncalibrated(), unexplored())


def source_prediction(ctx: Context, state: State, archs: Array) -> Array:
    """[n] scores of canonical `archs` [n, T] by knowledge of other tasks alone; 0 without."""
    return ctx.model.source_prediction(ctx.numbers, state.model, archs)


def predict(ctx: Context, state: State, archs: Array) -> Prediction:
    """Scores of canonical `archs` [n, T] and how sure the critic is of them."""
    score, sigma = ctx.model.predict(ctx.numbers, state.model, archs)
    sigma = jnp.maximum(sigma, LEAST_SIGMA)
    return Prediction(score, sigma, sigma * decision.factor(state.calibration))


def pick(ctx: Context, state: State, key: Array, archs: Array, new: Array) -> tuple[Array, Array]:
    """Places [v] of the `fnas.verify` of `archs` [m, T] to train, of those `new` [m], and of the
    next elite [ELITE].
    """
    factor = decision.factor(state.calibration)
    return ctx.model.pick(ctx.numbers, state.model, key, archs, new, factor)


def targets(ctx: Context, state: State, buffer: replay.Buffer) -> tuple[Array, scoring.Scale]:
    """Scores [C] of the buffer's samples, and the map between rewards and scores."""
    scores = ctx.model.targets(ctx.numbers, state.model, buffer)
    return scores, scoring.scale(buffer.reward, scores, replay.filled(buffer))


def informative(buffer: replay.Buffer, scores: Array, rows: int) -> Array:
    """[rows] places: half of them the best samples, the rest the newest of the others."""
    mask, capacity = replay.filled(buffer), len(buffer.reward)
    if rows == capacity:
        return jnp.arange(capacity)
    _, best = jax.lax.top_k(jnp.where(mask, scores, -jnp.inf), rows // 2)
    age = (buffer.added - 1 - jnp.arange(capacity)) % capacity
    urgency = jnp.where(mask, -age, -capacity).at[best].set(-2 * capacity)
    _, newest = jax.lax.top_k(urgency, rows - rows // 2)
    return jnp.concatenate([best, newest])


def fit(ctx: Context, state: State, buffer: replay.Buffer) -> State:
    """The state whose model is fitted to the buffer."""
    scores, _ = targets(ctx, state, buffer)
    places = informative(buffer, scores, min(ctx.config.rows, ctx.capacity))
    return state._replace(model=ctx.model.fit(ctx.numbers, state.model, buffer, scores, places))


def reconsider(ctx: Context, state: State, buffer: replay.Buffer) -> tuple[State, Array]:
    """The state that doubts other tasks which rank the own samples wrongly; and Kendall's tau []
    of what they say of these.
    """
    mask = replay.filled(buffer)
    agreement = scoring.kendall(buffer.source_prediction, buffer.reward, mask)
    model = ctx.model.reconsider(ctx.numbers, state.model, agreement, mask.sum())
    return state._replace(model=model), agreement


def unexplored() -> Explored:
    """Before any confident prediction was checked."""
    zero = jnp.float32(0)
    return Explored(decision.uncalibrated(), zero, zero, zero)


def confident_width(state: State, prediction: Prediction) -> Array:
    """[n] float32 U of predictions that stand for a training: by the errors of explored samples."""
    return prediction.sigma * decision.factor(state.explored.calibration)


def explore(state: State, reading: Reading, ratios: Array) -> Explored:
    """What is known of confident predictions, with the explored ones of `reading`; their errors
    in units of sigma are `ratios` [N].
    """
    known, chosen = state.explored, reading.checked & reading.explored
    covered = chosen & (ratios <= decision.factor(known.calibration))
    wrong = jnp.where(chosen, jnp.abs(reading.reward - reading.predicted), 0.0)
    return Explored(
        calibration=decision.recalibrate(known.calibration, ratios, chosen),
        wrong=known.wrong + wrong.sum(),
        covered=known.covered + covered.sum(),
        checked=known.checked + chosen.sum(),
    )


def judge(reading: Reading) -> dict[str, Array]:
    """How good the predictions of the checked proposals were; NaN where none was checked."""
    prediction, checked = reading.prediction, reading.checked
    error = jnp.abs(reading.score - prediction.score)
    covered = checked & (error <= prediction.width)
    count = jnp.maximum(checked.sum(), 1)
    wrong = jnp.abs(reading.reward - reading.predicted)
    mae = jnp.sum(jnp.where(checked, wrong, 0.0)) / count
    tau = scoring.kendall(prediction.score, reading.reward, checked)
    nothing = ~checked.any()
    return {
        "mae": jnp.where(nothing, jnp.nan, mae),
        "tau": jnp.where(checked.sum() < 2, jnp.nan, tau),
        "coverage": jnp.where(nothing, jnp.nan, covered.sum() / count),
        "covered": covered.sum(dtype=jnp.float32),
        "checked": checked.sum(dtype=jnp.float32),
    }


def learn(
    ctx: Context, state: State, buffer: replay.Buffer, reading: Reading
) -> tuple[State, dict[str, Array]]:
    """The state that was calibrated on `reading` and has learnt the buffer, and STATS."""
    ratios = jnp.abs(reading.score - reading.prediction.score) / reading.prediction.sigma
    calibration = decision.recalibrate(state.calibration, ratios, reading.checked)
    explored = explore(state, reading, ratios)
    state, agreement = state._replace(calibration=calibration, explored=explored), jnp.float32(0)
    if ctx.source is not None:
        state, agreement = reconsider(ctx, state, buffer)
    state = fit(ctx, state, buffer)
    rows = 0 if ctx.source is None else ctx.source.rows
    stats = judge(reading) | {
        "mae_explored": explored.wrong / explored.checked,  # NaN before the first
        "coverage_explored": explored.covered / explored.checked,
        "explored": explored.checked,
        "calibration_explored": decision.factor(explored.calibration),
        "calibration": decision.factor(state.calibration),
        "foreign_rows": jnp.float32(rows)
        * (ctx.model.source_share(state.model) > 0.5 if rows else 0),
        "agreement": agreement,
    }
    return state, stats
