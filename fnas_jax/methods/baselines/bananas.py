"""An ensemble of networks with independent Thompson sampling (after BANANAS, White et al. 2021).

AAAI 2021, arXiv 1910.11858. Before every batch, E networks are trained from new weights on what
was evaluated; a candidate's value is a draw from N(mean, deviation^2) of their predictions,
independently of the other candidates, and the highest draws are evaluated. Unlike the original,
architectures are encoded by their canonical decisions rather than by the paths of their graph, so
that every space can be searched, and targets are the Gaussian scores of the rewards' ranks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fnas_jax.core.types import Array, Proposal, propose
from fnas_jax.methods.base import Best, SearchMethod
from fnas_jax.methods.best import no_best, remember
from fnas_jax.methods.candidates import contains, draw, first_of_each
from fnas_jax.methods.scores import rank_scores
from fnas_jax.spaces.base import Space, one_hot

if TYPE_CHECKING:
    from fnas_jax.tasks.base import Evaluator, Task

ELITE = 8  # best architectures, whose changes are candidates
Mlp = list[tuple[Array, Array]]  # weights [inputs, outputs] and biases [outputs] of each layer


class Config(NamedTuple):
    """Hyper-parameters; core/config.py explains and documents the product's defaults."""

    start: int = 10  # random architectures before the ensemble is asked
    members: int = 5  # E
    hidden: int = 64  # units of both layers
    steps: int = 150  # of Adam, on all evaluated architectures at once
    lr: float = 0.01
    pool: int = 768  # candidates


class State(NamedTuple):
    """C places for evaluated forms."""

    forms: Array  # [C, T] int32 canonical; -1 in free places
    rewards: Array  # [C] float32
    told: Array  # [C] bool: has a reward
    places: Array  # [] int32, taken so far
    asked: Array  # [N] int32, places of the last proposal; C: none was left
    best: Best


def predict(member: Mlp, x: Array) -> Array:
    """[n, F] -> [n] scores."""
    for w, b in member[:-1]:
        x = jax.nn.relu(x @ w + b)
    return (x @ member[-1][0] + member[-1][1])[:, 0]


def fit(config: Config, key: Array, x: Array, scores: Array, mask: Array) -> Mlp:
    """E networks [E, ..] trained from new weights on the masked scores [n] of x [n, F].

    The loss is the mean absolute error, as in the original.
    """
    sizes = (x.shape[1], config.hidden, config.hidden, 1)
    optimiser = optax.adam(config.lr)

    def loss(member: Mlp) -> Array:
        error = jnp.abs(predict(member, x) - scores)
        return jnp.where(mask, error, 0.0).sum() / jnp.maximum(mask.sum(), 1)

    def one(key: Array) -> Mlp:
        keys = jax.random.split(key, len(sizes) - 1)
        member = [
            (jax.random.normal(k, (i, o)) * (2 / i) ** 0.5, jnp.zeros(o))
            for k, i, o in zip(keys, sizes[:-1], sizes[1:], strict=True)
        ]

        def step(carry: tuple, _: None) -> tuple[tuple, None]:
            member, moments = carry
            updates, moments = optimiser.update(jax.grad(loss)(member), moments)
            return (optax.apply_updates(member, updates), moments), None

        start = (member, optimiser.init(member))
        return jax.lax.scan(step, start, None, length=config.steps)[0][0]

    return jax.vmap(one)(jax.random.split(key, config.members))


def make(
    space: Space, batch: int = 1, capacity: int = 200, config: Config | None = None
) -> SearchMethod:
    """A search that learns from the first `capacity` architectures.

    Candidates are drawn by `candidates.draw` about the best; a network that is known is proposed
    only when they are fewer than the batch.
    """
    c, cards = Config() if config is None else config, space.cardinalities

    def init(key: Array) -> State:
        return State(
            forms=jnp.full((capacity, len(cards)), -1, jnp.int32),
            rewards=jnp.zeros(capacity, jnp.float32),
            told=jnp.zeros(capacity, bool),
            places=jnp.int32(0),
            asked=jnp.full(batch, capacity, jnp.int32),
            best=no_best(len(cards)),
        )

    def ask(state: State, key: Array) -> tuple[State, Proposal]:
        key_pool, key_fit, key_draw = jax.random.split(key, 3)
        scores = rank_scores(state.rewards, state.told)
        order = jnp.where(state.told, scores, -jnp.inf)
        elite = state.forms[jax.lax.top_k(order, min(ELITE, capacity))[1]]
        elite = jnp.where(elite >= 0, elite, state.best.arch)
        forms = draw(space, key_pool, elite, max(c.pool, 3 * batch))
        members = fit(c, key_fit, one_hot(cards, state.forms), scores, state.told)
        found = jax.vmap(predict, (0, None))(members, one_hot(cards, forms))
        noise = jax.random.normal(key_draw, (len(forms),))
        value = found.mean(axis=0) + found.std(axis=0) * noise
        # The first third of the candidates is random.
        blind = jnp.where(jnp.arange(len(forms)) < len(forms) // 3, noise, noise - 100)
        value = jnp.where(state.told.sum() < c.start, blind, value)
        known = contains(state.forms, forms) | ~first_of_each(forms)
        _, chosen = jax.lax.top_k(jnp.where(known, value - 1e3, value), batch)
        new = ~known[chosen]
        place = state.places + jnp.cumsum(new) - 1
        place = jnp.where(new & (place < capacity), place, capacity)
        state = state._replace(
            forms=state.forms.at[place].set(forms[chosen], mode="drop"),
            places=state.places + jnp.sum(place < capacity, dtype=jnp.int32),
            asked=place.astype(jnp.int32),
        )
        return state, propose(forms[chosen])

    return SearchMethod(init, ask, remember, best=lambda state: state.best)


def build(config: Any, space: Space, task: Task, knowledge: Any) -> tuple[SearchMethod, Evaluator]:
    """The search with the numbers of `config.bananas`."""
    section = config.bananas
    numbers = Config(**{name: section[name] for name in Config._fields})
    capacity = config.search.budget + config.search.batch
    return make(space, config.search.batch, capacity, numbers), task.evaluator
