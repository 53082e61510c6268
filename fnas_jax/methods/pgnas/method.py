"""PGNAS: the weights of a supernet and the posterior over its architectures, learnt together.

`prepare` trains both (`step.py`); then architectures are drawn from the posterior and judged with
their inherited weights. Source: arXiv 1906.09557. Ours: samples above a budget are drawn again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from fnas_jax.core.types import Array, Metrics, Proposal, propose
from fnas_jax.methods.base import Best, SearchMethod
from fnas_jax.methods.best import no_best, ranked_reward, update_best
from fnas_jax.methods.oneshot import ranking, stages, supernet
from fnas_jax.methods.oneshot.ranking import Ranking
from fnas_jax.methods.oneshot.stages import Tally
from fnas_jax.methods.pgnas import step
from fnas_jax.methods.pgnas.posterior import Posterior
from fnas_jax.methods.pgnas.step import Learnt
from fnas_jax.spaces.base import Space

CANDIDATES = 16  # draws for each proposal, of which those within the budget are taken first


class Context(NamedTuple):
    """Of one search; nothing that changes."""

    space: Space
    training: step.Context
    proposals: int  # N of each `ask`, `search.batch`
    initial: Callable[[Array], Any]  # key -> the parameters that the supernet starts from


class State(NamedTuple):
    """Everything of a run."""

    learnt: Learnt
    best: Best
    ranking: Ranking
    samples: Array  # [N, T] int32 the last ones asked for
    log_q: Array  # [N] float32 nats
    tally: Tally


def make(ctx: Context, prepare: Callable[..., Any] | None) -> SearchMethod:
    """Samples from what `prepare` has learnt."""
    return SearchMethod(
        functools.partial(init, ctx),
        functools.partial(ask, ctx),
        functools.partial(tell, ctx),
        best=lambda state: state.best,
        prepare=prepare,
        stats=functools.partial(stats, ctx),
        done=functools.partial(done, ctx),
    )


def init(ctx: Context, key: Array) -> State:
    """Before the training."""
    decisions = ctx.training.q.decisions
    return State(
        learnt=step.start(ctx.training, ctx.initial(key)),
        best=no_best(decisions),
        ranking=ranking.empty(ctx.training.config.top, decisions),
        samples=jnp.zeros((ctx.proposals, decisions), jnp.int32),
        log_q=jnp.zeros(ctx.proposals),
        tally=stages.nothing(step.SCALARS),
    )


def train(
    ctx: Context, state: State, images: Array, labels: Array, key: Array
) -> tuple[State, dict[str, Array]]:
    """One training step on a minibatch; see `step.step`."""
    learnt, scalars = step.step(ctx.training, state.learnt, images, labels, key)
    return state._replace(learnt=learnt), scalars


def steps_done(state: State) -> Array:
    """[] int32 training steps."""
    return state.learnt.steps


def settle(state: State) -> State:
    """After the training."""
    weights = supernet.settled(state.learnt.weights)
    return state._replace(learnt=state.learnt._replace(weights=weights))


def ask(ctx: Context, state: State, key: Array) -> tuple[State, Proposal]:
    """N samples of the posterior; those above the budget are not to be judged."""
    q, config, phi = ctx.training.q, ctx.training.config, state.learnt.phi
    z = q.draw(phi, q.noise(key, CANDIDATES * ctx.proposals if config.mflops else ctx.proposals))
    archs = q.to_archs(z)
    fits = jnp.ones(len(archs), bool)
    if config.mflops:
        fits = ctx.training.costs(archs) <= config.mflops
        first = jnp.argsort(~fits, stable=True)[: ctx.proposals]
        z, archs, fits = z[first], archs[first], fits[first]
    log_q = q.log_prob(phi, z)
    unknown = jnp.where(fits, 0.0, jnp.nan)
    proposal = propose(archs)._replace(log_prob=log_q, train_mask=fits, predicted=unknown)
    return state._replace(samples=archs, log_q=log_q), proposal


def tell(ctx: Context, state: State, proposal: Proposal, metrics: Metrics) -> State:
    """The best samples so far, and for how long they have been the best."""
    rewards = ranked_reward(proposal, metrics)
    return state._replace(
        best=update_best(state.best, proposal, metrics),
        ranking=ranking.add(state.ranking, ctx.space.canonical(proposal.archs), rewards),
    )


def stats(ctx: Context, state: State) -> dict[str, Array]:
    """The samples and what q says of them; entropy in nats."""
    return {
        "samples": state.samples,
        "log_q": state.log_q,
        "stable": state.ranking.stable,
        "entropy": ctx.training.q.entropy(state.learnt.phi).sum(),
    }


def done(ctx: Context, state: State) -> Array:
    """[] bool: the best have stayed the best for long enough."""
    patience = ctx.training.config.patience
    return (patience > 0) & (state.ranking.stable >= patience)


def report(q: Posterior, space: Space, state: State, scalars: dict[str, Any]) -> dict[str, Any]:
    """What is logged of a part of the training: means over its steps, and where phi stands now.

    Nats per image; `entropy_slots` in nats, `pi` a list for each decision.
    """
    phi = state.learnt.phi
    figures = {name: float(value) for name, value in scalars.items()}
    figures["kl"] = sum(figures[f"kl_{part}"] for part in ("weights", "cost", "entropy"))
    slots = [float(h) for h in q.entropy(phi)]
    mode = [int(a) for a in q.to_archs(q.mode(phi))]
    text = (
        f": nll {figures['nll']:.4f}, kl {figures['kl']:.4f}, entropy {sum(slots):.2f} nats"
        f" ({min(slots):.2f} to {max(slots):.2f} a slot), mode {space.describe(mode)['text']}"
    )
    return figures | {
        "entropy": sum(slots),
        "entropy_slots": slots,
        "mode": mode,
        "pi": q.by_decision(phi),
        "gamma": float(state.learnt.gamma),
        "text": text,
    }
