"""A Gaussian process on one-hot decisions with expected improvement or an upper bound.

The kernel is k(a, b) = exp(-h(a, b) / 2) with h the Hamming distance of canonical forms, or, where
features are known (`methods.beside`), half of it and as much of their distance. Targets are the
Gaussian scores of the rewards' ranks. With L L' = K + s I over the n evaluated
networks, W = L^-1 and V = W k(X, candidates), a candidate has

    mean = V' W y           variance = 1 - |V|^2 (by column)

Neither W nor V depends on y: an architecture's row is added when it is proposed, by one step of
an incremental Cholesky factorisation (the new row of L is a column of V), and the targets, which
all change with every new rank, only when it is told. Within a batch the variance shrinks while
the mean stays (GP-BUCB, Desautels et al., JMLR 2014).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.config import read
from fnas_jax.core.rows import contains
from fnas_jax.core.types import Array, Proposal, UserError, propose
from fnas_jax.methods import gp_math
from fnas_jax.methods.base import Best, SearchMethod
from fnas_jax.methods.baselines.config import ACQUISITIONS, Gp
from fnas_jax.methods.beside import one_hot_beside
from fnas_jax.methods.best import no_best, remember
from fnas_jax.methods.candidates import Allowed, draw, forbidden, listed, places
from fnas_jax.methods.scores import rank_scores
from fnas_jax.spaces.base import Space

if TYPE_CHECKING:
    from fnas_jax.tasks.base import Evaluator, Task

LISTED = 20_000  # spaces of at most so many decision vectors are searched whole
POOL = 768  # candidates in larger ones


class State(NamedTuple):
    """C places for evaluated networks, M candidates where the whole space is listed (else 0)."""

    canonical: Array  # [C, T] int32; -1 in free places
    rewards: Array  # [C] float32
    observed: Array  # [C] bool: has a reward
    white: Array  # [C, C] float32 W; the identity in free places
    solved: Array  # [C, M] float32 V; zero in free places
    places: Array  # [] int32, taken so far
    asked: Array  # [N] int32, places of the last proposal; C: none was left
    best: Best


class Context(NamedTuple):
    """What does not change during a search."""

    space: Space
    config: Gp
    batch: int  # N
    capacity: int  # C
    pool: int  # candidates in spaces too large to list
    everything: Array | None  # [M, T] all networks of a space that can be listed
    allowed: Allowed | None = None  # which of the drawn ones may be proposed; None: all
    existing: Array | None = None  # `Task.existing`


def make(
    space: Space,
    config: Gp,
    batch: int,
    capacity: int,
    most_listed: int = LISTED,
    pool: int = POOL,
    allowed: Allowed | None = None,
    existing: Array | None = None,
) -> SearchMethod:
    """A search with `config.start` random architectures first, then `batch` at a time by the model.

    `capacity` is the largest number of architectures that it can learn from; what is proposed
    beyond it is random. Spaces of at most `most_listed` decision vectors are searched whole;
    in larger ones an iteration looks at `pool` of `candidates.draw` about the best. No network is
    proposed twice, or that is not `allowed`, as long as another candidate is left; `existing` is
    `Task.existing`. Raises UserError for an unknown acquisition, and where no network of a listed
    space is allowed.
    """
    if config.acquisition not in ACQUISITIONS:
        raise UserError(f"acquisition {config.acquisition!r} is none of {', '.join(ACQUISITIONS)}")
    everything = listed(space, most_listed, allowed, existing)
    ctx = Context(space, config, batch, capacity, pool, everything, allowed, existing)
    return SearchMethod(
        partial(init, ctx), partial(ask, ctx), remember, best=lambda state: state.best
    )


def kernel(space: Space, x: Array, y: Array) -> Array:
    """exp(-h / 2) of the distances h: canonical [n, T], [m, T] -> [n, m]."""
    codes = (one_hot_beside(space, archs) for archs in (x, y))
    return jnp.exp(-gp_math.squared_distances(*codes) / 4)


def init(ctx: Context, key: Array) -> State:
    """A process without observations."""
    listed = 0 if ctx.everything is None else len(ctx.everything)
    capacity, decisions = ctx.capacity, len(ctx.space.cardinalities)
    return State(
        canonical=jnp.full((capacity, decisions), -1, jnp.int32),
        rewards=jnp.zeros(capacity, jnp.float32),
        observed=jnp.zeros(capacity, bool),
        white=jnp.eye(capacity, dtype=jnp.float32),
        solved=jnp.zeros((capacity, listed), jnp.float32),
        places=jnp.int32(0),
        asked=jnp.full(ctx.batch, capacity, jnp.int32),
        best=no_best(decisions),
    )


def candidates(ctx: Context, state: State, key: Array) -> tuple[Array, Array]:
    """Canonical vectors [M, T] and V [C, M]."""
    if ctx.everything is not None:
        return ctx.everything, state.solved
    scores = jnp.where(state.observed, rank_scores(state.rewards, state.observed), -jnp.inf)
    _, elite = jax.lax.top_k(scores, min(8, ctx.capacity))
    parents = jnp.maximum(state.canonical[elite], 0)
    drawn = draw(ctx.space, key, parents, ctx.pool, ctx.existing)
    cross = kernel(ctx.space, jnp.maximum(state.canonical, 0), drawn)
    cross = jnp.where((state.canonical[:, 0] >= 0)[:, None], cross, 0.0)
    return drawn, state.white @ cross


def value(config: Gp, mean: Array, variance: Array, best: Array) -> Array:
    """[M] the acquisition function."""
    std = jnp.sqrt(jnp.maximum(variance, 1e-9))
    if config.acquisition == "ucb":
        return gp_math.upper_bound(mean, std, config.beta)
    return gp_math.log_expected_improvement(mean, std, best)


class Choosing(NamedTuple):
    """What changes from one member of a batch to the next."""

    state: State
    solved: Array  # [C, M] float32 V
    variance: Array  # [M] float32 of the candidates
    taken: Array  # [M] bool: is known, in the batch, or not to be proposed


def choose(
    ctx: Context, archs: Array, mean: Array, best: Array, now: Choosing, random: Array
) -> tuple[Choosing, tuple[Array, Array]]:
    """Adds the best of the candidates `archs` [M, T] to a batch; it [T] and its place [].

    `mean` [M] of the candidates, `best` [] score so far, and `random` [M] numbers to break ties.
    """
    state, solved, variance, taken = now
    learnt = value(ctx.config, mean, variance, best) + 1e-4 * random
    blind = (state.places < ctx.config.start) | (state.places >= ctx.capacity)
    j = jnp.argmax(jnp.where(taken, -jnp.inf, jnp.where(blind, random, learnt)))
    row, noise = solved[:, j], ctx.config.noise
    pivot = jnp.sqrt(jnp.maximum(1 + noise - row @ row, noise))
    new = (kernel(ctx.space, archs[j][None], archs)[0] - row @ solved) / pivot
    # A network that is known already (nothing else was left) is not learnt again.
    place = jnp.where(taken[j], ctx.capacity, jnp.minimum(state.places, ctx.capacity))
    row = (-(row @ state.white) / pivot).at[place].set(1 / pivot, mode="drop")
    state = state._replace(
        canonical=state.canonical.at[place].set(archs[j], mode="drop"),
        white=state.white.at[place].set(row, mode="drop"),
        places=state.places + (place < ctx.capacity),
    )
    solved = solved.at[place].set(new, mode="drop")
    taken |= contains(archs[j][None], archs)
    return Choosing(state, solved, variance - new**2, taken), (archs[j], place)


def ask(ctx: Context, state: State, key: Array) -> tuple[State, Proposal]:
    """The next batch, one by one."""
    key_pool, key_noise = jax.random.split(key)
    archs, solved = candidates(ctx, state, key_pool)
    scores = rank_scores(state.rewards, state.observed)
    mean = (state.white @ scores) @ solved
    best = jnp.max(jnp.where(state.observed, scores, -jnp.inf))
    variance = 1 - jnp.sum(solved**2, axis=0)
    taken = contains(state.canonical, archs) | forbidden(ctx.allowed, archs)
    now = Choosing(state, solved, variance, taken)
    tie_breaks = jax.random.uniform(key_noise, (ctx.batch, len(archs)))
    step = partial(choose, ctx, archs, mean, best)
    now, (chosen, asked) = jax.lax.scan(step, now, tie_breaks)
    kept = now.solved if ctx.everything is not None else state.solved
    return now.state._replace(solved=kept, asked=asked.astype(jnp.int32)), propose(chosen)


def build(config: Any, space: Space, task: Task, knowledge: Any) -> tuple[SearchMethod, Evaluator]:
    """The process with the numbers of `config.gp`, for `config.search.budget` architectures."""
    numbers, n = read(Gp, config.gp), config.search.batch
    room = places(config, task)
    method = make(space, numbers, n, room, allowed=task.allowed, existing=task.existing)
    return method, task.evaluator
