"""Which architectures are evaluated before the model is asked."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fnas_jax.core.rows import first_of_each
from fnas_jax.core.types import Array
from fnas_jax.methods import candidates, gp_math
from fnas_jax.methods.tnas import networks, surrogate
from fnas_jax.methods.tnas.gp_mixture import Component
from fnas_jax.methods.tnas.source_tasks import SourceTasks
from fnas_jax.methods.tnas.state import Context, conditioned

TOP = 64  # architectures of source tasks among which the design is made diverse
RANDOM = 256  # random architectures that a space-filling design stands for
ELITE = 8  # architectures whose neighbours are candidates, in spaces that are not listed


def initial(ctx: Context, cold: Component, warm: Component | None, key: Array) -> Array:
    """The initial design [start, T]: random, space-filling, or what the source tasks say is best.

    The warm component is that of the source tasks; None where there are none.
    """
    key_random, key_draw = jax.random.split(key)
    drawn = random(ctx, key_random)
    if ctx.config.design == "random":
        return drawn[: ctx.start]
    if warm is None or ctx.source is None:
        s = cold.surrogate
        xi = networks.embed_archs(ctx.config, s.weights, s.code, ctx.space, drawn)
        return drawn[k_medoids(xi, jnp.int32(0), ctx.start)]
    if ctx.listed is not None:
        archs, at_archs = ctx.listed, warm.listed
    else:
        rows = ctx.source.archs.reshape(-1, drawn.shape[1])
        parents = elite(rows, jnp.where(ctx.source.mask, ctx.source.scores, -jnp.inf).reshape(-1))
        near = candidates.draw(ctx.space, key_draw, parents, ctx.config.pool, ctx.existing)
        archs = jnp.concatenate([near, drawn])
        at_archs = conditioned(ctx, warm, archs)
    best, _ = top_k(ctx.source, archs, at_archs.mean)
    best = best[: TOP // 2]
    xi = surrogate.conditioned(ctx.space, ctx.config, warm.surrogate, best).xi
    return best[k_medoids(xi, jnp.int32(0), ctx.start)]


def random(ctx: Context, key: Array) -> Array:
    """[<= RANDOM, T] random canonical architectures, all different where the space is listed."""
    if ctx.listed is not None:
        size = min(RANDOM, len(ctx.listed))
        return jax.random.choice(key, ctx.listed, (size,), replace=False)
    if ctx.existing is not None:
        places = jax.random.choice(key, len(ctx.existing), (RANDOM,), replace=False)
        return ctx.space.canonical(ctx.existing[places])
    return ctx.space.canonical(ctx.space.sample(key, RANDOM))


def elite(archs: Array, values: Array) -> Array:
    """[<= ELITE, T] those of `archs` [n, T] with the highest values [n], the best first."""
    return archs[jax.lax.top_k(values, min(ELITE, len(archs)))[1]]


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


def top_k(source: SourceTasks, archs: Array, predicted: Array) -> tuple[Array, Array]:
    """(architectures [F, T], scores [F]): what did best on source tasks, or should, best first.

    Of `archs` [M, T] those with the highest zero-shot score `predicted` [M], and the best rows of
    the source tasks. A network that source tasks know is judged by its mean score there, that is by
    its rank; one that none knows by what is predicted.
    """
    half = TOP // 2
    value, some = jax.lax.top_k(predicted, min(half, len(archs)))
    rows = source.archs.reshape(-1, archs.shape[1])
    mask, scores = source.mask.reshape(-1), source.scores.reshape(-1)
    _, best = jax.lax.top_k(jnp.where(mask, scores, -jnp.inf), min(half, len(rows)))
    pool = jnp.concatenate([archs[some], rows[best]])
    same = jnp.all(pool[:, None] == rows, axis=-1) & mask
    known = (same * scores).sum(axis=1) / jnp.maximum(same.sum(axis=1), 1)
    unseen = jnp.concatenate([value, jnp.full(len(best), -jnp.inf)])
    score = jnp.where(same.any(axis=1), known, unseen)
    # A network that stands twice counts once.
    score = jnp.where(first_of_each(pool), score, -jnp.inf)
    order = jnp.argsort(-score)
    return pool[order], score[order]
