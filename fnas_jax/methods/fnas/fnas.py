"""FNAS (arXiv 2105.11694): reinforcement learning that trains only what its critic cannot foretell.

An iteration: the controller samples N architectures; the critic predicts their rewards with
uncertainties; the decision module says which are trained. Slots of the batch are kept for the
architectures that the critic thinks best (verification). Trained samples teach the critic, enter
the experience buffer and, with the predicted ones and as many replayed ones, the controller.
Then the controller practises on predictions alone, within a trust region (imagination).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array, Metrics, Proposal
from fnas_jax.methods import candidates
from fnas_jax.methods import scores as scoring
from fnas_jax.methods.base import Best, SearchMethod
from fnas_jax.methods.best import no_best, observed, update_best, usable
from fnas_jax.methods.fnas import acquire, decision, imagination, replay, transfer, uac
from fnas_jax.methods.rl import policy, ppo
from fnas_jax.spaces.base import Space


class Config(NamedTuple):
    """Hyper-parameters; core/config.py explains and documents the product's defaults."""

    batch: int = 8  # N
    hidden: int = 128  # units of the controller
    uac_enabled: bool = True
    aeb_enabled: bool = True
    capacity: int = 1024  # of the buffer
    replay: replay.Config = replay.Config()
    verify: acquire.Config = acquire.Config()
    uac: uac.Config = uac.Config()
    imagination: imagination.Config = imagination.Config()
    ppo: ppo.Config = ppo.Config()


class Asked(NamedTuple):
    """What `tell` needs to know of the proposal that `ask` made."""

    chosen: Array  # [N] bool: a verification, not drawn by the policy
    prediction: uac.Prediction
    seed: Array  # [] uint32 of the keys of `tell`


class State(NamedTuple):
    """Everything that a search remembers."""

    ppo: ppo.State
    uac: uac.State | None  # None where the critic is off
    buffer: replay.Buffer
    elite: Array  # [ELITE, T] best predicted candidates of the last iteration
    iteration: Array  # [] int32
    trained: Array  # [] int32 different architectures
    asked: Asked
    best: Best
    stats: dict[str, Array]


PPO_STATS = ("kl", "kl_last", "clip_fraction", "entropy", "ess", "loss")


def make(
    space: Space, config: Config | None = None, foreign: transfer.Foreign | None = None
) -> SearchMethod:
    """FNAS on `space`, starting from `foreign` samples of other tasks where there are any.

    Raises ValueError for numbers that do not fit together.
    """
    c = Config() if config is None else config
    n, decisions, picks = c.batch, len(space.cardinalities), c.verify.verify
    if not 0 <= picks <= n or c.capacity < max(n, acquire.ELITE):
        raise ValueError(f"verify {picks} or capacity {c.capacity} do not suit a batch of {n}")
    if (2 * n if c.aeb_enabled else n) % c.ppo.minibatches:
        raise ValueError(f"{c.ppo.minibatches} minibatches do not divide the batch")
    controller = policy.make(space.cardinalities, c.hidden)
    update = ppo.make_update(controller, c.ppo)
    # Foreign knowledge replaces the warm-up.
    warmup = 0 if foreign is not None else c.uac.decision.warmup
    rule = c.uac.decision._replace(warmup=warmup)
    critic = uac.make(space, c.uac, c.capacity, foreign)

    def init(key: Array) -> State:
        key_ppo, key_uac = jax.random.split(key)
        zeros = jnp.zeros(n, jnp.float32)
        names = [*PPO_STATS, "trained_now", "predicted_now", "replayed"]
        if c.uac_enabled:
            names += [*uac.STATS, "uncertainty"]
            names += ["imagined", "imagined_kl"] if c.imagination.iterations else []
        return State(
            ppo=ppo.init(controller, c.ppo, key_ppo),
            uac=critic.init(key_uac) if c.uac_enabled else None,
            buffer=replay.empty(c.capacity, decisions),
            elite=jnp.zeros((acquire.ELITE, decisions), jnp.int32),
            iteration=jnp.int32(0),
            trained=jnp.int32(0),
            asked=Asked(zeros > 0, uac.Prediction(zeros, zeros, zeros), jnp.uint32(0)),
            best=no_best(decisions),
            stats={name: jnp.float32(0) for name in names},
        )

    def preferred(archs: Array, cold: Array) -> Array:
        """[m] order of samples: as they are, or while `cold`, those without idle decisions first.

        A network has one canonical form, but may have thousands of decision vectors: most random
        cells are crippled ones. Vectors that are canonical already are uniform over networks, and
        a critic learns more from these (ours).
        """
        idle = jnp.sum(archs != space.canonical(archs), axis=1)
        return jnp.argsort(jnp.where(cold, idle, 0), stable=True)

    def ask(state: State, key: Array) -> tuple[State, Proposal]:
        key_sample, key_verify, key_decide, key_tell = jax.random.split(key, 4)
        # The critic sees more of the controller's samples than the batch holds.
        wide = n + (c.verify.pool // 8 if c.uac_enabled else 0)
        sampled, log_prob = controller.sample(state.ppo.params, key_sample, wide)
        if c.uac_enabled:
            order = preferred(sampled, state.trained < warmup)
            sampled, log_prob = sampled[order], log_prob[order]
        archs, log_prob = sampled[:n], log_prob[:n]
        chosen = jnp.zeros(n, bool)
        zeros = jnp.zeros(n, jnp.float32)
        asked = Asked(chosen, uac.Prediction(zeros, zeros, zeros), jax.random.bits(key_tell))
        if state.uac is None:
            unknown = jnp.full(n, jnp.inf, jnp.float32)
            return state._replace(asked=asked), Proposal(archs, ~chosen, log_prob, zeros, unknown)
        knowing = state.uac
        held = replay.filled(state.buffer)
        grown = state.trained >= warmup
        if picks:
            found, elite = acquire.choose(
                space,
                c.verify,
                key_verify,
                lambda forms: critic.predict(knowing, forms),
                state.buffer,
                state.elite,
                sampled,
            )
            now = grown & (state.iteration % c.verify.verify_every == 0)
            chosen = now & (jnp.arange(n) >= n - picks)
            archs = jnp.where(chosen[:, None], archs.at[n - picks :].set(found), archs)
            log_found, _ = controller.evaluate(state.ppo.params, found)
            log_prob = jnp.where(chosen, log_prob.at[n - picks :].set(log_found), log_prob)
            state = state._replace(elite=elite)
        forms = space.canonical(archs)
        prediction = critic.predict(knowing, forms)
        scores, scale = critic.targets(knowing, state.buffer)
        reward, high, low = (
            scoring.to_reward(scale, prediction.score + sign * prediction.width)
            for sign in (0, 1, -1)
        )
        deviation = decision.spread(scores, held, prediction.score)
        points = 50 * (high - low)
        train = decision.decide(
            rule, key_decide, prediction.width, deviation, points, state.trained
        )
        # What is known already costs nothing, and a reading beats a prediction.
        train |= candidates.contains(state.buffer.forms, forms) | chosen
        unsure = jnp.where(grown & held.any(), (high - low) / 2, jnp.inf)
        asked = asked._replace(chosen=chosen, prediction=prediction)
        # Without samples of this task, a score (of other tasks) says nothing about rewards.
        reward = jnp.where(held.sum() > 1, reward, jnp.nan)
        return state._replace(asked=asked), Proposal(archs, train, log_prob, reward, unsure)

    def remember(state: State, proposal: Proposal, metrics: Metrics) -> tuple[State, Array]:
        """The state with the newly trained samples in the buffer, and which these are, [N]."""
        asked, reward = state.asked, observed(proposal, metrics)
        forms = space.canonical(proposal.archs)
        measured = usable(proposal, metrics)
        same = jnp.all(forms[:, None] == forms, axis=-1) & measured
        first = same.argmax(axis=1) == jnp.arange(n)
        new = measured & first & ~candidates.contains(state.buffer.forms, forms)
        blank = jnp.zeros(n, jnp.float32)
        error, hint = blank, blank
        if state.uac is not None:
            _, scale = critic.targets(state.uac, state.buffer)
            known = (state.trained >= 2) & (state.trained >= warmup)
            error = jnp.abs(scoring.to_score(scale, reward) - asked.prediction.score)
            error = jnp.where(known, error, jnp.nan)
            hint = critic.hint(state.uac, forms)
        rows = replay.Buffer(
            archs=proposal.archs,
            forms=forms,
            reward=reward,
            log_mu=replay.log_mixture(proposal.log_prob, asked.chosen, n - picks),
            iteration=jnp.full(n, state.iteration),
            error=error,
            hint=hint,
            added=jnp.int32(0),
        )
        state = state._replace(
            buffer=replay.add(state.buffer, rows, new),
            trained=state.trained + new.sum(dtype=jnp.int32),
        )
        return state, new

    def learn(state: State, before: State, proposal: Proposal, reward: Array, new: Array) -> State:
        """The state whose critic has learnt from the `new` samples, judged on them first."""
        assert before.uac is not None
        _, scale = critic.targets(before.uac, before.buffer)
        checked = new & (before.trained >= 2) & (before.trained >= warmup)
        knowing, stats = critic.learn(
            before.uac,
            state.buffer,
            state.asked.prediction,
            scoring.to_score(scale, reward),
            reward,
            proposal.predicted,
            checked,
        )
        stats["uncertainty"] = state.asked.prediction.width.mean()
        return state._replace(uac=knowing, stats=state.stats | stats)

    def tell(state: State, proposal: Proposal, metrics: Metrics) -> State:
        key_update, key_replay, key_imagine = jax.random.split(jax.random.key(state.asked.seed), 3)
        before, reward = state, observed(proposal, metrics)
        state, new = remember(state, proposal, metrics)
        if state.uac is not None:
            state = learn(state, before, proposal, reward, new)
        # Fresh samples: what was trained, and what the critic was sure of.
        measured = usable(proposal, metrics)
        foretold = ~proposal.train_mask & jnp.isfinite(proposal.predicted)
        told = jnp.where(measured, reward, jnp.where(foretold, proposal.predicted, 0.0))
        log_mu = replay.log_mixture(proposal.log_prob, state.asked.chosen, n - picks)
        weight = replay.importance(proposal.log_prob, log_mu, c.replay.truncate)
        weight *= measured | foretold
        batch = ppo.make_batch(proposal.archs, proposal.log_prob, told, weight)
        again = jnp.float32(0)
        if c.aeb_enabled:
            extra = replay.batch(
                c.replay,
                key_replay,
                before.buffer,
                state.iteration,
                n,
                lambda archs: controller.evaluate(state.ppo.params, archs)[0],
            )
            again = (extra.weight > 0).sum(dtype=jnp.float32)
            batch = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), batch, extra)
        inner, stats = update(state.ppo, batch, key_update)
        stats |= {
            "replayed": again,
            "trained_now": metrics.fresh.sum(dtype=jnp.float32),
            "predicted_now": (~proposal.train_mask).sum(dtype=jnp.float32),
        }
        if state.uac is not None and c.imagination.iterations:
            knowing = state.uac
            _, scale = critic.targets(knowing, state.buffer)
            inner, figures = imagination.imagine(
                controller,
                update,
                inner,
                lambda archs: scoring.to_reward(
                    scale, critic.predict(knowing, space.canonical(archs)).score
                ),
                key_imagine,
                c.imagination,
                n,
                ready=state.trained >= jnp.maximum(warmup, 2),
            )
            stats |= figures
        return state._replace(
            ppo=inner,
            iteration=state.iteration + 1,
            best=update_best(state.best, proposal, metrics),
            stats=state.stats | stats,
        )

    return SearchMethod(
        jax.jit(init),  # hundreds of small draws: one program starts sooner
        ask,
        tell,
        best=lambda state: state.best,
        stats=lambda state: state.stats,
    )
