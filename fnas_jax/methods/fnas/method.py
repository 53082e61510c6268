"""FNAS (arXiv 2105.11694): reinforcement learning that trains only what its critic cannot predict.

An iteration: the controller samples N architectures; the critic predicts their rewards with
uncertainties; the decision module says which are trained. Places of the batch are kept for the
architectures that the critic thinks best (`acquire.py`). Trained samples teach the critic, enter
the experience buffer and, with the predicted ones and as many replayed ones, the controller.
Then the controller practises on predictions alone, within a trust region (imagination).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.rows import contains
from fnas_jax.core.types import Array, Metrics, Proposal, UserError
from fnas_jax.methods import candidates
from fnas_jax.methods import scores as scoring
from fnas_jax.methods.base import SearchMethod
from fnas_jax.methods.best import measured_reward, no_best, update_best
from fnas_jax.methods.fnas import acquire, decision, learning, replay, transfer, uac
from fnas_jax.methods.fnas.config import Config
from fnas_jax.methods.fnas.state import Context, State, critic_of, nothing_asked
from fnas_jax.methods.rl import policy as policies
from fnas_jax.methods.rl import ppo
from fnas_jax.methods.rl.config import with_epochs
from fnas_jax.methods.rl.policy import Policy
from fnas_jax.spaces.base import Space

LISTED = 20_000  # spaces of at most so many decision vectors are looked through whole
RULES = ("warmup", "uncertainty", "exploration", "verification")  # that have children trained


def make(
    space: Space,
    config: Config,
    source: transfer.SourceTasks | None = None,
    existing: Array | None = None,
) -> SearchMethod:
    """FNAS on `space`, starting from samples of other tasks where there are any.

    `existing`: `Task.existing`. Raises UserError for numbers that do not fit together.
    """
    ctx = context(space, config, source, existing)
    return SearchMethod(
        jax.jit(partial(init, ctx)),  # hundreds of small draws: one program starts sooner
        partial(ask, ctx),
        partial(tell, ctx),
        best=lambda state: state.best,
        stats=lambda state: state.stats,
        details=lambda state: policies.details(ctx.policy, state.ppo.params),
    )


def context(
    space: Space,
    config: Config,
    source: transfer.SourceTasks | None = None,
    existing: Array | None = None,
) -> Context:
    """What every step of a search is given. Raises UserError as `make` does."""
    n = config.batch
    if not 0 <= config.fnas.verify <= n:
        raise UserError(f"{config.fnas.verify} acquired ones do not suit a batch of {n}")
    if (2 * n if config.aeb.enabled else n) % config.ppo.minibatches:
        raise UserError(f"{config.ppo.minibatches} minibatches do not divide the batch")
    capacity = max(config.aeb.capacity, n, replay.ELITE)
    critic = None
    if config.uac.enabled:
        critic = uac.make(space, config.uac, config.fnas, capacity, source)
    return Context(
        space=space,
        config=config._replace(ppo=with_epochs(config.ppo, config.aeb.enabled)),
        policy=Policy(space.cardinalities, config.ppo.hidden, existing=existing),
        critic=critic,
        capacity=capacity,
        # Knowledge of other tasks replaces the warm-up.
        warmup=0 if source is not None else config.uac.warmup,
        everything=listed(space, existing) if critic is not None and config.fnas.verify else None,
        existing=existing,
    )


def listed(space: Space, existing: Array | None) -> Array | None:
    """[M, T] all networks of a space that is small enough, yet has as many as an elite."""
    networks = candidates.listed(space, LISTED, existing=existing)
    return networks if networks is not None and len(networks) >= replay.ELITE else None


def init(ctx: Context, key: Array) -> State:
    """A search that has trained nothing."""
    key_ppo, key_uac = jax.random.split(key)
    decisions = len(ctx.space.cardinalities)
    names = [*ppo.STATS, "trained_now", "predicted_now", "replayed"]
    if ctx.critic is not None:
        names += [*uac.STATS, "uncertainty"]
        names += [f"for_{rule}" for rule in RULES]
        names += ["imagined", "imagined_kl"] if ctx.config.fnas.imagination else []
    return State(
        ppo=ppo.init(ctx.policy, ctx.config.ppo, key_ppo),
        uac=None if ctx.critic is None else uac.init(ctx.critic, key_uac),
        buffer=replay.empty(ctx.capacity, decisions),
        elite=first_elite(ctx),
        iteration=jnp.int32(0),
        trained=jnp.int32(0),
        asked=nothing_asked(ctx.config.batch),
        best=no_best(decisions),
        stats={name: jnp.float32(0) for name in names},
    )


def first_elite(ctx: Context) -> Array:
    """[ELITE, T] candidates before any was chosen, which exist."""
    shape = (replay.ELITE, len(ctx.space.cardinalities))
    if ctx.existing is None:
        return jnp.zeros(shape, jnp.int32)
    return jnp.broadcast_to(ctx.space.canonical(ctx.existing[:1]), shape)


def ask(ctx: Context, state: State, key: Array) -> tuple[State, Proposal]:
    """The next N architectures, which of them are to be trained, and what is predicted of them."""
    key_sample, key_acquire, key_decide, key_tell = jax.random.split(key, 4)
    n = ctx.config.batch
    asked = nothing_asked(n)._replace(seed=jax.random.bits(key_tell))
    if ctx.critic is None:
        archs, log_prob = policies.sample(ctx.policy, state.ppo.params, key_sample, n)
        train = decision.decide(ctx.config.uac, ctx.warmup, key_decide, None, n).train
        zeros, unknown = jnp.zeros(n, jnp.float32), jnp.full(n, jnp.inf, jnp.float32)
        return state._replace(asked=asked), Proposal(archs, train, log_prob, zeros, unknown)
    drawn = sample(ctx, state, key_sample)
    archs, log_prob, tilt = (x[:n] for x in drawn)
    if ctx.config.fnas.verify:
        state, acquired, archs, log_prob = replace_acquired(
            ctx, state, key_acquire, drawn.archs, archs, log_prob
        )
        mixture = replay.log_mixture(log_prob, acquired, ctx.sampled) - log_prob
        asked = asked._replace(acquired=acquired)
        tilt = jnp.where(acquired, mixture, tilt)
    canonical = ctx.space.canonical(archs)
    prediction = uac.predict(*critic_of(ctx, state), canonical)
    targets = uac.targets(*critic_of(ctx, state), state.buffer)
    evidence = gather(state, targets, canonical, prediction, asked.acquired)
    train, explored = decision.decide(ctx.config.uac, ctx.warmup, key_decide, evidence, n)
    reward, unsure = predicted(ctx, state, targets[1], prediction, train)
    asked = asked._replace(explored=explored, log_tilt=tilt, prediction=prediction)
    return state._replace(asked=asked), Proposal(archs, train, log_prob, reward, unsure)


class Drawn(NamedTuple):
    """m architectures that the policy drew, of which the first N are the batch."""

    archs: Array  # [m, T] int32
    log_prob: Array  # [m] float32, nats
    log_tilt: Array  # [m] float32, nats: what the order makes of it, see `replay.log_selection`


def sample(ctx: Context, state: State, key: Array) -> Drawn:
    """More architectures than the batch holds, so that the critic sees them, too.

    While predictions do not count, those without idle decisions come first. A network has one
    canonical form, but may have thousands of decision vectors: most random cells have operations
    without effect. Vectors that are canonical already are uniform over networks, and a critic
    learns more from these (ours).
    """
    n = ctx.config.batch
    wide = n + ctx.config.fnas.pool // 8
    archs, log_prob = policies.sample(ctx.policy, state.ppo.params, key, wide)
    idle = jnp.sum(archs != ctx.space.canonical(archs), axis=1)
    level = jnp.where(state.trained < ctx.warmup, idle, 0)
    order = jnp.argsort(level, stable=True)
    return Drawn(archs[order], log_prob[order], replay.log_selection(level, n)[order])


def replace_acquired(
    ctx: Context, state: State, key: Array, sampled: Array, archs: Array, log_prob: Array
) -> tuple[State, Array, Array, Array]:
    """Puts what the critic thinks best in the last `fnas.verify` places of a batch.

    Every `fnas.verify_every` iterations, once predictions count. Returns the state with the next
    elite, which places these are [N], and `archs` [N, T] and `log_prob` [N] with them.
    """
    config, kept = ctx.config.fnas, ctx.sampled
    found, elite = acquire.choose(
        ctx.space,
        config,
        key,
        partial(uac.pick, *critic_of(ctx, state)),
        state.buffer,
        state.elite,
        sampled,
        ctx.everything,
        ctx.existing,
    )
    due = (state.trained >= ctx.warmup) & (state.iteration % config.verify_every == 0)
    acquired = due & (jnp.arange(len(archs)) >= kept)
    archs = jnp.where(acquired[:, None], archs.at[kept:].set(found), archs)
    log_found, _ = policies.log_prob_and_entropy(ctx.policy, state.ppo.params, found)
    log_prob = jnp.where(acquired, log_prob.at[kept:].set(log_found), log_prob)
    return state._replace(elite=elite), acquired, archs, log_prob


def gather(
    state: State,
    targets: tuple[Array, scoring.Scale],
    canonical: Array,
    prediction: uac.Prediction,
    acquired: Array,
) -> decision.Evidence:
    """What is known of N proposals before it is decided which are trained; `uac.targets` given."""
    scores, scale = targets
    return decision.Evidence(
        uncertainty=prediction.width,
        std=decision.score_std(scores, replay.filled(state.buffer), prediction.score),
        points=100 * half_range(scale, prediction.score, prediction.width),
        trained=state.trained,
        known=contains(state.buffer.canonical, canonical),
        acquired=acquired,
    )


def half_range(scale: scoring.Scale, score: Array, width: Array) -> Array:
    """[N] half of what lies between the rewards of `score` +- `width`."""
    high, low = (scoring.to_reward(scale, score + sign * width) for sign in (1, -1))
    return (high - low) / 2


def predicted(
    ctx: Context,
    state: State,
    scale: scoring.Scale,
    prediction: uac.Prediction,
    train: Array,
) -> tuple[Array, Array]:
    """Predicted rewards [N] and their standard deviations [N].

    Where the prediction stands for a training, the deviation is that of confident ones.
    """
    _, known = critic_of(ctx, state)
    mask = replay.filled(state.buffer)
    width = jnp.where(train, prediction.width, uac.confident_width(known, prediction))
    counts = (state.trained >= ctx.warmup) & mask.any()
    unsure = jnp.where(counts, half_range(scale, prediction.score, width), jnp.inf)
    # Without samples of this task, a score (of other tasks) says nothing about rewards.
    reward = scoring.to_reward(scale, prediction.score)
    return jnp.where(mask.sum() > 1, reward, jnp.nan), unsure


def causes(ctx: Context, state: State, proposal: Proposal, metrics: Metrics) -> dict[str, Array]:
    """How many networks each rule of the decision has had trained, {} without a critic."""
    if ctx.critic is None:
        return {}
    warm, asked = state.trained < ctx.warmup, state.asked
    unsure = ~(warm | asked.explored | asked.acquired)
    by_rule = (warm, unsure, asked.explored, asked.acquired)
    return {
        f"for_{rule}": (metrics.fresh & chosen).sum(dtype=jnp.float32)
        for rule, chosen in zip(RULES, by_rule, strict=True)
    }


def tell(ctx: Context, state: State, proposal: Proposal, metrics: Metrics) -> State:
    """The state that has learnt what the proposal turned out to be."""
    key_update, key_replay, key_imagine = jax.random.split(jax.random.key(state.asked.seed), 3)
    before = state
    state, new = learning.remember(ctx, state, proposal, metrics)
    stats = causes(ctx, before, proposal, metrics) | {
        "trained_now": metrics.fresh.sum(dtype=jnp.float32),
        "predicted_now": (~proposal.train_mask).sum(dtype=jnp.float32),
    }
    if ctx.critic is not None:
        reward = measured_reward(proposal, metrics)
        state, figures = learning.teach_critic(ctx, state, before, proposal, reward, new)
        stats |= figures
    batch, replayed = learning.samples(ctx, before, key_replay, proposal, metrics)
    inner, figures = ppo.update(ctx.policy, ctx.config.ppo, state.ppo, batch, key_update)
    stats |= figures | {"replayed": replayed}
    state = state._replace(ppo=inner)
    if ctx.critic is not None and ctx.config.fnas.imagination:
        state, figures = learning.imagine(ctx, state, key_imagine)
        stats |= figures
    return state._replace(
        iteration=state.iteration + 1,
        best=update_best(state.best, proposal, metrics),
        stats=state.stats | stats,
    )
