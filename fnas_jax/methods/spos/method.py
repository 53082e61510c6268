"""Single-path one-shot search with uniform sampling (SPOS, arXiv 1904.00420).

Each step of `prepare` trains one architecture, drawn uniformly; then architectures are judged with
their inherited weights: uniform ones, and then children of the best (`evolution.py`), or uniform
ones only. The baseline of PGNAS, with the same optimizer: warm-up,
cosine decay of the rate, momentum, clipping, and decay of the weights that a step uses, of neither
norms nor biases. How much they decay is `children.weight_decay` here; in PGNAS the ELBO says it,
`pgnas.precision` over the number of training images.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array, Metrics, Proposal, propose
from fnas_jax.methods.base import Best, SearchMethod
from fnas_jax.methods.best import no_best, ranked_reward, update_best
from fnas_jax.methods.candidates import Allowed
from fnas_jax.methods.oneshot import ranking, stages, supernet
from fnas_jax.methods.oneshot.ranking import Ranking
from fnas_jax.methods.oneshot.stages import Tally
from fnas_jax.methods.oneshot.supernet import Supernet, Weights
from fnas_jax.methods.spos import evolution
from fnas_jax.methods.spos.config import Spos
from fnas_jax.spaces.base import Space

SCALARS = ("nll",)  # of a training step


class Context(NamedTuple):
    """Of one search; nothing that changes."""

    space: Space
    net: Supernet
    config: Spos
    decay: float  # of the weights that an architecture uses
    proposals: int  # N of each `ask`, `search.batch`
    initial: Callable[[Array], Any]  # key -> the parameters that the supernet starts from
    allowed: Allowed | None = None  # which networks may be children; None: all


class State(NamedTuple):
    """The supernet, and the best so far."""

    weights: Weights
    best: Best
    parents: Ranking  # of the children
    judged: Array  # [] int32 networks so far
    tally: Tally


def make(ctx: Context, prepare: Callable[..., Any] | None) -> SearchMethod:
    """Proposes architectures after `prepare` has trained the supernet."""
    return SearchMethod(
        functools.partial(init, ctx),
        functools.partial(ask, ctx),
        functools.partial(tell, ctx),
        best=lambda state: state.best,
        prepare=prepare,
    )


def init(ctx: Context, key: Array) -> State:
    """Before the training."""
    decisions = len(ctx.space.cardinalities)
    return State(
        weights=ctx.net.start(ctx.initial(key)),
        best=no_best(decisions),
        parents=ranking.empty(ctx.config.parents, decisions),
        judged=jnp.int32(0),
        tally=stages.nothing(SCALARS),
    )


def train(
    ctx: Context, state: State, images: Array, labels: Array, key: Array
) -> tuple[State, dict[str, Array]]:
    """One step with one architecture, uniform over decision vectors."""
    no_switches = jnp.zeros((1, 0, 0))
    arch = ctx.space.sample(key, 1)
    weights, output = supernet.train_step(
        ctx.net, state.weights, arch, no_switches, images, labels, ctx.decay
    )
    return state._replace(weights=weights), {"nll": output.nll.mean()}


def steps_done(state: State) -> Array:
    """[] int32 training steps."""
    return state.weights.step


def settle(state: State) -> State:
    """After the training."""
    return state._replace(weights=supernet.settled(state.weights))


def ask(ctx: Context, state: State, key: Array) -> tuple[State, Proposal]:
    """N architectures, uniform over decision vectors, or children of the best so far."""
    if ctx.config.sampling == "uniform":
        archs = ctx.space.sample(key, ctx.proposals)
        log_q = -jnp.log(jnp.asarray(ctx.space.cardinalities, jnp.float32)).sum()
        return state, propose(archs)._replace(log_prob=jnp.full(ctx.proposals, log_q))
    starts = evolution.starts(ctx.space, key, ctx.proposals, ctx.allowed)
    children = evolution.children(
        *(ctx.space, state.parents, ctx.config.mutation, jax.random.fold_in(key, 1)),
        n=ctx.proposals,
        allowed=ctx.allowed,
    )
    nobody = ~jnp.isfinite(state.parents.rewards).any()
    starting = (state.judged < ctx.config.start) | nobody
    return state, propose(jnp.where(starting, starts, children))


def tell(ctx: Context, state: State, proposal: Proposal, metrics: Metrics) -> State:
    """The best so far; parents are those that were judged themselves, and not in another form."""
    rewards = jnp.where(metrics.fresh, ranked_reward(proposal, metrics), -jnp.inf)
    return state._replace(
        best=update_best(state.best, proposal, metrics),
        parents=ranking.add(state.parents, proposal.archs, rewards),
        judged=state.judged + jnp.isfinite(rewards).sum(dtype=jnp.int32),
    )


def report(state: State, scalars: dict[str, Any]) -> dict[str, Any]:
    """What is logged of a part of the training."""
    nll = float(scalars["nll"])
    return {"nll": nll, "text": f": nll {nll:.4f}"}
