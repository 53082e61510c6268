"""Which proposals are trained, and how uncertainty is calibrated."""

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.methods.fnas import decision
from fnas_jax.methods.fnas.config import Uac

KEY = jax.random.key(0)


def decision_of(uncertainty, trained=100, known=False, acquired=False, **numbers):
    config = Uac(**{"tau": 0.5, "explore": 0.0} | numbers)
    uncertainty = jnp.asarray(uncertainty, jnp.float32)
    evidence = decision.Evidence(
        uncertainty=uncertainty,
        std=jnp.float32(2.0),
        points=3 * uncertainty,
        trained=jnp.int32(trained),
        known=jnp.broadcast_to(jnp.asarray(known), uncertainty.shape),
        acquired=jnp.broadcast_to(jnp.asarray(acquired), uncertainty.shape),
    )
    return jax.tree.map(np.asarray, decision.decide(config, 16, KEY, evidence, len(uncertainty)))


def decide(*args, **numbers):
    return decision_of(*args, **numbers).train


def test_uncertainty_above_tau_deviations_is_trained():
    assert decide([0.9, 1.1, 5.0, 0.0]).tolist() == [False, True, True, False]
    assert decide([0.9, 1.1, 5.0, 0.0], tau=1.0).tolist() == [False, False, True, False]


def test_a_threshold_in_points_replaces_the_relative_one():
    assert decide([0.9, 1.1, 5.0, 0.0], tau_points=4.0).tolist() == [False, False, True, False]


def test_everything_is_trained_during_warm_up():
    assert decide(np.zeros(9), trained=15).all()
    assert not decide(np.zeros(9), trained=16).any()


def test_a_share_of_confident_ones_is_trained_anyway():
    assert abs(decide(np.zeros(20_000), explore=0.05).mean() - 0.05) < 0.006


def test_what_is_known_or_acquired_is_trained_however_sure_the_critic_is():
    sure = [0.0, 0.0, 0.0]
    assert decide(sure, known=[False, True, False]).tolist() == [False, True, False]
    assert decide(sure, acquired=[False, False, True]).tolist() == [False, False, True]
    assert decide(sure, known=[True, False, False], acquired=[False, True, False]).sum() == 2


def test_without_a_critic_everything_is_trained():
    train, explored = decision.decide(Uac(), 16, KEY, None, 3)
    assert np.asarray(train).all() and not np.asarray(explored).any()


def test_explored_is_only_what_nothing_else_would_have_trained():
    rest = np.arange(6000)
    found = decision_of(
        np.where(rest % 3 == 0, 9.0, 0.0), explore=0.5, known=rest % 3 == 1, acquired=rest % 6 == 5
    )
    confident = rest % 6 == 2
    assert not found.explored[~confident].any() and found.train[~confident].all()
    np.testing.assert_array_equal(found.train[confident], found.explored[confident])
    assert 0.4 < found.explored[confident].mean() < 0.6
    assert not decision_of(np.zeros(50), explore=1.0, trained=3).explored.any()


def test_the_deviation_is_that_of_the_region_of_the_batch():
    scores = jnp.array([-3.0, -2.0, 1.0, 1.4, 1.8, 2.2, 9.0])
    mask = jnp.array([True] * 6 + [False])
    near = decision.score_std(scores, mask, jnp.array([0.9, 2.3]))
    np.testing.assert_allclose(near, np.std([1.0, 1.4, 1.8, 2.2]), rtol=1e-5)
    # A batch of equals is no region of its own.
    alike = jnp.array([0.5, 0.5, 0.5, 0.5, -1.0, 1.0, 9.0])
    point = decision.score_std(alike, mask, jnp.array([0.5, 0.5]))
    np.testing.assert_allclose(point, decision.LEAST_STD)
    few = decision.score_std(scores, mask, jnp.array([-2.5, -1.5]))
    np.testing.assert_allclose(few, np.std([-3.0, -2.0, 1.0, 1.4, 1.8, 2.2]), rtol=1e-5)
    assert float(decision.score_std(scores, mask & (scores > 1.1), jnp.array([0.0, 3.0]))) == 1.0


def test_calibration_reaches_68_percent_whatever_the_deviation_means():
    """Normal errors three times as large as sigma says, a few at a time."""
    errors = 3 * np.abs(np.random.default_rng(0).normal(size=(200, 4)))
    calibration, covered = decision.uncalibrated(), []
    recalibrate = jax.jit(decision.recalibrate)
    for i, row in enumerate(errors):
        if i >= 20:
            covered.append(row <= float(decision.factor(calibration)))
        calibration = recalibrate(calibration, jnp.asarray(row), jnp.array([True] * 3 + [i > 5]))
    assert 0.62 < np.mean(covered) < 0.74
    np.testing.assert_allclose(decision.factor(calibration), 3.0, rtol=0.25)  # 1 sigma: 68.3%


def test_before_any_error_the_factor_is_the_presumed_one():
    assert float(decision.factor(decision.uncalibrated())) == 2.0
