"""A Gaussian process on one-hot decisions with expected improvement or an upper bound.

The kernel is k(a, b) = exp(-h(a, b) / 2) with h the Hamming distance of canonical forms, and the
targets are the Gaussian scores of the rewards' ranks. With L L' = K + s I over the n evaluated
forms and V = L^-1 k(X, candidates), a candidate has

    mean = V' L^-1 y        variance = 1 - |V|^2 (by column)

Neither L nor V depends on y: an architecture's row is added when it is proposed, by one step of
an incremental Cholesky factorisation (the new row of L is a column of V), and the targets, which
all change with every new rank, only when it is told. Within a batch the variance shrinks while
the mean stays (GP-BUCB, Desautels et al., JMLR 2014).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from fnas_jax.core.types import Array, Proposal, propose
from fnas_jax.methods import gp_math
from fnas_jax.methods.base import Best, SearchMethod
from fnas_jax.methods.best import no_best, remember
from fnas_jax.methods.candidates import contains, draw
from fnas_jax.methods.scores import rank_scores
from fnas_jax.spaces.base import Space, one_hot
from fnas_jax.spaces.enumerate import enumerate_networks

if TYPE_CHECKING:
    from fnas_jax.tasks.base import Evaluator, Task

ACQUISITIONS = ("ei", "ucb")


class State(NamedTuple):
    """C places for evaluated forms, M candidates where the whole space is listed (else 0)."""

    forms: Array  # [C, T] int32 canonical; -1 in free places
    rewards: Array  # [C] float32
    told: Array  # [C] bool: has a reward
    factor: Array  # [C, C] float32 L; the identity in free places
    solved: Array  # [C, M] float32 V; zero in free places
    places: Array  # [] int32, taken so far
    asked: Array  # [N] int32, places of the last proposal; C: none was left
    best: Best


def make(
    space: Space,
    batch: int = 1,
    capacity: int = 200,
    acquisition: str = "ei",
    start: int = 10,
    noise: float = 0.05,
    beta: float = 1.0,
    limit: int = 20_000,
    pool: int = 768,
) -> SearchMethod:
    """A search with `start` random architectures first, then `batch` at a time by the model.

    `capacity` is the largest number of architectures that it can learn from; what is proposed
    beyond it is random. `noise` is the variance s of the targets' noise, `beta` the weight of the
    standard deviation in the upper bound. Spaces of at most `limit` decision vectors are searched
    whole; in larger ones an iteration looks at `pool` of `candidates.draw` about the best.
    No network is proposed twice as long as another candidate is left. Raises ValueError for an
    unknown acquisition.
    """
    if acquisition not in ACQUISITIONS:
        raise ValueError(f"acquisition {acquisition!r} is none of {', '.join(ACQUISITIONS)}")
    cards, decisions = space.cardinalities, len(space.cardinalities)
    everything = jnp.asarray(enumerate_networks(space)) if space.size <= limit else None

    def kernel(x: Array, y: Array) -> Array:
        """[n, T], [m, T] -> [n, m]."""
        return jnp.exp((one_hot(cards, x) @ one_hot(cards, y).T - decisions) / 2)

    def init(key: Array) -> State:
        listed = 0 if everything is None else len(everything)
        return State(
            forms=jnp.full((capacity, decisions), -1, jnp.int32),
            rewards=jnp.zeros(capacity, jnp.float32),
            told=jnp.zeros(capacity, bool),
            factor=jnp.eye(capacity, dtype=jnp.float32),
            solved=jnp.zeros((capacity, listed), jnp.float32),
            places=jnp.int32(0),
            asked=jnp.full(batch, capacity, jnp.int32),
            best=no_best(decisions),
        )

    def candidates(state: State, key: Array) -> tuple[Array, Array]:
        """Forms [M, T] and V [C, M]."""
        if everything is not None:
            return everything, state.solved
        scores = jnp.where(state.told, rank_scores(state.rewards, state.told), -jnp.inf)
        _, elite = jax.lax.top_k(scores, min(8, capacity))
        forms = draw(space, key, jnp.maximum(state.forms[elite], 0), pool)
        cross = jnp.where((state.forms[:, 0] >= 0)[:, None], kernel(state.forms, forms), 0.0)
        return forms, solve_triangular(state.factor, cross, lower=True)

    def value(mean: Array, variance: Array, best: Array) -> Array:
        """The acquisition function, by candidate."""
        deviation = jnp.sqrt(jnp.maximum(variance, 1e-9))
        if acquisition == "ucb":
            return gp_math.upper_bound(mean, deviation, beta)
        return gp_math.log_expected_improvement(mean, deviation, best)

    def ask(state: State, key: Array) -> tuple[State, Proposal]:
        key_pool, key_noise = jax.random.split(key)
        forms, solved = candidates(state, key_pool)
        scores = rank_scores(state.rewards, state.told)
        mean = solve_triangular(state.factor, scores, lower=True) @ solved
        highest = jnp.max(jnp.where(state.told, scores, -jnp.inf))
        variance = 1 - jnp.sum(solved**2, axis=0)
        taken = contains(state.forms, forms)
        tie_breaks = jax.random.uniform(key_noise, (batch, len(forms)))

        def add(carry: tuple, random: Array) -> tuple[tuple, tuple[Array, Array]]:
            state, solved, variance, taken = carry
            learnt = value(mean, variance, highest) + 1e-4 * random
            score = jnp.where((state.places < start) | (state.places >= capacity), random, learnt)
            j = jnp.argmax(jnp.where(taken, -jnp.inf, score))
            row = solved[:, j]
            pivot = jnp.sqrt(jnp.maximum(1 + noise - row @ row, noise))
            new = (kernel(forms[j][None], forms)[0] - row @ solved) / pivot
            # A network that is known already (nothing else was left) is not learnt again.
            place = jnp.where(taken[j], capacity, jnp.minimum(state.places, capacity))
            state = state._replace(
                forms=state.forms.at[place].set(forms[j], mode="drop"),
                factor=state.factor.at[place].set(
                    row.at[place].set(pivot, mode="drop"), mode="drop"
                ),
                places=state.places + (place < capacity),
            )
            solved = solved.at[place].set(new, mode="drop")
            return (state, solved, variance - new**2, taken | contains(forms[j][None], forms)), (
                forms[j],
                place,
            )

        start_ = (state, solved, variance, taken)
        (state, solved, _, _), (archs, asked) = jax.lax.scan(add, start_, tie_breaks)
        kept = solved if everything is not None else state.solved
        return state._replace(solved=kept, asked=asked.astype(jnp.int32)), propose(archs)

    return SearchMethod(init, ask, remember, best=lambda state: state.best)


def build(config: Any, space: Space, task: Task, knowledge: Any) -> tuple[SearchMethod, Evaluator]:
    """The process with the numbers of `config.gp`, for `config.search.budget` architectures."""
    section = config.gp
    method = make(
        space,
        config.search.batch,
        # A search ends with the iteration in which the budget is reached.
        capacity=config.search.budget + config.search.batch,
        acquisition=section.acquisition,
        start=section.start,
        noise=section.noise,
        beta=section.beta,
    )
    return method, task.evaluator
