"""The uncertainty-aware critic: what is predicted, how surely, and how it learns.

Values are scores (Gaussian scores of the rewards' ranks among the trained samples), so one unit is
one standard deviation of what was trained. U is the members' deviation, or the output of a network
of errors (`uncertainty="residual"`, the paper's choice), times a factor that makes |score - V| <= U
hold for 68% of the latest trained samples, judged before they are learnt from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.methods import scores as scoring
from fnas_jax.methods.fnas import critic as critics
from fnas_jax.methods.fnas import decision, replay, transfer
from fnas_jax.spaces.base import Space

UNCERTAINTIES = ("ensemble", "residual")
LEAST_SIGMA = 1e-2  # scores; keeps ratios of errors finite
STATS = (
    *("mae", "tau", "coverage", "covered", "checked"),
    *("calibration", "foreign_rows", "agreement"),
)


class Config(NamedTuple):
    """Hyper-parameters; core/config.py explains and documents the product's defaults."""

    uncertainty: str = "ensemble"
    rows: int = 128  # samples that a fit looks at: the best and the newest
    critic: critics.Config = critics.Config()
    decision: decision.Config = decision.Config()
    transfer: transfer.Config = transfer.Config()


class State(NamedTuple):
    """C places of the buffer, E members."""

    ensemble: critics.Ensemble
    residual: critics.Ensemble  # one member, which predicts errors
    weights: Array  # [E, C] bootstrap weights of the places
    calibration: decision.Calibration
    warm: Array  # [] bool: knowledge of other tasks is in use


class Prediction(NamedTuple):
    """Of n architectures."""

    score: Array  # [n] float32 V
    sigma: Array  # [n] float32 uncertainty before calibration
    width: Array  # [n] float32 U


class Uac(NamedTuple):
    """Pure functions."""

    init: Callable[[Array], State]  # key -> state
    predict: Callable[[State, Array], Prediction]  # (state, canonical archs [n, T])
    # (state, buffer) -> scores [C] of its samples, and the map between rewards and scores
    targets: Callable[[State, replay.Buffer], tuple[Array, scoring.Scale]]
    hint: Callable[[State, Array], Array]  # (state, archs) -> scores [n] by foreign knowledge
    # (state, buffer, prediction, score [N], reward [N], predicted reward [N], checked [N] bool)
    # -> (state that has learnt the buffer, STATS); `score` is that of the reward
    learn: Callable[..., tuple[State, dict[str, Array]]]


def make(
    space: Space, config: Config, capacity: int, foreign: transfer.Foreign | None = None
) -> Uac:
    """The critic of a search whose buffer holds `capacity` samples.

    Raises ValueError for an unknown kind of uncertainty.
    """
    if config.uncertainty not in UNCERTAINTIES:
        raise ValueError(
            f"uncertainty {config.uncertainty!r} is none of {', '.join(UNCERTAINTIES)}"
        )
    cards = space.cardinalities
    size = 0 if foreign is None else foreign.embedding.shape[1]
    own = jnp.zeros(0) if foreign is None else jnp.asarray(foreign.embedding[-1])
    critic = critics.make(cards, config.critic, size)
    errors = critics.make(cards, config.critic._replace(members=1, bootstrap=False), size)
    rows = min(config.rows, capacity)

    def init(key: Array) -> State:
        key_critic, key_errors, key_weights, key_foreign = jax.random.split(key, 4)
        ensemble = critic.init(key_critic)
        if foreign is not None:
            ensemble = transfer.warm_start(
                critic, space, ensemble, foreign, config.transfer, key_foreign
            )
        return State(
            ensemble=ensemble,
            residual=errors.init(key_errors),
            weights=critic.weights(key_weights, capacity),
            calibration=decision.uncalibrated(),
            warm=jnp.bool_(foreign is not None),
        )

    def hint(state: State, archs: Array) -> Array:
        if foreign is None:
            return jnp.zeros(len(archs), jnp.float32)
        taught = state.ensemble._replace(mlp=state.ensemble.anchor)
        return critic.predict(taught, critic.encode(archs, own)).mean(axis=0)

    def predict(state: State, archs: Array) -> Prediction:
        x = critic.encode(archs, own)
        members = critic.predict(state.ensemble, x)
        sigma = members.std(axis=0, ddof=1)
        if config.uncertainty == "residual":
            sigma = errors.predict(state.residual, x)[0]
        sigma = jnp.maximum(sigma, LEAST_SIGMA)
        return Prediction(members.mean(axis=0), sigma, sigma * decision.factor(state.calibration))

    def targets(state: State, buffer: replay.Buffer) -> tuple[Array, scoring.Scale]:
        held = replay.filled(buffer)
        scores = scoring.rank_scores(buffer.reward, held)
        if foreign is not None:
            scores = jnp.where(state.warm, transfer.align(scores, buffer.hint, held), scores)
        return scores, scoring.scale(buffer.reward, scores, held)

    def informative(buffer: replay.Buffer, scores: Array) -> Array:
        """[rows] places: half of them the best samples, the rest the newest of the others."""
        held, capacity = replay.filled(buffer), len(buffer.reward)
        if rows == capacity:
            return jnp.arange(capacity)
        _, best = jax.lax.top_k(jnp.where(held, scores, -jnp.inf), rows // 2)
        age = (buffer.added - 1 - jnp.arange(capacity)) % capacity
        urgency = jnp.where(held, -age, -capacity).at[best].set(-2 * capacity)
        _, newest = jax.lax.top_k(urgency, rows - rows // 2)
        return jnp.concatenate([best, newest])

    def fit(state: State, buffer: replay.Buffer) -> State:
        scores, _ = targets(state, buffer)
        places = informative(buffer, scores)
        held = replay.filled(buffer)[places]
        x = critic.encode(jnp.maximum(buffer.forms[places], 0), own)
        rank, noise = 0.0, jnp.float32(config.critic.noise)
        if foreign is not None:
            rank = config.transfer.rank
            noise = jnp.where(state.warm, noise / config.transfer.shift, noise)
        weights = state.weights[:, places] * held
        state = state._replace(
            ensemble=critic.fit(state.ensemble, x, scores[places], weights, rank, noise)
        )
        if config.uncertainty == "residual":
            error = buffer.error[places]
            known = held & jnp.isfinite(error)
            # Two factorisations at once can block each other for ever on XLA's CPU threads, so this
            # one is made to wait for the ensemble's.
            wait = 0.0 * state.ensemble.mlp.b3.sum()
            error = jnp.where(known, error, 0.0) + wait
            state = state._replace(
                residual=errors.fit(state.residual, x, error, known[None].astype(jnp.float32))
            )
        return state

    def reconsider(state: State, buffer: replay.Buffer) -> tuple[State, Array]:
        """Drops foreign knowledge that ranks the own samples wrongly; and its Kendall's tau."""
        held = replay.filled(buffer)
        agreement = scoring.kendall(buffer.hint, buffer.reward, held)
        misled = (agreement < 0) & (held.sum() >= config.decision.warmup)
        warm = state.warm & ~misled
        e = state.ensemble

        def own(mine: critics.Mlp, start: critics.Mlp) -> critics.Mlp:
            return jax.tree.map(lambda a, b: jnp.where(state.warm & misled, b, a), mine, start)

        ensemble = e._replace(mlp=own(e.mlp, e.start), anchor=own(e.anchor, e.start))
        return state._replace(ensemble=ensemble, warm=warm), agreement

    def learn(
        state: State,
        buffer: replay.Buffer,
        prediction: Prediction,
        score: Array,
        reward: Array,
        predicted: Array,
        checked: Array,
    ) -> tuple[State, dict[str, Array]]:
        error = jnp.abs(score - prediction.score)
        covered = checked & (error <= prediction.width)
        count = jnp.maximum(checked.sum(), 1)
        mae = jnp.sum(jnp.where(checked, jnp.abs(reward - predicted), 0.0)) / count
        calibration = decision.recalibrate(state.calibration, error / prediction.sigma, checked)
        state, agreement = state._replace(calibration=calibration), jnp.float32(0)
        if foreign is not None:
            state, agreement = reconsider(state, buffer)
        nothing = ~checked.any()
        stats = {
            "mae": jnp.where(nothing, jnp.nan, mae),
            "tau": jnp.where(
                checked.sum() < 2, jnp.nan, scoring.kendall(prediction.score, reward, checked)
            ),
            "coverage": jnp.where(nothing, jnp.nan, covered.sum() / count),
            "covered": covered.sum(dtype=jnp.float32),
            "checked": checked.sum(dtype=jnp.float32),
            "calibration": decision.factor(state.calibration),
            "foreign_rows": state.warm * jnp.float32(0 if foreign is None else foreign.rows),
            "agreement": agreement,
        }
        return fit(state, buffer), stats

    return Uac(init, predict, targets, hint, learn)
