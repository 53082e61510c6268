"""Faster networks are worth what their winner gains by more steps, and only where it gains."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnas_jax.planning import plan, price
from fnas_jax.planning.schedule import Size, Speed
from fnas_jax.planning.trial import Trial
from fnas_jax.tasks import images, training_time
from tests.planning.test_plan import auto

TRIED = Trial(300, np.array([0.1, 0.2]), np.array([0.5, 0.4]), np.array([0.7, 0.88]))
SPEED, SIZE = Speed(3e9, 2.0, moved=100.0), Size(6e6, 9e6)


def planned(**changes):
    values = {"search.winner_share": 0.5, "children.steps": 300} | changes
    return plan.changed(auto(), values)


def chosen(config, measured=SPEED, tried=TRIED):
    return price.chosen(config, plan.left_open(config), measured, SIZE, tried)


@given(st.floats(0.01, 0.25), st.floats(0.5, 2.0))
def test_rewards_order_networks_as_their_errors_after_equal_times(error, slower):
    """What is 1% slower needs as much less error as it is priced: to the first order."""
    steps = 1000.0
    other = error * (1 + 0.01 * slower) ** -price.POWER  # which after fewer steps is equal
    assert price.error_after(error, 1000, 1000) == error
    ended = [
        own * (steps / t) ** -price.POWER for own, t in ((error, 1), (other, 1 + 0.01 * slower))
    ]
    assert ended[0] == pytest.approx(ended[1])
    power = price.exponent(error)
    rewards = 1 - error, (1 - other) * (1 + 0.01 * slower) ** power
    assert rewards[0] == pytest.approx(rewards[1], abs=3e-5)


def test_an_error_falls_with_the_steps_and_a_price_has_a_bound():
    assert price.error_after(0.2, 1600, 100) == pytest.approx(0.2 * 16**-price.POWER)
    assert price.exponent(0.0) == 0 and price.exponent(1.0) == -price.MOST


def test_the_reward_is_that_of_the_best_rate_at_the_length_of_children():
    found = chosen(planned())
    assert found["reward.cost"] == "latency_ms" and found["reward.target"] == 2.0  # ms of 6 M
    assert found["reward.alpha"] == found["reward.beta"] == round(price.exponent(0.12), 4)
    longer = chosen(planned(**{"children.steps": 3000}))
    assert found["reward.alpha"] < longer["reward.alpha"] < 0
    assert training_time.parse(found["latency.source"], plan.registry.build_space(auto())) == (
        3e9,
        100.0,
    )
    config = plan.changed(planned(), found)
    (line,) = price.lines(config)
    assert "half the time counts as 1.9% more accurate" in line and not price.lines(planned())


@pytest.mark.parametrize(
    "changes",
    [
        {"reward.cost": "mflops", "reward.target": 1.0},
        {"reward.alpha": -0.01},
        {"latency.source": "table:a.json"},
        {"limits.latency_ms": 3.0},
        {"search.winner_share": 0.0},
        {"task.metric": "balanced_accuracy"},
        {"task.objective": "multilabel"},
    ],
)
def test_what_the_user_says_of_rewards_and_latencies_stays(changes):
    assert chosen(planned(**changes)) == {}


def test_no_price_where_nobody_knows_what_training_takes():
    assert chosen(planned(), measured=SPEED._replace(moved=0.0)) == {}


def test_a_plan_has_the_price_of_its_trial(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(plan.speed, "measure", lambda ctx: SPEED)
    monkeypatch.setattr(plan.trial, "steps_within", lambda *given: 300)
    monkeypatch.setattr(plan.trial, "run", lambda ctx, steps: TRIED)
    config = plan.settle(auto(), tmp_path)
    assert config.reward.cost == "latency_ms" and config.latency.source == "training:3e+09:100"
    error = price.error_after(0.12, config.children.steps, 300)
    assert config.reward.alpha == round(price.exponent(error), 4)
    assert "trains in half the time" in capsys.readouterr().err
    # The network of mean time has its accuracy as reward.
    ctx = plan.context(config, images.load(config))
    mean = plan.speed.size_of(ctx, SPEED.moved).mean / SPEED.macs * 1e3
    assert config.reward.target == pytest.approx(mean, rel=5e-3)
    archs = np.asarray(ctx.space.sample(plan.jax.random.key(0), 3))
    times = ctx.latency.of(archs)
    rewards = ctx.reward(np.full(3, 0.9), times, times, times)
    expected = 0.9 * (times / config.reward.target) ** config.reward.alpha
    np.testing.assert_allclose(rewards, expected, rtol=1e-5)
