"""The evaluated architectures of other tasks, as meta-learning reads them."""

from __future__ import annotations

import hashlib
import math
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
    # Vectors are told apart before networks are: there are fewer, and `canonical` takes longer.
    archs, place = different(np.asarray(archs, np.int32))
    canonical, form = different(np.asarray(jax.jit(space.canonical)(archs)))
    tasks, own = int(task.max()) + 1, form[place]
    # In the order of tasks, and of networks within them; each mean adds up in the order of rows.
    entries, index = np.unique(task * np.int64(len(canonical)) + own, return_inverse=True)
    mean = np.bincount(index, reward) / np.bincount(index)
    of_entry, network = np.divmod(entries, len(canonical))
    counts = np.bincount(of_entry, minlength=tasks)
    column = np.arange(len(entries)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = tasks, int(counts.max())
    padded, rewards = np.zeros((*shape, canonical.shape[1]), np.int32), np.zeros(shape, np.float32)
    padded[of_entry, column], rewards[of_entry, column] = canonical[network], mean
    mask = np.arange(shape[1]) < counts[:, None]
    scores = jax.jit(jax.vmap(lambda r, m: standardise(r, m, target)))(rewards, mask)
    return SourceTasks(jnp.asarray(padded), scores, jnp.asarray(mask), sample)


def different(archs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the different rows [U, T] of `archs` [G, T] in lexicographic order, the place [G] of each).

    By one number for each row where one holds it, which sorts ten times as fast as rows do.
    """
    least = archs.min(axis=0, initial=0)
    sizes = [int(size) for size in archs.max(axis=0, initial=0) - least + 1]
    if math.prod(sizes) >= 2**62:
        rows, place = np.unique(archs, axis=0, return_inverse=True)
        return rows, place.reshape(-1)
    code = np.zeros(len(archs), np.int64)
    for column, size in enumerate(sizes):
        code = code * size + (archs[:, column] - least[column])
    _, first, place = np.unique(code, return_index=True, return_inverse=True)
    return archs[first], place


def codes_needed(source: SourceTasks) -> int:
    """Rows of the learnt table of codes: one a task, or one for each number of a task's vector."""
    return len(source.mask) if source.vectors is None else source.vectors.shape[1]


def support(source: SourceTasks, most: int, seed: int = 0) -> SourceTasks:
    """At most `most` rows in all for the posterior: of each task the best half and others drawn.

    Fewer rows than that are returned as they are.
    """
    archs, scores, masks = (np.asarray(x) for x in source[:3])
    if masks.sum() <= most:
        return source
    rng = np.random.default_rng(seed)
    each, rows = max(most // len(scores), 2), []
    for mask, score in zip(masks, scores, strict=True):
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
        archs=jnp.asarray(archs[task, index]),
        scores=jnp.asarray(np.where(kept, scores[task, index], np.float32(0.0))),
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
