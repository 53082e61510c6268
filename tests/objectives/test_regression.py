"""Every metric of values against scikit-learn's, in the values' own units."""

import numpy as np
import pytest
from sklearn import metrics

from fnas_jax.core import measure as measures
from fnas_jax.core.types import UserError
from fnas_jax.objectives import base
from tests.objectives.judging import figures_of, state_of

UNITS = np.array([1.0, 40.0, 0.01], np.float32)


def drawn(seed, n=45):
    """(outputs in deviations, values [n, 3] in units far apart, the objective)."""
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=(n, 3)) * UNITS + 5 * UNITS).astype(np.float32)
    objective = base.of("regression", "", values, 3, False)
    noise = 0.3 * rng.normal(size=(n, 3))
    outputs = (values - values.mean(0)) / values.std(0) + noise
    return outputs.astype(np.float32), values, objective


@pytest.mark.parametrize("n", [45, 2, 49])
def test_figures_are_those_of_scikit_learn(n):
    outputs, values, objective = drawn(n, n)
    found = figures_of(objective, outputs, values)
    answers = np.asarray(objective.answer(outputs)[0])
    wanted = {
        "r2": metrics.r2_score(values, answers),
        "mae": metrics.mean_absolute_error(values, answers),
        "rmse": metrics.root_mean_squared_error(values, answers),
        "loss": metrics.mean_squared_error(values / values.std(0), answers / values.std(0)),
    }
    assert found == pytest.approx(wanted, rel=1e-3, abs=1e-4)
    assert objective.loss(outputs, values, 0.0) == pytest.approx(wanted["loss"], rel=1e-3)


def test_each_value_has_its_own_row_and_a_constant_one_has_no_fit():
    outputs, values, objective = drawn(7)
    values[:, 1] = values[0, 1]  # among the images that judge
    table = objective.table(state_of(objective, outputs, values))
    answers = np.asarray(objective.answer(outputs)[0])
    exact = values.astype(np.float64)  # whose mean is exact where all are the same
    wanted = metrics.r2_score(exact, answers, multioutput="raw_values")
    assert wanted[1] == 0
    np.testing.assert_allclose(table["r2"], wanted, rtol=1e-3, atol=1e-5)
    by_value = metrics.mean_absolute_error(values, answers, multioutput="raw_values")
    np.testing.assert_allclose(table["mae"], by_value, rtol=1e-3)


@pytest.mark.parametrize("unit", [1e-8, 1e-20])
@pytest.mark.parametrize("metric", ["mae", "rmse"])
def test_small_values_have_the_scores_of_large_ones(unit, metric):
    _, values, _ = drawn(5)
    small = base.of("regression", metric, (values * unit).astype(np.float32), 3, False).measure
    large = base.of("regression", metric, values, 3, False).measure
    errors = -np.array([0.1, 1.0, 3.0], np.float32)
    found = measures.score(small, errors * np.float32(unit))
    np.testing.assert_allclose(found, measures.score(large, errors), rtol=1e-5)


def test_trivial_answers_are_mean_and_median():
    _, values, objective = drawn(8)
    known = objective.known
    mean, median = (np.tile(f(values, axis=0), (len(values), 1)) for f in (np.mean, np.median))
    assert known.trivial["mae"] == pytest.approx(metrics.mean_absolute_error(values, median))
    wanted = metrics.root_mean_squared_error(values, mean)
    assert known.trivial["rmse"] == pytest.approx(wanted, rel=1e-5)
    assert objective.measure.kind == "fit" and objective.measure.direction == "maximize"
    found = figures_of(objective, np.zeros_like(values), values)
    assert found["r2"] == pytest.approx(0, abs=1e-5)
    assert found["loss"] == pytest.approx(known.trivial["loss"], rel=1e-4)


def test_what_cannot_be_learnt_or_weighed_is_refused():
    _, values, _ = drawn(9)
    with pytest.raises(UserError, match=r"balanced.*regression has none"):
        base.of("regression", "", values, 3, True)
    values[:, 2] = 0.5
    with pytest.raises(UserError, match=r"value 2 .* is 0.5 for all training images"):
        base.of("regression", "", values, 3, False)


def test_it_is_the_same_after_it_was_written_down():
    objective = drawn(10)[2]
    again = base.parse(base.described(objective))
    assert again.measure == objective.measure and again.known == objective.known
