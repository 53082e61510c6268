"""TNAS (Shala et al., ICLR 2023): Bayesian optimisation with a kernel meta-learnt on other tasks.

The search begins with a few architectures that did best on other tasks, or that fill the space
where there are none. Then, each trial: both processes of `belief.py` are fitted to what was
evaluated, and the candidates with the highest log expected improvement are proposed: the whole
space where it is small, else random ones, changes of the best, and changes of what the acquisition
function likes best. Within a batch, what is proposed is believed to turn out as predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from fnas_jax.core.rows import contains
from fnas_jax.core.types import Array, Proposal, propose
from fnas_jax.methods import candidates, gp_math
from fnas_jax.methods.base import SearchMethod
from fnas_jax.methods.best import no_best, remember
from fnas_jax.methods.tnas import design, gp_mixture, losses, meta, networks, surrogate
from fnas_jax.methods.tnas.networks import Weights
from fnas_jax.methods.tnas.source_tasks import SourceTasks, codes_needed, standardise
from fnas_jax.methods.tnas.state import Component, Config, State, check
from fnas_jax.methods.tnas.surrogate import Conditioned, Surrogate
from fnas_jax.spaces.base import Space
from fnas_jax.spaces.enumerate import enumerate_networks

ELITE = 8  # architectures whose neighbours are candidates, in spaces that are not listed


def make(
    space: Space,
    config: Config,
    history: SourceTasks | None = None,
    weights: Weights | None = None,
    support: SourceTasks | None = None,
    features: int = 1,
    keep: Callable[[Weights, float], None] | None = None,
) -> SearchMethod:
    """A search that knows the `history` of other tasks.

    `weights` are meta-learnt ones; without them, `prepare` learns them and hands them to `keep`
    with their tau. `support`: the rows that the posterior is conditioned on, by default all.
    `features`: numbers that describe an image. Raises ValueError for an unknown option.
    """
    check(config)
    c, decisions = config, len(space.cardinalities)
    support = history if support is None else support
    start = c.start if history is None else c.start_warm
    everything = jnp.asarray(enumerate_networks(space)) if space.size <= c.limit else None
    listed = jnp.zeros((0, decisions), jnp.int32) if everything is None else everything
    beta = c.beta if c.acquisition == "ucb" else None

    def side(s: Surrogate) -> Component:
        """Before any architecture of the task is known."""
        own = surrogate.empty(s, c.capacity)
        if everything is None:
            return Component(s, surrogate.empty(s, 0), own)
        return Component(s, surrogate.conditioned(space, c.net, s, listed), own)

    def look(side: Component, forms: Array) -> Conditioned:
        """The view of the candidates `forms`, which are all where the space is listed."""
        if everything is not None:
            return side.view
        return surrogate.conditioned(space, c.net, side.surrogate, forms)

    def first_weights(key: Array, tasks: int) -> Weights:
        return networks.init(key, space, c.net, tasks, features)

    def plan(cold: Component, warm: Component | None, key: Array) -> Array:
        """The initial design [start, T]."""
        key_random, key_draw = jax.random.split(key)
        some = space.canonical(space.sample(key_random, design.SPREAD_OVER))
        if everything is not None:
            some = jax.random.choice(
                key_random, everything, (min(design.SPREAD_OVER, len(everything)),), replace=False
            )
        if c.design == "random":
            return some[:start]
        if warm is None or history is None:
            xi = networks.embed_forms(
                c.net, cold.surrogate.weights, cold.surrogate.code, space, some
            )
            return some[design.k_medoids(xi, jnp.int32(0), start)]
        forms, view = listed, warm.view
        if everything is None:
            rows = history.forms.reshape(-1, decisions)
            scores = jnp.where(history.mask, history.scores, -jnp.inf).reshape(-1)
            parents = rows[jax.lax.top_k(scores, min(ELITE, len(rows)))[1]]
            forms = jnp.concatenate([candidates.draw(space, key_draw, parents, c.pool), some])
            view = look(warm, forms)
        found, _ = design.top_k(history, forms, view.mean)
        found = found[: design.TOP // 2]
        xi = surrogate.conditioned(space, c.net, warm.surrogate, found).xi
        return found[design.k_medoids(xi, jnp.int32(0), start)]

    def with_warm(state: State, learnt: Weights, key: Array) -> State:
        """The state that trusts `learnt` weights."""
        warm = side(surrogate.condition(space, c.net, learnt, support))
        return state._replace(warm=warm, design=plan(state.cold, warm, key))

    def init(key: Array) -> State:
        key_cold, key_warm, key_plan = jax.random.split(key, 3)
        cold = side(surrogate.condition(space, c.net, first_weights(key_cold, 0), None))
        state = State(
            forms=jnp.full((c.capacity, decisions), -1, jnp.int32),
            rewards=jnp.zeros(c.capacity, jnp.float32),
            told=jnp.zeros(c.capacity, bool),
            places=jnp.int32(0),
            asked=jnp.full(c.batch, c.capacity, jnp.int32),
            cold=cold,
            warm=None,
            design=jnp.zeros((start, decisions), jnp.int32),
            meta=None,
            share=jnp.float32(0),
            best=no_best(decisions),
        )
        if history is None:
            return state._replace(design=plan(cold, None, key_plan))
        # A run whose weights were stored meanwhile resumes with a state of the same form.
        known = first_weights(key_warm, codes_needed(history)) if weights is None else weights
        learning = meta.init(known)
        if weights is not None:
            learning = learning._replace(iteration=jnp.int32(c.meta.iterations))
        return with_warm(state, known, key_plan)._replace(meta=learning)

    def prepare(state: State, key: Array) -> Iterator[tuple[State, dict[str, float]]]:
        """Meta-learning by parts; a restored state goes on where it was."""
        assert history is not None and state.meta is not None
        key_meta, key_plan = jax.random.split(key)
        advance: Callable[[meta.State], meta.State] = jax.jit(
            lambda s: meta.advance(space, c.net, c.meta, s, history, key_meta)
        )
        learning = state.meta
        while int(learning.iteration) < c.meta.iterations:
            learning = advance(learning)
            state = state._replace(meta=learning)
            if int(learning.iteration) >= c.meta.iterations:
                state = jax.jit(with_warm)(state, learning.best, key_plan)
                if keep is not None:
                    keep(learning.best, float(learning.tau))
            yield state, {"iteration": int(learning.iteration), "tau": float(learning.tau)}

    def tuned(s: Component, rows: SourceTasks | None, state: State, values: Array) -> Component:
        """The side after a few steps of all weights on the likelihood of its own scores."""
        w, forms = s.surrogate.weights, jnp.maximum(state.forms, 0)
        codes = jnp.broadcast_to(s.surrogate.code, (c.capacity, c.net.code))
        seen = networks.inputs(space, forms)

        def loss(w: Weights) -> Array:
            xi = networks.embed(c.net, w, codes, seen)
            known = losses.Rows(xi, jnp.zeros(c.capacity, jnp.int32), values, state.told)
            prior = losses.log_prior(w.hyper, s.surrogate.weights.hyper)
            return losses.negative_log_likelihood(w.hyper, known) - prior

        w, _ = gp_math.minimise(loss, w, meta.rates(c.meta, w), c.adapt_steps)
        moved = surrogate.condition(space, c.net, w, rows)
        view = surrogate.conditioned(space, c.net, moved, forms)
        return side(moved)._replace(own=view)

    def believe(
        s: Component, scores: Array, told: Array
    ) -> tuple[gp_mixture.Targets, gp_mixture.Fit, Array]:
        warm = len(s.surrogate.xi) > 0
        targets = gp_mixture.align(scores, told, s.own.mean, warm)
        return targets, *gp_mixture.fit(s.surrogate, s.own, targets, c.adapt != "none")

    def ask(state: State, key: Array) -> tuple[State, Proposal]:
        key_first, key_second, key_noise = jax.random.split(key, 3)
        scores = standardise(state.rewards, state.told, c.target)
        sides = [state.cold] if state.warm is None else [state.cold, state.warm]
        if c.adapt == "all":
            rows = [None, support]
            sides = [tuned(s, r, state, scores) for s, r in zip(sides, rows, strict=False)]
        beliefs = [believe(s, scores, state.told) for s in sides]
        prior = jnp.log(jnp.array([1 - c.trust, c.trust]))
        log_weights = jnp.stack([b[2] for b in beliefs])
        log_weights = log_weights + prior if len(sides) > 1 else log_weights

        def value(
            views: list[Conditioned], owns: list[Conditioned], targets: list[gp_mixture.Targets]
        ) -> tuple:
            processes = [
                gp_mixture.process(s.surrogate, b[1], o, t, v, b[2])
                for s, b, o, t, v in zip(sides, beliefs, owns, targets, views, strict=True)
            ]
            return processes, gp_mixture.acquire(processes, log_weights, beta)

        owns, targets = [s.own for s in sides], [b[0] for b in beliefs]
        forms = listed
        if everything is None:
            order = jnp.where(state.told, state.rewards, -jnp.inf)
            elite = state.forms[jax.lax.top_k(order, min(ELITE, c.capacity))[1]]
            near = candidates.draw(space, key_first, jnp.maximum(elite, 0), c.pool)
            _, liked = value([look(s, near) for s in sides], owns, targets)
            elite = near[jax.lax.top_k(liked, ELITE)[1]]
            more = candidates.draw(space, key_second, elite, c.pool)
            forms = jnp.concatenate([near, more, state.design])
        views = [look(s, forms) for s in sides]
        taken = contains(state.forms, forms)
        tie_breaks = jax.random.uniform(key_noise, (c.batch, len(forms)))

        def add(carry: tuple, random: Array) -> tuple[tuple, tuple[Array, Array]]:
            state, owns, targets, taken = carry
            processes, learnt = value(views, owns, targets)
            blind = (state.places >= c.capacity) | ~targets[0].mask.any()
            score = jnp.where(blind, random, learnt + 1e-4 * random)
            planned = jnp.all(forms == state.design[jnp.minimum(state.places, start - 1)], axis=1)
            score = jnp.where((state.places < start) & planned, jnp.inf, score)
            j = jnp.argmax(jnp.where(taken, -jnp.inf, score))
            form, place = forms[j], jnp.where(taken[j], c.capacity, state.places)
            owns = [
                o._replace(
                    xi=o.xi.at[place].set(v.xi[j], mode="drop"),
                    mean=o.mean.at[place].set(v.mean[j], mode="drop"),
                    whitened_cross=o.whitened_cross.at[:, place].set(
                        v.whitened_cross[:, j], mode="drop"
                    ),
                )
                for o, v in zip(owns, views, strict=True)
            ]
            targets = [
                t._replace(
                    value=t.value.at[place].set(p.posterior.mean[j], mode="drop"),
                    mask=t.mask.at[place].set(True, mode="drop"),
                )
                for t, p in zip(targets, processes, strict=True)
            ]
            state = state._replace(
                forms=state.forms.at[place].set(form, mode="drop"),
                places=state.places + (place < c.capacity),
            )
            taken |= contains(form[None], forms)
            return (state, owns, targets, taken), (form, place)

        (state, owns, _, _), (archs, asked) = jax.lax.scan(
            add, (state, owns, targets, taken), tie_breaks
        )
        share = jax.nn.softmax(log_weights)[-1] if len(sides) > 1 else jnp.float32(0)
        state = state._replace(asked=asked.astype(jnp.int32), share=share)
        state = state._replace(cold=state.cold._replace(own=owns[0]))
        if state.warm is not None:
            state = state._replace(warm=state.warm._replace(own=owns[1]))
        return state, propose(archs)

    def stats(state: State) -> dict[str, Array]:
        rows = jnp.float32(0) if support is None else support.mask.sum().astype(jnp.float32)
        return {"trust": state.share, "foreign_rows": rows}

    return SearchMethod(
        init,
        ask,
        remember,
        best=lambda state: state.best,
        prepare=None if history is None else prepare,
        stats=stats,
    )
