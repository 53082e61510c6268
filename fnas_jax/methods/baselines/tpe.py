"""Tree-structured Parzen estimators of all decisions together, as BOHB has them.

Falkner, Klein & Hutter, *BOHB*, ICML 2018 (arXiv 1807.01774), section 4 and algorithm 2, after
Bergstra et al., NeurIPS 2011. Evaluated networks are divided into good and bad ones, and two
densities of decisions are estimated; of `samples` candidates drawn near good networks, the one with
the largest l(x) / g(x), good over bad, is proposed. A share of all proposals is random.

A density is the mean over its n networks of a product of Aitchison & Aitken's kernels (1976), one
for each decision of K choices:

    k(a, b) = 1 - h where a = b, else h / (K - 1)        h = (K - 1) / (K (n + 1))

Ours: this bandwidth, by which the estimated share of a choice is (its count + 1 / K) / (n + 1).
That of BOHB's authors is a deviation of the choices' numbers, and so depends on how they are
numbered. Also ours: no network is proposed twice while a candidate is left.

Children that were stopped early (`children.halving`) were trained for fewer steps than others. As
in BOHB, only those are learnt from that have come furthest: that made at least as many steps as the
N_min + 2 furthest (N_min is the number of decisions and 1). Ours: they are compared by what is
expected of them after all steps (`training.halving`), and not by what they read on the way. What
failed, or was refused for its costs, is bad, however many there are, and never good.
"""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.config import read
from fnas_jax.core.rows import contains
from fnas_jax.core.types import Array, Metrics, Proposal, propose
from fnas_jax.methods import existing as rows_lib
from fnas_jax.methods.base import Best, SearchMethod
from fnas_jax.methods.baselines.config import Tpe
from fnas_jax.methods.best import no_best, remember
from fnas_jax.methods.candidates import Allowed, forbidden, listed, places
from fnas_jax.spaces.base import Space

if TYPE_CHECKING:
    from fnas_jax.tasks.base import Evaluator, Task

LOG = logging.getLogger(__name__)
LISTED = 20_000  # spaces of at most so many decision vectors have a list of their networks
ALL = np.iinfo(np.int32).max  # steps of a child that was not stopped
LARGEST = np.finfo(np.float32).max
TIE = 1e-3  # nats of a ratio below which chance decides
LAST = -1e4  # value of candidates that are taken where all others are known


class State(NamedTuple):
    """C places for evaluated networks."""

    canonical: Array  # [C, T] int32; -1 in free places
    rewards: Array  # [C] float32
    observed: Array  # [C] bool: has a reward
    steps: Array  # [C] int32 that it was trained; ALL: it was not stopped; 0: it failed
    places: Array  # [] int32, taken so far
    asked: Array  # [N] int32, places of the last proposal; C: none was left
    best: Best
    proposed: Array | None = None  # [L] bool, of the networks of a space that is listed


class Context(NamedTuple):
    """What does not change during a search."""

    space: Space
    config: Tpe
    batch: int  # N
    capacity: int  # C
    allowed: Allowed | None = None  # which candidates may be proposed; None: all
    existing: Array | None = None  # `Task.existing`
    everything: Array | None = None  # [L, T] all networks of a space that can be listed


class Density(NamedTuple):
    """A density of decisions, by the networks of `mask` among C."""

    archs: Array  # [C, T] int32 canonical
    mask: Array  # [C] bool
    widths: Array  # [T] float32 h


def make(
    space: Space,
    config: Tpe,
    batch: int,
    capacity: int,
    allowed: Allowed | None = None,
    existing: Array | None = None,
) -> SearchMethod:
    """A search that learns from the first `capacity` architectures, and from none beyond.

    A network that is known, or not `allowed`, is proposed only where no other candidate is left:
    in a space of at most LISTED decision vectors, where no other network is. `existing`:
    `Task.existing`; of these the nearest to what was drawn are candidates. Raises UserError where
    no network of a listed space is allowed.
    """
    everything = listed(space, LISTED, allowed, existing)
    ctx = Context(space, config, batch, capacity, allowed, existing, everything)
    return SearchMethod(partial(init, ctx), partial(ask, ctx), tell, best=lambda state: state.best)


def init(ctx: Context, key: Array) -> State:
    """Nothing is known."""
    decisions = len(ctx.space.cardinalities)
    return State(
        canonical=jnp.full((ctx.capacity, decisions), -1, jnp.int32),
        rewards=jnp.zeros(ctx.capacity, jnp.float32),
        observed=jnp.zeros(ctx.capacity, bool),
        steps=jnp.zeros(ctx.capacity, jnp.int32),
        places=jnp.int32(0),
        asked=jnp.full(ctx.batch, ctx.capacity, jnp.int32),
        best=no_best(decisions),
        proposed=rows_lib.nothing_asked(ctx.everything),
    )


def least(space: Space) -> int:
    """N_min: networks of a density, at least. The model is asked when 2 more are known."""
    return len(space.cardinalities) + 1


def divide(ctx: Context, state: State) -> tuple[Array, Array]:
    """(good [C] bool, bad [C] bool) networks; none where too few are known."""
    furthest = jnp.sort(jnp.where(state.observed, state.steps, 0), descending=True)
    few = least(ctx.space)
    edge = furthest.at[few + 1].get(mode="fill", fill_value=0)  # 0: not so many are known
    sound = state.observed & (state.steps >= edge) & (edge > 0)
    failed = state.observed & (state.steps == 0) & (edge > 0)
    order = jnp.where(sound, -state.rewards, jnp.where(failed, LARGEST, jnp.inf))
    rank = jnp.argsort(jnp.argsort(order, stable=True))
    count, every = sound.sum(), (sound | failed).sum()
    good = jnp.maximum(jnp.floor(ctx.config.good * count).astype(jnp.int32), few)
    bad = jnp.maximum(every - good, few)
    return sound & (rank < good), (sound | failed) & (rank >= every - bad)


def density(space: Space, archs: Array, mask: Array) -> Density:
    """That of the masked ones of `archs` [C, T]."""
    cards = jnp.asarray(space.cardinalities)
    return Density(archs, mask, (cards - 1) / (cards * (mask.sum() + 1)))


def log_density(space: Space, of: Density, x: Array) -> Array:
    """[M] float32 logarithms of the density at `x` [M, T]."""
    others = jnp.maximum(jnp.asarray(space.cardinalities) - 1, 1)
    equal, different = jnp.log1p(-of.widths), jnp.log(jnp.maximum(of.widths, 1e-9) / others)
    kernels = jnp.where(x[:, None] == of.archs, equal, different).sum(axis=-1)
    kernels = jnp.where(of.mask, kernels, -jnp.inf)
    return jax.nn.logsumexp(kernels, axis=1) - jnp.log(of.mask.sum())


def near(space: Space, of: Density, widen: float, key: Array, n: int) -> Array:
    """[n, T] int32 drawn from a density whose kernels are `widen` times as wide; any if it is of
    none.
    """
    key_row, key_change, key_choice = jax.random.split(key, 3)
    cards = jnp.asarray(space.cardinalities)
    # By places among the masked ones: however many free places there are, the numbers are the same.
    masked = jnp.argsort(~of.mask, stable=True)
    place = jnp.floor(jax.random.uniform(key_row, (n,)) * of.mask.sum()).astype(jnp.int32)
    rows = jnp.maximum(of.archs[masked[place]], 0)
    widths = jnp.minimum(widen * of.widths, (cards - 1) / cards)
    changed = jax.random.uniform(key_change, rows.shape) < widths
    step = 1 + jax.random.randint(key_choice, rows.shape, 0, jnp.maximum(cards - 1, 1))
    return jnp.where(changed, (rows + step) % cards, rows)


def drawn(ctx: Context, state: State, key: Array) -> tuple[Array, Array]:
    """Candidates of each of a batch: canonical [N, M, T], and their values [N, M].

    First those near good networks, then random ones, which count for those alone that are to be
    random, and where all others are known.
    """
    space, config = ctx.space, ctx.config
    key_near, key_random, key_which, key_ties, key_rows = jax.random.split(key, 5)
    masks = divide(ctx, state)
    good, bad = (density(space, state.canonical, mask) for mask in masks)
    close = near(space, good, config.widen, key_near, ctx.batch * config.samples)
    if ctx.existing is not None:
        close = rows_lib.nearest_of_each(ctx.existing, key_rows, close)
    close = space.canonical(close)
    ratio = log_density(space, good, close) - log_density(space, bad, close)
    # Many are equal, and rounding, which follows the number of places, is not to say which is best.
    ratio += TIE * jax.random.uniform(key_ties, ratio.shape)
    close = close.reshape(ctx.batch, config.samples, -1)
    random = at_random(ctx, state.proposed, key_random)
    blind = jax.random.uniform(key_which, (ctx.batch, 1)) < config.random
    blind |= ~masks[0].any()
    values = (
        jnp.where(blind, LAST, ratio.reshape(close.shape[:2])),
        jnp.broadcast_to(jnp.where(blind, 0.0, LAST / 2), random.shape[:2]),  # the first one
    )
    return jnp.concatenate([close, random], axis=1), jnp.concatenate(values, axis=1)


def at_random(ctx: Context, proposed: Array | None, key: Array) -> Array:
    """[N, R, T] canonical random candidates; of listed networks, those not `proposed` [L] first."""
    shape = (ctx.batch, ctx.config.samples)
    if ctx.everything is not None and proposed is not None:
        order = jax.random.uniform(key, (ctx.batch, len(proposed))) - proposed
        _, places = jax.lax.top_k(order, min(max(shape), len(proposed)))
        return ctx.everything[places]
    count = math.prod(shape)
    if ctx.existing is None:
        archs = ctx.space.sample(key, count)
    else:
        archs = ctx.existing[jax.random.randint(key, (count,), 0, len(ctx.existing))]
    return ctx.space.canonical(archs).reshape(*shape, -1)


def choose(
    ctx: Context, state: State, candidates: tuple[Array, Array]
) -> tuple[State, tuple[Array, Array]]:
    """Adds the best of some candidates ([M, T], their values [M]) to a batch: it [T], its place."""
    archs, values = candidates
    taken = contains(state.canonical, archs) | forbidden(ctx.allowed, archs)
    j = jnp.argmax(jnp.where(taken, -jnp.inf, values))
    # A network that is known already (nothing else was left) is not learnt again.
    place = jnp.where(taken[j], ctx.capacity, jnp.minimum(state.places, ctx.capacity))
    state = state._replace(
        canonical=state.canonical.at[place].set(archs[j], mode="drop"),
        places=state.places + (place < ctx.capacity),
    )
    return state, (archs[j], place)


def ask(ctx: Context, state: State, key: Array) -> tuple[State, Proposal]:
    """The next batch, one by one."""
    state, (chosen, asked) = jax.lax.scan(partial(choose, ctx), state, drawn(ctx, state, key))
    state = state._replace(asked=asked.astype(jnp.int32))
    if ctx.everything is not None and state.proposed is not None:
        state = state._replace(proposed=state.proposed | contains(chosen, ctx.everything))
    return state, propose(chosen)


def tell(state: State, proposal: Proposal, metrics: Metrics) -> State:
    """Rewards, and after how many steps."""
    stopped = jnp.zeros_like(state.asked) if metrics.stopped is None else metrics.stopped
    steps = jnp.where(metrics.ok, jnp.where(stopped > 0, stopped, ALL), 0)
    state = state._replace(steps=state.steps.at[state.asked].set(steps, mode="drop"))
    return remember(state, proposal, metrics)


def build(config: Any, space: Space, task: Task, knowledge: Any) -> tuple[SearchMethod, Evaluator]:
    """The search with the numbers of `config.tpe`."""
    numbers, n = read(Tpe, config.tpe), config.search.batch
    needed, most = least(space) + 2, config.search.budget
    if most <= needed:
        LOG.warning(
            "all of search.budget=%d is random: the model is asked when %d networks are known",
            *(most, needed),
        )
    method = make(space, numbers, n, places(config, task), task.allowed, task.existing)
    return method, task.evaluator
