"""The uncertainty-aware critic: what is predicted, how surely, and how it learns.

Values are scores (Gaussian scores of the rewards' ranks among the trained samples), so one unit is
one standard deviation of what was trained. U is the members' deviation, or the output of a network
of errors (`uncertainty="residual"`, the paper's choice), times a factor that makes |score - V| <= U
hold for 68% of the latest trained samples, judged before they are learnt from.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.methods import scores as scoring
from fnas_jax.methods.fnas import critic as critics
from fnas_jax.methods.fnas import decision, replay, transfer
from fnas_jax.methods.fnas.config import UNCERTAINTIES, Fnas, Uac
from fnas_jax.methods.fnas.critic import Critic, Ensemble
from fnas_jax.spaces.base import Space

LEAST_SIGMA = 1e-2  # scores; keeps ratios of errors finite
STATS = (
    *("mae", "tau", "coverage", "covered", "checked"),
    *("mae_explored", "coverage_explored", "explored", "calibration_explored"),
    *("calibration", "foreign_rows", "agreement"),
)


class Context(NamedTuple):
    """What does not change during a search whose buffer has C places."""

    space: Space
    config: Uac
    fnas: Fnas  # how much what other tasks teach is worth
    capacity: int  # C
    critic: Critic
    residual: Critic  # one member, which predicts errors
    source: transfer.SourceTasks | None
    task: Array  # [Z] embedding of the searched task


class Explored(NamedTuple):
    """All errors of confident predictions that are known: those of explored samples."""

    calibration: decision.Calibration
    wrong: Array  # [] float32 sum of |reward - predicted reward|
    covered: Array  # [] float32 how many scores lay within U
    checked: Array  # [] float32 of how many


class State(NamedTuple):
    """C places of the buffer, E members."""

    ensemble: Ensemble
    residual: Ensemble  # one member, which predicts errors
    weights: Array  # [E, C] bootstrap weights of the places
    calibration: decision.Calibration
    explored: Explored
    warm: Array  # [] bool: knowledge of other tasks is in use


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

    Raises ValueError for an unknown kind of uncertainty or an odd number of hidden units.
    """
    if config.uncertainty not in UNCERTAINTIES:
        raise ValueError(
            f"uncertainty {config.uncertainty!r} is none of {', '.join(UNCERTAINTIES)}"
        )
    size = 0 if source is None else source.embedding.shape[1]
    task = jnp.zeros(0) if source is None else jnp.asarray(source.embedding[-1])
    single = dataclasses.replace(config, members=1, bootstrap=False)
    critic = critics.make(space.cardinalities, config, size)
    residual = critics.make(space.cardinalities, single, size)
    return Context(space, config, fnas, capacity, critic, residual, source, task)


def init(ctx: Context, key: Array) -> State:
    """A critic that has learnt nothing of this task, but what there is of others."""
    key_critic, key_residual, key_weights, key_source = jax.random.split(key, 4)
    ensemble = critics.init(ctx.critic, key_critic)
    if ctx.source is not None:
        ensemble = transfer.warm_start(ctx.critic, ctx.space, ensemble, ctx.source, key_source)
    return State(
        ensemble=ensemble,
        residual=critics.init(ctx.residual, key_residual),
        weights=critics.bootstrap(ctx.critic, key_weights, ctx.capacity),
        calibration=decision.uncalibrated(),
        explored=unexplored(),
        warm=jnp.bool_(ctx.source is not None),
    )


def source_prediction(ctx: Context, state: State, archs: Array) -> Array:
    """[n] scores of canonical `archs` [n, T] by knowledge of other tasks alone; 0 without."""
    if ctx.source is None:
        return jnp.zeros(len(archs), jnp.float32)
    anchored = state.ensemble._replace(mlp=state.ensemble.anchor)
    x = critics.encode(ctx.critic, archs, ctx.task)
    return critics.predict(ctx.critic, anchored, x).mean(axis=0)


def predict(ctx: Context, state: State, archs: Array) -> Prediction:
    """Scores of canonical `archs` [n, T] and how sure the critic is of them."""
    x = critics.encode(ctx.critic, archs, ctx.task)
    members = critics.predict(ctx.critic, state.ensemble, x)
    sigma = members.std(axis=0, ddof=1)
    if ctx.config.uncertainty == "residual":
        sigma = critics.predict(ctx.residual, state.residual, x)[0]
    sigma = jnp.maximum(sigma, LEAST_SIGMA)
    return Prediction(members.mean(axis=0), sigma, sigma * decision.factor(state.calibration))


def targets(ctx: Context, state: State, buffer: replay.Buffer) -> tuple[Array, scoring.Scale]:
    """Scores [C] of the buffer's samples, and the map between rewards and scores."""
    mask = replay.filled(buffer)
    scores = scoring.rank_scores(buffer.reward, mask)
    if ctx.source is not None:
        aligned, _ = scoring.align(scores, buffer.source_prediction, mask)
        scores = jnp.where(state.warm, aligned, scores)
    return scores, scoring.scale(buffer.reward, scores, mask)


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
    """The state whose networks are fitted to the buffer."""
    scores, _ = targets(ctx, state, buffer)
    places = informative(buffer, scores, min(ctx.config.rows, ctx.capacity))
    mask = replay.filled(buffer)[places]
    x = critics.encode(ctx.critic, jnp.maximum(buffer.canonical[places], 0), ctx.task)
    rank, noise = 0.0, jnp.float32(ctx.config.noise)
    if ctx.source is not None:
        rank = ctx.fnas.rank
        noise = jnp.where(state.warm, noise / ctx.fnas.shift, noise)
    weights = state.weights[:, places] * mask
    ensemble = critics.fit(ctx.critic, state.ensemble, x, scores[places], weights, rank, noise)
    state = state._replace(ensemble=ensemble)
    if ctx.config.uncertainty != "residual":
        return state
    error = buffer.error[places]
    known = mask & jnp.isfinite(error)
    # Two factorisations at once can block each other for ever on XLA's CPU threads, so this
    # one is made to wait for the ensemble's.
    wait = 0.0 * ensemble.mlp.b3.sum()
    error = jnp.where(known, error, 0.0) + wait
    weights = known[None].astype(jnp.float32)
    return state._replace(residual=critics.fit(ctx.residual, state.residual, x, error, weights))


def reconsider(ctx: Context, state: State, buffer: replay.Buffer) -> tuple[State, Array]:
    """Drops knowledge of other tasks that ranks the own samples wrongly; and its Kendall's tau."""
    mask = replay.filled(buffer)
    agreement = scoring.kendall(buffer.source_prediction, buffer.reward, mask)
    misled = (agreement < 0) & (mask.sum() >= ctx.config.warmup)
    drop = state.warm & misled

    def own(mine: critics.Mlp, start: critics.Mlp) -> critics.Mlp:
        return jax.tree.map(lambda a, b: jnp.where(drop, b, a), mine, start)

    e = state.ensemble
    ensemble = e._replace(mlp=own(e.mlp, e.start), anchor=own(e.anchor, e.start))
    return state._replace(ensemble=ensemble, warm=state.warm & ~misled), agreement


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
    stats = judge(reading) | {
        "mae_explored": explored.wrong / explored.checked,  # NaN before the first
        "coverage_explored": explored.covered / explored.checked,
        "explored": explored.checked,
        "calibration_explored": decision.factor(explored.calibration),
        "calibration": decision.factor(state.calibration),
        "foreign_rows": state.warm * jnp.float32(0 if ctx.source is None else ctx.source.rows),
        "agreement": agreement,
    }
    return fit(ctx, state, buffer), stats
