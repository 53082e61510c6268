"""What a critic brings along from other tasks of the same space.

Rewards of other tasks are standardised task by task and told apart by an embedding of the task.
The weights that the ensemble learns from them become the ones that its fit to the new task's own
samples is anchored at. Where those samples disagree in order with what was brought along, it is
dropped.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array
from fnas_jax.methods.fnas.critic import Critic, Ensemble
from fnas_jax.methods.scores import rank_scores
from fnas_jax.spaces.base import Space

STEPS = 4  # Gauss-Newton steps of the fit to foreign samples
LEAST_SPREAD = 0.3  # of own scores, in foreign standard deviations


class Config(NamedTuple):
    """Hyper-parameters; core/config.py explains and documents the product's defaults."""

    shift: float = 0.3  # variance of the difference between tasks over that of a task
    rank: float = 1.0  # weight of the squared errors of pairs' differences in the fit


class Foreign(NamedTuple):
    """G samples of K other tasks."""

    archs: np.ndarray  # [G, T] int32
    reward: np.ndarray  # [G] float32
    task: np.ndarray  # [G] int32 in 0..K-1
    embedding: np.ndarray  # [K + 1, Z] float32, the new task's last; Z may be 0
    rows: int  # of these, drawn anew for each search; G: all


def embed(statistics: list[dict[str, float]]) -> np.ndarray:
    """[K, Z] float32: logarithms of the tasks' numbers, centred, one deviation of half a unit.

    Numbers that a task lacks take the others' mean; numbers that are the same for all are dropped.
    """
    names = sorted(set().union(*statistics))
    table = np.array([[s.get(name, np.nan) for name in names] for s in statistics], float)
    table = np.log1p(np.abs(table)).reshape(len(statistics), len(names))
    known = np.isfinite(table)
    mean = np.where(known, table, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    centred = np.where(known, table - mean, 0.0)
    deviation = centred.std(axis=0)
    varied = deviation > 1e-9
    # However many numbers there are, all together are worth half the space's own variation.
    scale = 0.5 / max(varied.sum(), 1) ** 0.5
    return (scale * centred[:, varied] / deviation[varied]).astype(np.float32)


def warm_start(
    critic: Critic, space: Space, ensemble: Ensemble, foreign: Foreign, config: Config, key: Array
) -> Ensemble:
    """The ensemble fitted to the foreign samples, and anchored there."""
    key_rows, key_weights = jax.random.split(key)
    rows = jnp.arange(len(foreign.reward))
    if foreign.rows < len(foreign.reward):
        rows = jax.random.choice(key_rows, len(foreign.reward), (foreign.rows,), replace=False)
    archs, reward, task = (jnp.asarray(x)[rows] for x in foreign[:3])
    tasks = len(foreign.embedding) - 1
    scores = sum(rank_scores(reward, task == t) for t in range(tasks))
    x = critic.encode(space.canonical(archs), jnp.asarray(foreign.embedding)[task])
    weights = critic.weights(key_weights, len(rows))
    ensemble = critic.fit(ensemble, x, scores, weights, steps=STEPS)
    return ensemble._replace(anchor=ensemble.mlp)


def align(scores: Array, hints: Array, mask: Array) -> Array:
    """Own scores [C] on the scale of the foreign ones, by mean and spread of the `hints` [C].

    The first own samples are the foreign task's favourites: without this, their middle would be
    taken for the middle of the space.
    """
    count = jnp.maximum(mask.sum(), 1)
    mean = jnp.sum(jnp.where(mask, hints, 0.0)) / count
    variance = jnp.sum(jnp.where(mask, (hints - mean) ** 2, 0.0)) / count
    spread = jnp.maximum(jnp.sqrt(variance), LEAST_SPREAD)
    return jnp.where(mask, mean + spread * scores, 0.0)
