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

TARGETS = ("rank", "standard")


class SourceTasks(NamedTuple):
    """Q tasks with at most R rows each."""

    forms: Array  # [Q, R, T] int32 canonical
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
    """The history of rows [G, T] with rewards [G] on tasks [G] in 0..Q-1.

    Networks that stand several times in a task are joined, with the mean of their rewards.
    """
    forms = np.asarray(space.canonical(jnp.asarray(archs, jnp.int32)))
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for q in range(int(task.max()) + 1):
        own, place = np.unique(forms[task == q], axis=0, return_inverse=True)
        place = place.reshape(-1)
        found.append((own, np.bincount(place, reward[task == q]) / np.bincount(place)))
    most = max(len(own) for own, _ in found)
    padded = np.zeros((len(found), most, forms.shape[1]), np.int32)
    rewards, mask = np.zeros((len(found), most), np.float32), np.zeros((len(found), most), bool)
    for q, (own, mean) in enumerate(found):
        padded[q, : len(own)], rewards[q, : len(own)], mask[q, : len(own)] = own, mean, True
    scores = jax.vmap(lambda r, m: standardise(r, m, target))(jnp.asarray(rewards), mask)
    return SourceTasks(jnp.asarray(padded), scores, jnp.asarray(mask), sample)


def codes_needed(history: SourceTasks) -> int:
    """Rows of the learnt table of codes: one a task, or one for each number of a task's vector."""
    return len(history.mask) if history.vectors is None else history.vectors.shape[1]


def support(history: SourceTasks, most: int, seed: int = 0) -> SourceTasks:
    """At most `most` rows in all for the posterior: of each task the best half and others drawn.

    Fewer rows than that are returned as they are.
    """
    if int(history.mask.sum()) <= most:
        return history
    rng = np.random.default_rng(seed)
    mask, scores = np.asarray(history.mask), np.asarray(history.scores)
    each, rows = max(most // len(mask), 2), []
    for held, score in zip(mask, scores, strict=True):
        own = np.flatnonzero(held)
        own = own[np.argsort(-score[own], kind="stable")]
        best, rest = own[: each // 2], own[each // 2 :]
        drawn = rng.permutation(rest)[: each - len(best)]
        rows.append(np.sort(np.concatenate([best, drawn])))
    size = max(map(len, rows))
    index = np.stack([np.pad(r, (0, size - len(r))) for r in rows])
    kept = np.stack([np.arange(size) < len(r) for r in rows])
    task = np.arange(len(mask))[:, None]
    return history._replace(
        forms=history.forms[task, index],
        scores=jnp.where(kept, history.scores[task, index], 0.0),
        mask=jnp.asarray(kept),
    )


def digest(names: list[str], history: SourceTasks) -> str:
    """A hash of the rows, their tasks' names and the data sets' features, in any order of rows."""
    seen = hashlib.blake2b(digest_size=16)
    rows = (np.asarray(x) for x in (history.forms, history.scores, history.mask))
    for name, forms, scores, mask in zip(names, *rows, strict=True):
        seen.update(name.encode())
        order = np.lexsort(forms[mask].T[::-1])
        seen.update(forms[mask][order].tobytes())
        seen.update(np.round(scores[mask][order], 5).tobytes())
    if history.sample is not None:  # standardised over all data sets, the new one's among them
        seen.update(np.round(np.asarray(history.sample.features), 3).tobytes())
    if history.vectors is not None:
        seen.update(np.asarray(history.vectors).tobytes())
    return seen.hexdigest()
