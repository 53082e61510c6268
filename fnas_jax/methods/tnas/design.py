"""Which architectures are evaluated before the model is asked."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fnas_jax.core.rows import first_of_each
from fnas_jax.core.types import Array
from fnas_jax.methods import gp_math
from fnas_jax.methods.tnas.source_tasks import SourceTasks

TOP = 64  # among which the design is made diverse
SPREAD_OVER = 256  # random architectures that a space-filling design stands for


def k_medoids(xi: Array, first: Array, size: int) -> Array:
    """[size] indices into xi [n, D]: `first` [], then always the one that helps most.

    Greedy minimisation of the sum over all n of the distance to the nearest chosen one.
    """
    distance = jnp.sqrt(gp_math.squared_distances(xi, xi))

    def add(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        nearest, taken = carry
        cost = jnp.minimum(nearest[:, None], distance).sum(axis=0)
        j = jnp.argmin(jnp.where(taken, jnp.inf, cost))
        return (jnp.minimum(nearest, distance[:, j]), taken.at[j].set(True)), j

    taken = jnp.zeros(len(xi), bool).at[first].set(True)
    _, rest = jax.lax.scan(add, (distance[:, first], taken), None, length=size - 1)
    return jnp.concatenate([first[None], rest])


def top_k(history: SourceTasks, forms: Array, foretold: Array) -> tuple[Array, Array]:
    """(forms [F, T], scores [F]): what did best on other tasks, or should, the best first.

    Of `forms` [M, T] those with the highest zero-shot score `foretold` [M], and the best rows of
    the history. A network that other tasks know is judged by its mean score there, that is by its
    rank; one that none knows by what is foretold.
    """
    half = TOP // 2
    value, some = jax.lax.top_k(foretold, min(half, len(forms)))
    rows = history.forms.reshape(-1, forms.shape[1])
    mask, scores = history.mask.reshape(-1), history.scores.reshape(-1)
    _, best = jax.lax.top_k(jnp.where(mask, scores, -jnp.inf), min(half, len(rows)))
    pool = jnp.concatenate([forms[some], rows[best]])
    same = jnp.all(pool[:, None] == rows, axis=-1) & mask
    known = (same * scores).sum(axis=1) / jnp.maximum(same.sum(axis=1), 1)
    unseen = jnp.concatenate([value, jnp.full(len(best), -jnp.inf)])
    score = jnp.where(same.any(axis=1), known, unseen)
    # A network that stands twice counts once.
    score = jnp.where(first_of_each(pool), score, -jnp.inf)
    order = jnp.argsort(-score)
    return pool[order], score[order]
