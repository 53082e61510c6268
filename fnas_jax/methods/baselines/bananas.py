"""An ensemble of networks with independent Thompson sampling (after BANANAS, White et al. 2021).

AAAI 2021, arXiv 1910.11858. Before every batch, E networks are trained from new weights on what
was evaluated; a candidate's value is a draw from N(mean, deviation^2) of their predictions,
independently of the other candidates, and the highest draws are evaluated. Unlike the original,
architectures are encoded by their canonical decisions and features rather than by the paths of
their graph, so that every space can be searched, and targets are the Gaussian scores of the
rewards' ranks.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fnas_jax.core.config import read
from fnas_jax.core.rows import contains, first_of_each
from fnas_jax.core.types import Array, Proposal, propose
from fnas_jax.methods.base import Best, SearchMethod
from fnas_jax.methods.baselines.config import Bananas
from fnas_jax.methods.beside import one_hot_beside
from fnas_jax.methods.best import no_best, remember
from fnas_jax.methods.candidates import Allowed, draw, forbidden, places
from fnas_jax.methods.scores import rank_scores
from fnas_jax.spaces.base import Space

if TYPE_CHECKING:
    from fnas_jax.tasks.base import Evaluator, Task

ELITE = 8  # best architectures, whose changes are candidates
Mlp = list[tuple[Array, Array]]  # weights [inputs, outputs] and biases [outputs] of each layer


class State(NamedTuple):
    """C places for evaluated networks."""

    canonical: Array  # [C, T] int32; -1 in free places
    rewards: Array  # [C] float32
    observed: Array  # [C] bool: has a reward
    places: Array  # [] int32, taken so far
    asked: Array  # [N] int32, places of the last proposal; C: none was left
    best: Best


def predict(member: Mlp, x: Array) -> Array:
    """[n, F] -> [n] scores."""
    for w, b in member[:-1]:
        x = jax.nn.relu(x @ w + b)
    return (x @ member[-1][0] + member[-1][1])[:, 0]


def mean_error(member: Mlp, x: Array, scores: Array, mask: Array) -> Array:
    """[] mean absolute error of the masked scores [n], the loss of the original."""
    error = jnp.abs(predict(member, x) - scores)
    return jnp.where(mask, error, 0.0).sum() / jnp.maximum(mask.sum(), 1)


def fit_member(config: Bananas, key: Array, x: Array, scores: Array, mask: Array) -> Mlp:
    """One network trained from new weights on the masked scores [n] of x [n, F]."""
    sizes = (x.shape[1], config.hidden, config.hidden, 1)
    optimizer = optax.adam(config.lr)
    keys = jax.random.split(key, len(sizes) - 1)
    member = [
        (jax.random.normal(k, (i, o)) * (2 / i) ** 0.5, jnp.zeros(o))
        for k, i, o in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        member, moments = carry
        gradient = jax.grad(mean_error)(member, x, scores, mask)
        updates, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(member, updates), moments), None

    start = (member, optimizer.init(member))
    return jax.lax.scan(step, start, None, length=config.steps)[0][0]


def fit(config: Bananas, key: Array, x: Array, scores: Array, mask: Array) -> Mlp:
    """E networks [E, ..] of `fit_member`."""
    keys = jax.random.split(key, config.members)
    return jax.vmap(lambda key: fit_member(config, key, x, scores, mask))(keys)


class Context(NamedTuple):
    """What does not change during a search."""

    space: Space
    config: Bananas
    batch: int  # N
    capacity: int  # C
    allowed: Allowed | None = None  # which candidates may be proposed; None: all
    existing: Array | None = None  # `Task.existing`


def make(
    space: Space,
    config: Bananas,
    batch: int,
    capacity: int,
    allowed: Allowed | None = None,
    existing: Array | None = None,
) -> SearchMethod:
    """A search that learns from the first `capacity` architectures, and from none beyond.

    Candidates are drawn by `candidates.draw` about the best; a network that is known, or not
    `allowed`, is proposed only when the others are fewer than the batch. `existing`:
    `Task.existing`.
    """
    ctx = Context(space, config, batch, capacity, allowed, existing)
    return SearchMethod(
        partial(init, ctx), partial(ask, ctx), remember, best=lambda state: state.best
    )


def init(ctx: Context, key: Array) -> State:
    """Nothing is known."""
    decisions = len(ctx.space.cardinalities)
    return State(
        canonical=jnp.full((ctx.capacity, decisions), -1, jnp.int32),
        rewards=jnp.zeros(ctx.capacity, jnp.float32),
        observed=jnp.zeros(ctx.capacity, bool),
        places=jnp.int32(0),
        asked=jnp.full(ctx.batch, ctx.capacity, jnp.int32),
        best=no_best(decisions),
    )


def ask(ctx: Context, state: State, key: Array) -> tuple[State, Proposal]:
    """The candidates of the highest draws."""
    key_pool, key_fit, key_draw = jax.random.split(key, 3)
    capacity = ctx.capacity
    scores = rank_scores(state.rewards, state.observed)
    order = jnp.where(state.observed, scores, -jnp.inf)
    elite = state.canonical[jax.lax.top_k(order, min(ELITE, capacity))[1]]
    elite = jnp.where(elite >= 0, elite, state.best.arch)
    pool = max(ctx.config.pool, 3 * ctx.batch)
    archs = draw(ctx.space, key_pool, elite, pool, ctx.existing)
    known = one_hot_beside(ctx.space, jnp.maximum(state.canonical, 0))
    members = fit(ctx.config, key_fit, known, scores, state.observed)
    predicted = jax.vmap(predict, (0, None))(members, one_hot_beside(ctx.space, archs))
    noise = jax.random.normal(key_draw, (len(archs),))
    value = predicted.mean(axis=0) + predicted.std(axis=0) * noise
    # The first third of the candidates is random.
    blind = jnp.where(jnp.arange(len(archs)) < len(archs) // 3, noise, noise - 100)
    value = jnp.where(state.observed.sum() < ctx.config.start, blind, value)
    known = contains(state.canonical, archs) | ~first_of_each(archs)
    known |= forbidden(ctx.allowed, archs)
    _, chosen = jax.lax.top_k(jnp.where(known, value - 1e3, value), ctx.batch)
    new = ~known[chosen]
    place = state.places + jnp.cumsum(new) - 1
    place = jnp.where(new & (place < capacity), place, capacity)
    state = state._replace(
        canonical=state.canonical.at[place].set(archs[chosen], mode="drop"),
        places=state.places + jnp.sum(place < capacity, dtype=jnp.int32),
        asked=place.astype(jnp.int32),
    )
    return state, propose(archs[chosen])


def build(config: Any, space: Space, task: Task, knowledge: Any) -> tuple[SearchMethod, Evaluator]:
    """The search with the numbers of `config.bananas`."""
    numbers, n = read(Bananas, config.bananas), config.search.batch
    method = make(space, numbers, n, places(config, task), task.allowed, task.existing)
    return method, task.evaluator
