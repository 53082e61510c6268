"""How the parts of FNAS are joined: who is shown decisions, who networks, and of which iteration.

Critic and policy are replaced by ones that repeat what they are shown, so that every number tells
where it comes from. `IDLE` has networks of more than one vector.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core.config import default
from fnas_jax.core.types import Proposal
from fnas_jax.methods import scores as scoring
from fnas_jax.methods.best import no_best
from fnas_jax.methods.fnas import (
    acquire,
    build,
    imagination,
    learning,
    method,
    replay,
    state,
    transfer,
    uac,
)
from fnas_jax.methods.fnas import critic as critics
from fnas_jax.methods.fnas.config import Aeb, Config, Fnas, Uac
from fnas_jax.methods.rl import policy as policies
from fnas_jax.methods.rl import ppo
from fnas_jax.methods.rl.config import Ppo
from tests.methods import toy

CONFIG = Config(
    batch=4,
    fnas=Fnas(pool=32, imagination=1),
    uac=Uac(members=2, hidden=8, tau=1e3, warmup=8, explore=0.0),
    aeb=Aeb(capacity=16),
    ppo=Ppo(hidden=8, epochs=2),
)
# The first two are one network, the third another.
DRAWN = jnp.array([[0, 3, 1, 1, 1], [0, 2, 1, 1, 1], [0, 1, 0, 2, 2], *([1, 2, 0, 0, 1],) * 5])
FOUND = np.int32([[2, 3, 1, 2, 0]])
KNOWN = np.int32([[0, 1, 1, 1, 1], [1, 1, 1, 0, 0]])  # the first is DRAWN's first, too
ELITE = 8


def code(archs):
    """[n] a number of each vector, in 0..1."""
    return archs @ np.array([72, 18, 9, 3, 1]) / 216


def network(archs):
    """[n] a number of each network, in 0..1."""
    return code(toy.IDLE.canonical(jnp.asarray(archs)))


def log_pi(archs):
    return -1 - code(archs)


def scale_of(buffer):
    """Rewards are scores and a tenth for each sample that was there."""
    knots = jnp.linspace(-20.0, 20.0, 3)
    return scoring.Scale(knots + 0.1 * buffer.added, knots)


@pytest.fixture
def ctx(monkeypatch):
    """FNAS whose critic knows a number, which its lessons raise by one."""

    def predict(critic, known, archs):
        one = jnp.ones(len(archs))
        return uac.Prediction(code(archs) + known, one, 2 * one)

    def learn(critic, known, buffer, reading):
        return known + 1, {"reading": reading, "rows": buffer.added}

    def update(policy, config, state, batch, key):
        return state, {"batch": batch}

    def imagine(policy, config, learning, grounded, reward, key, n, ready):
        return grounded, {"imagined": reward(DRAWN), "ready": ready}

    monkeypatch.setattr(uac, "predict", predict)
    monkeypatch.setattr(uac, "learn", learn)
    monkeypatch.setattr(uac, "targets", lambda c, known, b: (jnp.zeros(16), scale_of(b)))
    monkeypatch.setattr(uac, "confident_width", lambda known, prediction: 5 * prediction.sigma)
    monkeypatch.setattr(uac, "source_prediction", lambda critic, known, archs: -code(archs))
    monkeypatch.setattr(
        policies, "sample", lambda p, params, key, n: (DRAWN[:n], log_pi(DRAWN[:n]))
    )
    monkeypatch.setattr(
        policies, "log_prob_and_entropy", lambda p, params, archs: (log_pi(archs), code(archs))
    )
    monkeypatch.setattr(ppo, "update", update)
    monkeypatch.setattr(imagination, "imagine", imagine)
    return method.context(toy.IDLE, CONFIG)


def before(trained=9):
    """A search that has two samples."""
    free, zeros, nothing = np.full((14, 5), -1, np.int32), np.zeros(16, np.float32), np.float32(0)
    buffer = replay.Buffer(
        archs=np.concatenate([KNOWN, free]),
        canonical=np.concatenate([[[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]], free]).astype(np.int32),
        reward=np.float32([0.25, 0.5, *[0] * 14]),
        log_mu=np.concatenate([np.float32(log_pi(KNOWN)), zeros[2:]]),
        iteration=np.zeros(16, np.int32),
        error=zeros,
        source_prediction=zeros,
        added=np.int32(2),
    )
    return state.State(
        ppo=ppo.State(nothing, None, nothing, nothing, nothing),
        uac=nothing,
        buffer=buffer,
        elite=np.zeros((ELITE, 5), np.int32),
        iteration=np.int32(0),
        trained=np.int32(trained),
        asked=state.nothing_asked(4),
        best=no_best(5),
        stats={},
    )


def asked():
    """`before`, and a proposal of which the second is the first again and the third predicted."""
    archs = np.concatenate([[[0, 3, 0, 0, 1], [0, 2, 0, 0, 1]], DRAWN[2:3], FOUND]).astype(np.int32)
    one, place, log_prob = np.ones(4, np.float32), np.arange(4), np.float32(log_pi(archs))
    made = state.Asked(
        acquired=place == 3,
        explored=place == 1,
        log_tilt=np.float32([0.0, -0.5, 0.0, 0.5]),
        prediction=uac.Prediction(np.float32(code(archs)), one, 2 * one),
        seed=np.uint32(7),
    )
    return made, Proposal(jnp.asarray(archs), place != 2, log_prob, 0.9 * one, one)


def test_a_proposal_is_decisions_and_the_critic_judges_networks(ctx, monkeypatch):
    monkeypatch.setattr(acquire, "choose", lambda *args: (FOUND, jnp.ones((ELITE, 5), jnp.int32)))
    after, proposal = jax.jit(partial(method.ask, ctx))(before(), jax.random.key(0))
    archs = np.concatenate([DRAWN[:3], FOUND])
    np.testing.assert_array_equal(proposal.archs, archs)
    np.testing.assert_allclose(proposal.log_prob, log_pi(archs), rtol=1e-6)
    np.testing.assert_allclose(after.asked.prediction.score, network(archs), rtol=1e-6)
    np.testing.assert_allclose(proposal.predicted, network(archs) + 0.2, rtol=1e-5)
    # The first two are known by another vector, the last one is acquired, the third is predicted
    # and has the width of those that are.
    assert proposal.train_mask.tolist() == [True, True, False, True]
    np.testing.assert_allclose(proposal.uncertainty, [2, 2, 5, 2], rtol=1e-5)
    assert after.asked.acquired.tolist() == [False, False, False, True]
    # Three were drawn: mu = pi + 1 / 3 of what is acquired, pi of the rest.
    pi = np.exp(log_pi(archs))
    tilt = np.log(pi + np.array([0, 0, 0, 1 / 3])) - np.log(pi)
    np.testing.assert_allclose(after.asked.log_tilt, tilt, atol=1e-5)
    assert (after.elite == 1).all()


def test_what_is_acquired_is_a_new_network_in_its_canonical_form(ctx, monkeypatch):
    """However well the critic might think of vectors that are no networks."""

    def promise(archs):
        return 1e3 * (archs != toy.IDLE.canonical(archs)).any(axis=1) - code(archs)

    def pick(critic, known, key, archs, new):
        score = jnp.where(new, promise(archs), -jnp.inf)
        return (jax.lax.top_k(score, k)[1] for k in (1, ELITE))

    monkeypatch.setattr(uac, "pick", pick)
    known = jnp.array([[0, 3, 0, 0, 0], [0, 2, 0, 0, 0]])  # of the best network
    now = before()
    now.buffer.archs[:2], now.buffer.canonical[:2] = known, 0
    now.elite[0, -1] = 1
    # Of a space too large to list, relatives are drawn; they, too, are networks.
    large = ctx._replace(everything=None)
    for context in (ctx, large):
        check_acquired(context, now, known)


def check_acquired(ctx, now, known):
    replace = jax.jit(partial(method.replace_acquired, ctx))
    _, acquired, archs, log_prob = replace(
        now, jax.random.key(0), known, DRAWN[:4], log_pi(DRAWN[:4])
    )
    assert acquired.tolist() == [False, False, False, True]
    np.testing.assert_array_equal(archs, [*DRAWN[:3].tolist(), [0, 0, 0, 0, 1]])
    np.testing.assert_allclose(log_prob, log_pi(archs), rtol=1e-6)


def test_a_network_is_remembered_once_with_the_vector_that_was_drawn(ctx):
    made, proposal = asked()
    remember = jax.jit(partial(learning.remember, ctx))
    known = before()._replace(asked=made)
    metrics = toy.metrics([0.3, 0.4, 0.0, 0.8])
    after, new = remember(known, proposal, metrics)
    assert new.tolist() == [True, False, False, True]
    assert (int(after.trained), int(after.buffer.added)) == (11, 4)
    kept, rows = np.array([0, 3]), after.buffer
    np.testing.assert_array_equal(rows.archs[2:4], proposal.archs[kept])
    np.testing.assert_array_equal(rows.canonical[2:4], [[0, 0, 0, 0, 1], FOUND[0].tolist()])
    np.testing.assert_allclose(rows.reward[2:4], [0.3, 0.8])
    np.testing.assert_allclose(rows.log_mu[2:4], log_pi(proposal.archs[kept]) + np.array([0, 0.5]))
    np.testing.assert_allclose(rows.source_prediction[2:4], -network(proposal.archs[kept]))
    errors = np.abs(
        np.array([0.1, 0.6]) - code(proposal.archs[kept])
    )  # of scores, 0.2 below rewards
    np.testing.assert_allclose(rows.error[2:4], errors, rtol=1e-4)
    # Guesses of the warm-up are no predictions, and say nothing about the critic.
    early, _ = remember(known._replace(trained=jnp.int32(7)), proposal, metrics)
    assert np.isnan(early.buffer.error[2:4]).all()
    # What is known by another vector is no news.
    twins = proposal._replace(archs=proposal.archs.at[:2].set(DRAWN[:2]))
    assert remember(known, twins, metrics)[1].tolist() == [False, False, False, True]


@pytest.mark.parametrize(("trained", "counts"), [(5, False), (9, True)])
def test_an_iteration_teaches_critic_and_controller_what_each_may_know(ctx, trained, counts):
    made, proposal = asked()
    known = before(trained)._replace(asked=made)
    metrics = toy.metrics([0.3, 0.4, 0.0, 0.8])
    after = jax.jit(partial(method.tell, ctx))(known, proposal, metrics)
    stats, reading = after.stats, after.stats["reading"]
    # The critic: new networks only, on the scale of its prediction, and none of the warm-up.
    assert reading.checked.tolist() == [counts, False, False, counts]
    assert reading.explored.tolist() == made.explored.tolist()
    np.testing.assert_allclose(reading.score, np.array([0.1, 0.2, -0.2, 0.6]), atol=1e-5)
    np.testing.assert_allclose(reading.reward, [0.3, 0.4, 0.0, 0.8])
    assert int(stats["rows"]) == 4 and float(after.uac) == 1
    # The controller: its own vectors, weighted by what proposed them ..
    batch = jax.tree.map(np.asarray, stats["batch"])
    np.testing.assert_array_equal(batch.archs[:4], proposal.archs)
    np.testing.assert_allclose(batch.reward[:4], [0.3, 0.4, 0.9, 0.8])
    np.testing.assert_allclose(batch.weight[:4], [1, 1, 1, np.exp(-0.5)], rtol=1e-5)
    assert batch.drawn.tolist() == [True, True, True, False, *[False] * 4]
    # .. and samples of earlier iterations, as they were drawn.
    used = batch.weight[4:] > 0
    assert sorted(batch.reward[4:][used].tolist()) == [0.25, 0.5] and float(stats["replayed"]) == 2
    assert sorted(batch.archs[4:][used].tolist()) == KNOWN.tolist()
    # Imagination: networks, by the critic that has learnt, once predictions count.
    np.testing.assert_allclose(stats["imagined"], network(DRAWN) + 1 + 0.4, rtol=1e-5)
    assert bool(stats["ready"]) == counts


def source():
    """Eight samples of one other task."""
    archs = np.asarray(DRAWN)
    reward = np.linspace(0, 1, len(archs), dtype=np.float32)
    return transfer.SourceTasks(archs, reward, np.zeros(len(archs), np.int32), np.zeros((2, 0)), 8)


def test_the_error_of_one_prediction_is_no_mean_of_more():
    ones, first = np.ones(4, np.float32), np.arange(4) == 0
    prediction = uac.Prediction(0 * ones, ones, ones)
    reading = uac.Reading(prediction, 0.25 * ones, ones, ones, first, ~first)
    figures = jax.jit(uac.judge)(reading)
    assert (float(figures["mae"]), float(figures["coverage"])) == (0.75, 1.0)


def test_knowledge_of_other_tasks_replaces_the_warm_up():
    assert method.context(toy.IDLE, CONFIG).warmup == 8
    assert method.context(toy.IDLE, CONFIG, source()).warmup == 0


def test_a_batch_may_consist_of_acquired_ones_alone():
    config = default()
    config.search.batch = config.fnas.verify = 4
    assert build.configure(config).fnas.verify == 4


def test_the_critic_never_sees_the_vectors_of_its_samples(monkeypatch):
    """It learns from a buffer that has none; what it knows of other tasks is reconsidered."""
    ctx = uac.make(toy.IDLE, CONFIG.uac, CONFIG.fnas, 16, source())
    known = jax.eval_shape(partial(uac.init, ctx), jax.random.key(0))
    reading = uac.Reading(before().asked.prediction, *[jnp.zeros(4)] * 3, *[jnp.ones(4, bool)] * 2)
    buffer, fit = before().buffer._replace(archs=None), uac.fit
    seen = {}

    def reconsider(ctx, state, buffer):
        seen["reconsidered"] = state._replace(calibration=state.calibration._replace())
        return seen["reconsidered"], jnp.float32(0)

    def fitted(ctx, state, buffer):
        seen["fitted"] = state
        return fit(ctx, state, buffer)

    jax.eval_shape(partial(uac.learn, ctx), known, buffer, reading)
    monkeypatch.setattr(uac, "reconsider", reconsider)
    monkeypatch.setattr(uac, "fit", fitted)
    jax.eval_shape(partial(uac.learn, ctx), known, buffer, reading)
    assert seen["fitted"] is seen["reconsidered"]


@pytest.mark.parametrize("rows", [5, 8])
def test_other_tasks_teach_networks(monkeypatch, rows):
    """So many of their rows as are asked for, each once."""

    def fit(critic, ensemble, x, scores, weights, steps):
        return ensemble._replace(mlp=x)

    monkeypatch.setattr(transfer.critics, "encode", lambda critic, archs, task: archs)
    monkeypatch.setattr(transfer.critics, "fit", fit)
    archs = np.concatenate([KNOWN, [[0, 3, i % 2, i // 2, 0] for i in range(6)]]).astype(np.int32)
    other = source()._replace(archs=archs, rows=rows)
    critic = critics.make(toy.IDLE.cardinalities, CONFIG.uac)
    nothing = critics.Ensemble(*[None] * 7)
    start = partial(transfer.warm_start, critic, toy.IDLE, nothing, other)
    shown = np.asarray(jax.jit(start)(jax.random.key(0)).anchor).tolist()
    networks = np.asarray(toy.IDLE.canonical(jnp.asarray(archs))).tolist()
    assert len(shown) == rows and all(shown.count(arch) == 1 for arch in shown)
    assert shown == networks if rows == 8 else all(arch in networks for arch in shown)
