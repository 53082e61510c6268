"""What a metric is worth to a search."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnas_jax.core import measure, reward
from fnas_jax.core.config import default
from fnas_jax.core.measure import Measure
from fnas_jax.core.types import UserError

MAE = Measure("mae", "minimize", "error", 4.0)
R2 = Measure("r2", "maximize", "fit")
MEASURES = (Measure(), MAE, R2, Measure("size", "minimize", "number"))
RANGES = {"share": (0.0, 1.0), "error": (0.0, 1e6), "fit": (-1e6, 1.0), "number": (-1e6, 1e6)}


@pytest.mark.parametrize("one", MEASURES, ids=lambda m: m.kind)
@given(st.data())
def test_better_is_more_and_everything_is_better_than_a_failure(one, data):
    low, high = RANGES[one.kind]
    values = data.draw(st.lists(st.floats(low, high, width=32), min_size=2, max_size=9))
    signed = one.sign * np.sort(np.asarray(values, np.float32))
    found = np.asarray(measure.score(one, jnp.asarray(signed)))
    rising = found if one.direction == "maximize" else found[::-1]
    assert (np.diff(rising) >= 0).all()
    assert (found >= 0).all() and (found <= 1).all()


def test_what_is_more_where_it_is_better_stands_beside_the_metric_itself():
    entry = {"accuracy": -3.0, "first_accuracy": None, "reference": {"accuracy": -4.0, "steps": 2}}
    found = measure.valued(MAE, {"winner": entry, "compared": [{"accuracy": -1.0}], "kept": None})
    assert found["winner"]["value"] == 3 and found["winner"]["first_value"] is None
    assert found["winner"]["reference"] == {"accuracy": -4, "value": 4, "steps": 2}
    assert found["compared"] == [{"accuracy": -1, "value": 1}] and found["kept"] is None
    assert "value" not in entry
    assert measure.valued(R2, {"accuracy": None, "value": 2.5}) == {"accuracy": None, "value": 2.5}


def test_a_trivial_answer_is_worth_a_half():
    assert float(measure.score(MAE, jnp.float32(-4.0))) == 0.5
    assert float(measure.score(MAE, jnp.float32(0.0))) == 1.0
    assert float(measure.score(R2, jnp.float32(0.0))) == 0.5
    assert float(measure.score(R2, jnp.float32(1.0))) == 1.0


@pytest.mark.parametrize(
    ("one", "signed", "text"),
    [
        (Measure(), 0.5, "50.00%"),
        (MAE, -0.25, "0.25"),
        (R2, -3.0, "-3"),
        (Measure(), None, "unknown"),
    ],
)
def test_people_read_the_metric_in_its_own_units(one, signed, text):
    assert one.text(signed) == text


def test_an_error_is_weighed_with_a_cost_the_right_way_round():
    config = default()
    config.reward.cost, config.reward.target = "mflops", 10.0
    nan = jnp.full(3, jnp.nan)
    errors, mflops = -jnp.array([1.0, 1.0, 2.0]), jnp.array([5.0, 20.0, 5.0])
    found = np.asarray(reward.from_config(config, MAE)(errors, nan, mflops, nan))
    ratio = np.array([0.5, 2.0, 0.5]) ** -0.07
    np.testing.assert_allclose(found, np.array([0.8, 0.8, 4 / 6]) * ratio, rtol=1e-6)


def test_what_has_no_scale_is_not_weighed():
    config = default()
    config.reward.cost, config.reward.target = "mflops", 10.0
    with pytest.raises(UserError, match="the metric is 'size'"):
        reward.from_config(config, MEASURES[3])


def test_what_earlier_versions_wrote_is_read():
    assert measure.written({}) == Measure()
    old = {"name": "loss", "direction": "minimize"}
    assert measure.written(old) == Measure("loss", "minimize", "number")
    assert measure.written({**old, "kind": "error"}) == Measure("loss", "minimize", "error", 1.0)
    assert measure.written({"id": "a", **MAE._asdict()}) == MAE
    assert (
        measure.of_result({}) == Measure() and measure.of_result({"metric": old}).kind == "number"
    )


@pytest.mark.parametrize(
    ("metric", "known"),
    [("val_acc", True), ("test_acc", True), ("top-5", True), ("val_loss", False), ("f1", False)],
)
def test_what_the_name_of_a_column_says(metric, known):
    assert (measure.named(metric) == Measure()) is known
    assert measure.named("loss_at_best_accuracy") is None
