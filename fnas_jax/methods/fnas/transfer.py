"""What a critic brings along from other tasks of the same space.

Rewards of other tasks are standardised task by task. One task by two protocols is two tasks here
(`knowledge.sources`). Gaussian processes hold the rows as they are (`processes.py`). The weights
that an ensemble of networks learns from them, tasks told apart by an embedding, become the ones
that its fit to the new task's own samples is anchored at; where those samples disagree in order
with what was brought along, it is dropped.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array
from fnas_jax.methods.fnas import critic as critics
from fnas_jax.methods.fnas.critic import Critic, Ensemble
from fnas_jax.methods.scores import rank_scores
from fnas_jax.spaces.base import Space

STEPS = 4  # Gauss-Newton steps of the fit to samples of other tasks


class SourceTasks(NamedTuple):
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
    critic: Critic, space: Space, ensemble: Ensemble, source: SourceTasks, key: Array
) -> Ensemble:
    """The ensemble fitted to the samples of the source tasks, and anchored there."""
    key_rows, key_weights = jax.random.split(key)
    rows = jnp.arange(len(source.reward))
    if source.rows < len(source.reward):
        rows = jax.random.choice(key_rows, len(source.reward), (source.rows,), replace=False)
    archs, reward, task = (jnp.asarray(x)[rows] for x in source[:3])
    tasks = len(source.embedding) - 1
    scores = jnp.asarray(sum(rank_scores(reward, task == t) for t in range(tasks)))
    x = critics.encode(critic, space.canonical(archs), jnp.asarray(source.embedding)[task])
    weights = critics.bootstrap(critic, key_weights, len(rows))
    ensemble = critics.fit(critic, ensemble, x, scores, weights, steps=STEPS)
    return ensemble._replace(anchor=ensemble.mlp)
