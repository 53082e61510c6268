"""What a proposal teaches once it is measured: the buffer, the critic, and the controller."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fnas_jax.core.rows import contains, first_of_each
from fnas_jax.core.types import Array, Metrics, Proposal
from fnas_jax.methods import scores as scoring
from fnas_jax.methods.best import measured_reward, usable
from fnas_jax.methods.fnas import imagination, replay, uac
from fnas_jax.methods.fnas.state import Context, State, critic_of
from fnas_jax.methods.rl import policy as policies
from fnas_jax.methods.rl import ppo


def checkable(ctx: Context, state: State) -> Array:
    """[] bool: predictions count, so that their errors say something about the critic."""
    return (state.trained >= 2) & (state.trained >= ctx.warmup)


def remember(
    ctx: Context, state: State, proposal: Proposal, metrics: Metrics
) -> tuple[State, Array]:
    """The state with the newly trained samples in the buffer, and which these are, [N]."""
    asked, reward = state.asked, measured_reward(proposal, metrics)
    canonical = ctx.space.canonical(proposal.archs)
    new = first_of_each(canonical, usable(proposal, metrics))
    new &= ~contains(state.buffer.canonical, canonical)
    blank = jnp.zeros(len(canonical), jnp.float32)
    error, source_prediction = blank, blank
    if ctx.critic is not None:
        critic, known = critic_of(ctx, state)
        _, scale = uac.targets(critic, known, state.buffer)
        error = jnp.abs(scoring.to_score(scale, reward) - asked.prediction.score)
        error = jnp.where(checkable(ctx, state), error, jnp.nan)
        source_prediction = uac.source_prediction(critic, known, canonical)
    rows = replay.Buffer(
        archs=proposal.archs,
        canonical=canonical,
        reward=reward,
        log_mu=proposal.log_prob + asked.log_tilt,
        iteration=jnp.full(len(canonical), state.iteration),
        error=error,
        source_prediction=source_prediction,
        added=jnp.int32(0),
    )
    state = state._replace(
        buffer=replay.add(state.buffer, rows, new),
        trained=state.trained + new.sum(dtype=jnp.int32),
    )
    return state, new


def teach_critic(
    ctx: Context, state: State, before: State, proposal: Proposal, reward: Array, new: Array
) -> tuple[State, dict[str, Array]]:
    """The state whose critic has learnt from the `new` samples, judged on them first."""
    critic, known = critic_of(ctx, before)
    _, scale = uac.targets(critic, known, before.buffer)
    reading = uac.Reading(
        prediction=state.asked.prediction,
        predicted=proposal.predicted,
        score=scoring.to_score(scale, reward),
        reward=reward,
        checked=new & checkable(ctx, before),
        explored=state.asked.explored,
    )
    known, stats = uac.learn(critic, known, state.buffer, reading)
    stats["uncertainty"] = state.asked.prediction.width.mean()
    return state._replace(uac=known), stats


def samples(
    ctx: Context, state: State, key: Array, proposal: Proposal, metrics: Metrics
) -> tuple[ppo.Batch, Array]:
    """What the controller learns from, and how many of it are replayed, [].

    The batch's rewards, measured or predicted, and, with the buffer of `state`, as many replayed
    samples. What is neither measured nor predicted weighs nothing.
    """
    measured = usable(proposal, metrics)
    predicted = ~proposal.train_mask & jnp.isfinite(proposal.predicted)
    reward = jnp.where(predicted, proposal.predicted, 0.0)
    reward = jnp.where(measured, measured_reward(proposal, metrics), reward)
    asked = state.asked
    log_mu = proposal.log_prob + asked.log_tilt
    weight = replay.importance(proposal.log_prob, log_mu, ctx.config.aeb.truncate)
    weight *= measured | predicted
    batch = ppo.make_batch(proposal.archs, proposal.log_prob, reward, weight, ~asked.acquired)
    if not ctx.config.aeb.enabled:
        return batch, jnp.float32(0)
    replayed = replay.batch(
        ctx.config.aeb,
        key,
        state.buffer,
        state.iteration,
        ctx.config.batch,
        lambda archs: policies.log_prob_and_entropy(ctx.policy, state.ppo.params, archs)[0],
    )
    batch = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), batch, replayed)
    return batch, (replayed.weight > 0).sum(dtype=jnp.float32)


def imagine(ctx: Context, state: State, key: Array) -> tuple[State, dict[str, Array]]:
    """The state whose controller has practised on predictions alone, and how far that went."""
    critic, known = critic_of(ctx, state)
    _, scale = uac.targets(critic, known, state.buffer)

    def reward(archs: Array) -> Array:
        score = uac.predict(critic, known, ctx.space.canonical(archs)).score
        return scoring.to_reward(scale, score)

    inner, figures = imagination.imagine(
        ctx.policy,
        ctx.config.fnas,
        ctx.config.ppo,
        state.ppo,
        reward,
        key,
        ctx.config.batch,
        ready=state.trained >= max(ctx.warmup, 2),
    )
    return state._replace(ppo=inner), figures
