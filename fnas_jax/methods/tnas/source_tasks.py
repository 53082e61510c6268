"""The evaluated architectures of other tasks, as meta-learning reads them."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array
from fnas_jax.methods.scores import rank_scores
from fnas_jax.methods.tnas.set_encoder import Sample
from fnas_jax.spaces.base import Space


class SourceTasks(NamedTuple):
    """Q tasks with at most R rows each."""

    archs: Array  # [Q, R, T] int32 canonical
    scores: Array  # [Q, R] float32, standardised within the task
    mask: Array  # [Q, R] bool
    sample: Sample | None = None  # features of Q + 1 data sets, the new task's last
    vectors: Array | None = None  # [Q + 1, Z] users' numbers of tasks without images, likewise


def standardise(rewards: Array, mask: Array, target: str = "rank") -> Array:
    """[n] scores of mean 0 and variance 1 of the masked rewards [n]; 0 elsewhere.

    "rank": the Gaussian scores of their ranks; "standard": less their mean, over their deviation.
    """
    if target == "rank":
        return rank_scores(rewards, mask)
    count = jnp.maximum(mask.sum(), 1)
    mean = jnp.where(mask, rewards, 0.0).sum() / count
    centred = jnp.where(mask, rewards - mean, 0.0)
    return centred / (jnp.sqrt((centred**2).sum() / count) + 1e-6)


def gather(
    space: Space,
    archs: np.ndarray,
    reward: np.ndarray,
    task: np.ndarray,
    sample: Sample | None = None,
    target: str = "rank",
) -> SourceTasks:
    """The tasks of rows [G, T] with rewards [G] on tasks [G] in 0..Q-1.

    Networks that stand several times in a task are joined, with the mean of their rewards.
    """
    canonical = np.asarray(space.canonical(jnp.asarray(archs, jnp.int32)))
    joined: list[tuple[np.ndarray, np.ndarray]] = []
    for q in range(int(task.max()) + 1):
        own, index = np.unique(canonical[task == q], axis=0, return_inverse=True)
        index = index.reshape(-1)
        joined.append((own, np.bincount(index, reward[task == q]) / np.bincount(index)))
    most = max(len(own) for own, _ in joined)
    padded = np.zeros((len(joined), most, canonical.shape[1]), np.int32)
    rewards, mask = np.zeros((len(joined), most), np.float32), np.zeros((len(joined), most), bool)
    for q, (own, mean) in enumerate(joined):
        padded[q, : len(own)], rewards[q, : len(own)], mask[q, : len(own)] = own, mean, True
    scores = jax.vmap(lambda r, m: standardise(r, m, target))(jnp.asarray(rewards), mask)
    return SourceTasks(jnp.asarray(padded), scores, jnp.asarray(mask), sample)


def codes_needed(source: SourceTasks) -> int:
    """Rows of the learnt table of codes: one a task, or one for each number of a task's vector."""
    return len(source.mask) if source.vectors is None else source.vectors.shape[1]


def support(source: SourceTasks, most: int, seed: int = 0) -> SourceTasks:
    """At most `most` rows in all for the posterior: of each task the best half and others drawn.

    Fewer rows than that are returned as they are.
    """
    if int(source.mask.sum()) <= most:
        return source
    rng = np.random.default_rng(seed)
    scores = np.asarray(source.scores)
    each, rows = max(most // len(scores), 2), []
    for mask, score in zip(np.asarray(source.mask), scores, strict=True):
        own = np.flatnonzero(mask)
        own = own[np.argsort(-score[own], kind="stable")]
        best, rest = own[: each // 2], own[each // 2 :]
        drawn = rng.permutation(rest)[: each - len(best)]
        rows.append(np.sort(np.concatenate([best, drawn])))
    size = max(map(len, rows))
    index = np.stack([np.pad(r, (0, size - len(r))) for r in rows])
    kept = np.stack([np.arange(size) < len(r) for r in rows])
    task = np.arange(len(scores))[:, None]
    return source._replace(
        archs=source.archs[task, index],
        scores=jnp.where(kept, source.scores[task, index], 0.0),
        mask=jnp.asarray(kept),
    )


def digest(names: list[str], source: SourceTasks) -> str:
    """A hash of the rows, their tasks' names and the data sets' features, in any order of rows."""
    seen = hashlib.blake2b(digest_size=16)
    rows = (np.asarray(x) for x in (source.archs, source.scores, source.mask))
    for name, archs, scores, mask in zip(names, *rows, strict=True):
        seen.update(name.encode())
        order = np.lexsort(archs[mask].T[::-1])
        seen.update(archs[mask][order].tobytes())
        seen.update(np.round(scores[mask][order], 5).tobytes())
    if source.sample is not None:  # standardised over all data sets, the new one's among them
        seen.update(np.round(np.asarray(source.sample.features), 3).tobytes())
    if source.vectors is not None:
        seen.update(np.asarray(source.vectors).tobytes())
    return seen.hexdigest()
