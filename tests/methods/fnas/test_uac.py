"""The uncertainty-aware critic: targets, what it learns from, its calibration, its figures."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats as scipy_stats

from fnas_jax.core.types import UserError
from fnas_jax.methods import scores
from fnas_jax.methods.fnas import decision, replay, transfer, uac
from fnas_jax.methods.fnas.config import UNCERTAINTIES, Fnas, Uac
from fnas_jax.spaces import base
from tests.methods import toy

ALL = base.enumerate_all(toy.SPACE)
TRUTH = np.asarray(toy.accuracy(np.asarray(ALL)), np.float32)
SEEN = np.random.default_rng(0).permutation(216)[:40]
CONFIG = Uac(members=4, hidden=16, warmup=8)
KINDS = ["gp", "ensemble"]  # of uncertainty; the third has a test of its own


def make(source=None, **numbers):
    return uac.make(toy.SPACE, replace(CONFIG, **numbers), Fnas(), 64, source)


def start(ctx):
    return jax.jit(partial(uac.init, ctx))(jax.random.key(0))


def fit(ctx, state, buffer):
    return jax.jit(partial(uac.fit, ctx))(state, buffer)


def predict(ctx, state, archs):
    return jax.jit(partial(uac.predict, ctx))(state, archs)


def source_prediction(ctx, state, archs):
    return jax.jit(partial(uac.source_prediction, ctx))(state, archs)


add_all = jax.jit(lambda new: replay.add(replay.empty(64, 5), new, jnp.ones(len(new.reward), bool)))


def buffer_of(rows, reward=TRUTH, error=None, source_prediction=None):
    zeros = np.zeros(len(rows), np.float32)
    new = replay.Buffer(
        archs=ALL[rows],
        canonical=ALL[rows],
        reward=np.asarray(reward)[rows],
        log_mu=zeros,
        iteration=zeros.astype(np.int32),
        error=zeros if error is None else np.asarray(error, np.float32),
        source_prediction=zeros if source_prediction is None else source_prediction,
        added=np.int32(0),
    )
    return add_all(new)


def source(sign=1.0):
    task, nothing = np.zeros(216, np.int32), np.zeros((2, 0), np.float32)
    return transfer.SourceTasks(np.asarray(ALL), sign * TRUTH, task, nothing, 216)


@pytest.mark.parametrize("kind", KINDS)
def test_it_predicts_the_order_of_unseen_architectures_and_widths_cover_the_errors(kind):
    ctx = make(uncertainty=kind)
    state = fit(ctx, start(ctx), buffer_of(SEEN))
    prediction = predict(ctx, state, ALL)
    unseen = np.setdiff1d(np.arange(216), SEEN)
    tau = scipy_stats.kendalltau(np.asarray(prediction.score)[unseen], TRUTH[unseen]).statistic
    assert tau > 0.5
    assert (np.asarray(prediction.sigma) >= uac.LEAST_SIGMA).all()
    factor = float(decision.factor(state.calibration))
    np.testing.assert_allclose(prediction.width, prediction.sigma * factor, rtol=1e-6)
    assert np.asarray(prediction.sigma)[unseen].mean() > np.asarray(prediction.sigma)[SEEN].mean()


def test_targets_are_rank_scores_and_the_way_back():
    ctx = make()
    state, buffer = start(ctx), buffer_of(SEEN)
    got, scale = jax.jit(partial(uac.targets, ctx))(state, buffer)
    expected = scipy_stats.norm.ppf((scipy_stats.rankdata(TRUTH[SEEN]) - 0.5) / 40)
    np.testing.assert_allclose(got[:40], expected, atol=1e-5)
    assert (np.asarray(got[40:]) == 0).all()
    np.testing.assert_allclose(scores.to_reward(scale, got[:40]), TRUTH[SEEN], atol=1e-5)


def test_a_fit_looks_at_the_best_and_the_newest():
    reward = np.zeros(216, np.float32)
    reward[SEEN[[3, 7]]] = 1.0  # the best; the newest stand last
    buffer = buffer_of(SEEN, reward)
    informative = jax.jit(uac.informative, static_argnums=2)
    got = np.asarray(informative(buffer, buffer.reward, 6))
    assert set(got[:3]) > {3, 7} and len(set(got)) == 6
    assert set(got[3:]) == {37, 38, 39}
    np.testing.assert_array_equal(informative(buffer, buffer.reward, 64), np.arange(64))


def test_the_residual_network_predicts_errors_and_skips_unknown_ones():
    ctx = make(uncertainty="residual")
    large = np.asarray(ALL)[SEEN, 0] == 2
    error = np.where(large, 2.0, 0.1)
    error[::7] = np.nan
    state = start(ctx)
    state = fit(ctx, state, buffer_of(SEEN, error=error))
    sigma = np.asarray(predict(ctx, state, ALL).sigma)
    assert np.isfinite(sigma).all()
    doubtful = np.asarray(ALL)[:, 0] == 2
    assert sigma[doubtful].mean() > 1.0 > 0.6 > sigma[~doubtful].mean()


numbers = partial(np.asarray, dtype=np.float32)
judge = jax.jit(uac.judge)


def reading(checked, explored=(False,) * 4):
    prediction = uac.Prediction(
        score=numbers([0.0, 1.0, 2.0, 3.0]),
        sigma=numbers([0.5] * 4),
        width=numbers([0.2, 0.2, 1.0, 1.0]),
    )
    return uac.Reading(
        prediction,
        predicted=numbers([0.5, 0.6, 0.7, 0.8]),
        score=numbers([0.1, 1.5, 1.5, 9.0]),
        reward=numbers([0.6, 0.5, 0.9, 0.0]),
        checked=np.asarray(checked),
        explored=np.asarray(explored),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_picked_is_new_and_among_the_best(kind):
    ctx = make(uncertainty=kind)
    state = fit(ctx, start(ctx), buffer_of(SEEN))
    new = ~np.isin(np.arange(216), SEEN)
    pick = jax.jit(partial(uac.pick, ctx))
    picks, elite = pick(state, jax.random.key(1), ALL, new)
    assert picks.shape == (1,) and elite.shape == (replay.ELITE,)
    assert new[picks].all() and new[elite].all()
    # Among the best by the truth: 40 of 216 are known.
    assert TRUTH[picks[0]] >= np.sort(TRUTH[new])[-15]


def test_predictions_are_judged_on_what_was_checked():
    figures = judge(reading([True, True, True, False]))
    np.testing.assert_allclose(figures["mae"], np.mean([0.1, 0.1, 0.2]), rtol=1e-5)
    expected = scipy_stats.kendalltau([0, 1, 2], [0.6, 0.5, 0.9]).statistic
    np.testing.assert_allclose(figures["tau"], expected, rtol=1e-5)
    assert (float(figures["covered"]), float(figures["checked"])) == (2, 3)
    np.testing.assert_allclose(figures["coverage"], 2 / 3, rtol=1e-6)
    nothing = judge(reading([False] * 4))
    assert all(np.isnan(nothing[name]) for name in ("mae", "tau", "coverage"))
    assert np.isnan(judge(reading([True, False, False, False]))["tau"])


def test_learning_calibrates_on_errors_in_units_of_sigma_before_it_fits():
    ctx, buffer = make(), buffer_of(SEEN)
    state = start(ctx)
    learn = jax.jit(partial(uac.learn, ctx))
    after, stats = learn(state, buffer, reading([True, False, True, False]))
    np.testing.assert_allclose(after.calibration.ratios[:2], [0.2, 1.0], rtol=1e-5)
    assert int(after.calibration.added) == 2
    assert set(stats) == set(uac.STATS) and float(stats["foreign_rows"]) == 0
    fitted = fit(ctx, state, buffer)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), after.model, fitted.model)


def test_errors_of_explored_samples_are_remembered_apart():
    ctx, buffer = make(), buffer_of(SEEN)
    state = start(ctx)
    learn = jax.jit(partial(uac.learn, ctx))
    state, none = learn(state, buffer, reading([True] * 4))
    assert np.isnan(none["mae_explored"]) and np.isnan(none["coverage_explored"])
    state, stats = learn(state, buffer, reading([True] * 3 + [False], [True, False, True, True]))
    np.testing.assert_allclose(stats["mae_explored"], np.mean([0.1, 0.2]), rtol=1e-5)
    # Errors 0.1 and 0.5 against 0.5 sigma times the presumed 2.
    assert (float(stats["coverage_explored"]), float(stats["explored"])) == (1, 2)
    np.testing.assert_allclose(state.explored.calibration.ratios[:2], [0.2, 1.0], rtol=1e-5)
    state, stats = learn(state, buffer, reading([True] * 4, [True, True, False, False]))
    np.testing.assert_allclose(stats["mae_explored"], np.mean([0.1, 0.2, 0.1, 0.1]), rtol=1e-5)
    assert float(stats["explored"]) == 4
    # All samples count for the other factor, which they outnumber these.
    assert int(state.calibration.added) == 11 and int(state.explored.calibration.added) == 4
    prediction = reading([True] * 4).prediction
    factor = decision.factor(state.explored.calibration)
    np.testing.assert_allclose(uac.confident_width(state, prediction), 0.5 * factor)


@pytest.mark.parametrize("kind", KINDS)
def test_knowledge_of_other_tasks_is_there_before_the_first_sample(kind):
    ctx = make(source(), uncertainty=kind)
    state = start(ctx)
    predicted = source_prediction(ctx, state, ALL)
    assert scipy_stats.kendalltau(np.asarray(predicted), TRUTH).statistic > 0.7
    known = predict(ctx, state, ALL).score
    assert scipy_stats.kendalltau(np.asarray(predicted), np.asarray(known)).statistic > 0.85
    without = make(uncertainty=kind)
    state = start(without)
    assert (np.asarray(source_prediction(without, state, ALL)) == 0).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_it_is_dropped_for_good_where_it_ranks_the_own_samples_wrongly(sign):
    ctx = make(source(sign), uncertainty="ensemble")
    state = start(ctx)
    buffer = buffer_of(SEEN, source_prediction=source_prediction(ctx, state, ALL[SEEN]))
    reconsider = jax.jit(partial(uac.reconsider, ctx))
    after, agreement = reconsider(state, buffer)
    assert float(agreement) * sign > 0.5
    assert bool(after.model.warm) == (sign > 0)
    before = state.model.ensemble
    kept = before.anchor if sign > 0 else before.start
    jax.tree.map(np.testing.assert_array_equal, after.model.ensemble.anchor, kept)
    # With fewer samples than the warm-up it is too early to tell.
    few = buffer_of(SEEN[:7], source_prediction=source_prediction(ctx, state, ALL[SEEN[:7]]))
    assert bool(reconsider(state, few)[0].model.warm)


def test_every_kind_of_uncertainty_has_a_model():
    assert tuple(uac.MODELS) == UNCERTAINTIES


def test_unknown_kinds_of_uncertainty_and_odd_layers_are_refused():
    with pytest.raises(UserError, match="'none' is none of gp, ensemble, residual"):
        make(uncertainty="none")
    with pytest.raises(UserError, match="17 units; the number must be even"):
        make(hidden=17, uncertainty="ensemble")
