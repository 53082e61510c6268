"""TNAS (Shala et al., ICLR 2023): Bayesian optimisation with a kernel meta-learnt on other tasks.

The search begins with a few architectures that did best on other tasks, or that fill the space
where there are none (`design.py`). Then, each trial: both processes of `gp_mixture.py` are fitted
to what was evaluated, and the candidates with the highest log expected improvement are proposed
(`batch.py`): among the whole space where it is small, else among random architectures, changes of
the best ones, and changes of those of the highest acquisition.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array, Proposal, propose
from fnas_jax.methods import candidates, gp_math
from fnas_jax.methods.base import SearchMethod
from fnas_jax.methods.best import no_best, remember
from fnas_jax.methods.candidates import Allowed
from fnas_jax.methods.tnas import batch, design, gp_mixture, losses, meta, networks, surrogate
from fnas_jax.methods.tnas.config import Tnas, check
from fnas_jax.methods.tnas.gp_mixture import Component, Mixture
from fnas_jax.methods.tnas.networks import Weights
from fnas_jax.methods.tnas.source_tasks import SourceTasks, codes_needed, standardise
from fnas_jax.methods.tnas.state import Context, State, component
from fnas_jax.spaces.base import Space

LISTED = 100_000  # spaces of at most so many decision vectors are searched whole


def context(
    space: Space,
    config: Tnas,
    proposals: int,
    capacity: int,
    source: SourceTasks | None = None,
    weights: Weights | None = None,
    support: SourceTasks | None = None,
    features: int = 1,
    keep: Callable[[Weights, float], None] | None = None,
    most_listed: int = LISTED,
    allowed: Allowed | None = None,
    existing: Array | None = None,
) -> Context:
    """Of a search that asks for `proposals` at a time and learns from `capacity` of them.

    It also learns from the `source` tasks, where there are any. `weights` are meta-learnt ones;
    without them, `prepare` learns them and hands them to `keep` with their tau. `support`: the rows
    that the posterior is conditioned on, by default all. `features`: numbers that describe an
    image. What is not `allowed` is not proposed as long as another candidate is left; `existing`
    is `Task.existing`. Raises ValueError for an unknown option, and where no network of a
    listed space is allowed.
    """
    check(config)
    listed = candidates.listed(space, most_listed, allowed, existing)
    support = source if support is None else support
    return Context(
        space,
        config,
        proposals,
        capacity,
        listed,
        source,
        support,
        weights,
        features,
        keep,
        allowed,
        existing,
    )


def make(ctx: Context) -> SearchMethod:
    """The search of `ctx`."""
    return SearchMethod(
        functools.partial(init, ctx),
        functools.partial(ask, ctx),
        remember,
        best=lambda state: state.best,
        prepare=None if ctx.source is None else functools.partial(prepare, ctx),
        stats=functools.partial(stats, ctx),
    )


def first_weights(ctx: Context, key: Array, tasks: int) -> Weights:
    """Weights that have learnt nothing, with `tasks` codes to learn."""
    return networks.init(key, ctx.space, ctx.config, tasks, ctx.features)


def init(ctx: Context, key: Array) -> State:
    """Before the first proposal; nothing is learnt from the source tasks yet."""
    key_cold, key_warm, key_design = jax.random.split(key, 3)
    decisions = len(ctx.space.cardinalities)
    untrained = first_weights(ctx, key_cold, 0)
    cold = component(ctx, surrogate.condition(ctx.space, ctx.config, untrained, None))
    state = State(
        archs=jnp.full((ctx.capacity, decisions), -1, jnp.int32),
        rewards=jnp.zeros(ctx.capacity, jnp.float32),
        observed=jnp.zeros(ctx.capacity, bool),
        places=jnp.int32(0),
        asked=jnp.full(ctx.proposals, ctx.capacity, jnp.int32),
        cold=cold,
        warm=None,
        design=jnp.zeros((ctx.start, decisions), jnp.int32),
        meta=None,
        share=jnp.float32(0),
        best=no_best(decisions),
    )
    if ctx.source is None:
        return state._replace(design=design.initial(ctx, cold, None, key_design))
    # A run whose weights were stored meanwhile resumes with a state of the same form.
    start = ctx.weights
    start = first_weights(ctx, key_warm, codes_needed(ctx.source)) if start is None else start
    learning = meta.init(start)
    if ctx.weights is not None:
        learning = learning._replace(iteration=jnp.int32(ctx.config.iterations))
    return with_warm(ctx, state, start, key_design)._replace(meta=learning)


def with_warm(ctx: Context, state: State, weights: Weights, key: Array) -> State:
    """The state whose warm component and initial design are those of `weights`."""
    warm = component(ctx, surrogate.condition(ctx.space, ctx.config, weights, ctx.support))
    return state._replace(warm=warm, design=design.initial(ctx, state.cold, warm, key))


def prepare(ctx: Context, state: State, key: Array) -> Iterator[tuple[State, dict[str, Any]]]:
    """Meta-learning by parts; a restored state goes on where it was."""
    assert ctx.source is not None and state.meta is not None
    key_meta, key_design = jax.random.split(key)
    learner, total = meta.Context(ctx.space, ctx.config, ctx.source), ctx.config.iterations
    advance = jax.jit(functools.partial(meta.advance, learner, key=key_meta))
    trust = jax.jit(functools.partial(with_warm, ctx))
    learning = state.meta
    while int(learning.iteration) < total:
        learning = advance(learning)
        state = state._replace(meta=learning)
        if int(learning.iteration) >= total:
            state = trust(state, learning.best, key_design)
            if ctx.keep is not None:
                ctx.keep(learning.best, float(learning.tau))
        done = int(learning.iteration)
        yield state, {"iteration": done, "tau": float(learning.tau), "steps": (done, total)}


def ask(ctx: Context, state: State, key: Array) -> tuple[State, Proposal]:
    """The next N architectures."""
    key_first, key_second, key_noise = jax.random.split(key, 3)
    mixture = fit_mixture(ctx, state)
    pool = batch.pool(ctx, state, mixture, key_first, key_second)
    chosen, archs, places = batch.choose(ctx, state, mixture, pool, key_noise)
    share = jax.nn.softmax(mixture.log_weights)[-1] if state.warm is not None else jnp.float32(0)
    state = state._replace(
        archs=chosen.archs,
        places=chosen.places,
        asked=places.astype(jnp.int32),
        cold=state.cold._replace(own=chosen.own[0]),
        share=share,
    )
    if state.warm is not None:
        state = state._replace(warm=state.warm._replace(own=chosen.own[1]))
    return state, propose(archs)


def fit_mixture(ctx: Context, state: State) -> Mixture:
    """Both components fitted to what was evaluated, as `config.adapt` says, and their weights."""
    scores = standardise(state.rewards, state.observed, ctx.config.target)
    components = [state.cold] if state.warm is None else [state.cold, state.warm]
    if ctx.config.adapt == "all":
        supports = [None, ctx.support][: len(components)]
        components = [
            adapt_weights(ctx, c, support, state, scores)
            for c, support in zip(components, supports, strict=True)
        ]
    adapt = ctx.config.adapt != "none"
    fitted = [gp_mixture.fit_component(c, scores, state.observed, adapt) for c in components]
    log_weights = jnp.stack([f.evidence for f in fitted])
    if len(fitted) > 1:
        log_weights += jnp.log(jnp.array([1 - ctx.config.trust, ctx.config.trust]))
    return Mixture(fitted, log_weights)


def adapt_weights(
    ctx: Context, prior: Component, support: SourceTasks | None, state: State, scores: Array
) -> Component:
    """The component after a few steps of all weights on the likelihood of own scores [C]."""
    w, archs = prior.surrogate.weights, jnp.maximum(state.archs, 0)
    codes = jnp.broadcast_to(prior.surrogate.code, (ctx.capacity, ctx.config.code))
    inputs, task = networks.inputs(ctx.space, archs), jnp.zeros(ctx.capacity, jnp.int32)

    def loss(w: Weights) -> Array:
        xi = networks.embed(ctx.config, w, codes, inputs)
        rows = losses.Rows(xi, task, scores, state.observed)
        log_prior = losses.log_prior(w.hyper, prior.surrogate.weights.hyper)
        return losses.negative_log_likelihood(w.hyper, rows) - log_prior

    w, _ = gp_math.minimise(loss, w, meta.rates(ctx.config, w), ctx.config.adapt_steps)
    moved = surrogate.condition(ctx.space, ctx.config, w, support)
    own = surrogate.conditioned(ctx.space, ctx.config, moved, archs)
    return component(ctx, moved)._replace(own=own)


def stats(ctx: Context, state: State) -> dict[str, Array]:
    """The weight of the transferred process, and the rows that it is conditioned on."""
    rows = jnp.float32(0)
    if ctx.support is not None:
        rows = ctx.support.mask.sum().astype(jnp.float32)
    return {"trust": state.share, "foreign_rows": rows}
