"""Faster networks are worth what their winner gains by more steps, and only where it gains."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnas_jax import loop
from fnas_jax.core import config_json
from fnas_jax.planning import plan, price, schedule
from fnas_jax.planning.schedule import Facts, Schedule, Size, Speed
from fnas_jax.planning.trial import Trial
from fnas_jax.tasks import images
from tests.planning.test_plan import auto

TRIED = Trial(300, np.array([0.1, 0.2]), np.array([0.5, 0.4]), np.array([0.7, 0.88]))
SPEED, SIZE = Speed(3e9, 2.0, moved=100.0), Size(6e6, 9e6)
FACTS = Facts(images=64_000, judged=3000, devices=2, batch=64)
FOUND = Schedule(48, 300, 2.0, 100.0, winner_steps=2000, winner_epochs=30.0)


def planned(**changes):
    values = {"search.winner_share": 0.6, "children.steps": 300, "winner.steps": 9000} | changes
    return plan.changed(auto(), values)


def chosen(config, measured=SPEED, found=FOUND):
    free = plan.left_open(config)
    return price.chosen(config, free, FACTS, found, measured, SIZE, TRIED)


@given(st.floats(0.01, 0.25), st.floats(0.5, 2.0))
def test_rewards_order_networks_as_their_errors_after_equal_times(error, slower):
    """What is 1% slower needs as much less error as it is priced: to the first order."""
    steps, time = 1000.0, 1 + 0.01 * slower
    other = error * time**-price.POWER  # which after fewer steps is equal
    assert price.error_after(error, 1000, 1000) == error
    ended = [own * (steps / t) ** -price.POWER for own, t in ((error, 1), (other, time))]
    assert ended[0] == pytest.approx(ended[1])
    rewards = 1 - error, (1 - other) * time ** price.exponent(error)
    assert rewards[0] == pytest.approx(rewards[1], abs=3e-5)


def test_an_error_falls_with_the_steps_and_a_price_has_a_bound():
    assert price.error_after(0.2, 1600, 100) == pytest.approx(0.2 * 16**-price.POWER)
    assert price.exponent(0.0) == 0 and price.exponent(1.0) == -price.MOST


def test_the_price_is_that_of_the_best_rate_at_the_length_of_children():
    found = chosen(planned())
    power = round(price.exponent(0.12), 4)
    assert found == dict(zip(price.KEYS, (power, 6.0, 100.0), strict=True))
    longer = chosen(planned(**{"children.steps": 3000}))
    assert power < longer["reward.training"] < 0
    (line,) = price.lines(plan.changed(planned(), found))
    assert "half the time counts as 1.9% more accurate" in line and not price.lines(planned())


@pytest.mark.parametrize(
    "changes",
    [
        {"reward.cost": "mflops", "reward.target": 1.0},
        {"reward.training": -0.01, "reward.training_mean": 1.0},
        {"search.winner_share": 0.0},
        {"winner.steps": 2000},  # of the user's: the clock does not end it
        {"winner.steps": 0},
        {"reward.training_mean": 1.0},  # the switch
        {"task.metric": "balanced_accuracy"},
        {"task.objective": "multilabel"},
    ],
)
def test_what_the_user_says_stays_and_nothing_is_priced_in_vain(changes):
    assert chosen(planned(**changes)) == {}


def test_no_price_where_there_is_time_for_all_steps():
    most = FOUND._replace(winner_steps=schedule.most_winner_steps(FACTS))
    assert chosen(planned(**{"winner.steps": 10**7}), found=most) == {}
    assert chosen(planned(**{"winner.steps": 10**7}))


def test_no_price_where_nobody_knows_what_training_takes():
    assert chosen(planned(), measured=SPEED._replace(moved=0.0)) == {}


@pytest.fixture
def tried(monkeypatch):
    """How often a speed was measured, which is made up, as is the trial."""
    calls = []
    monkeypatch.setattr(plan.speed, "measure", lambda ctx: calls.append(ctx) or SPEED)
    monkeypatch.setattr(plan.trial, "steps_within", lambda *given: 300)
    monkeypatch.setattr(plan.trial, "run", lambda ctx, steps: TRIED)
    return calls


def test_a_plan_has_the_price_of_its_trial_and_a_run_goes_on_by_it(tried, tmp_path, capsys):
    given = auto(**{"search.seconds": 60.0})
    config = plan.settle(given, tmp_path)
    error = price.error_after(0.12, config.children.steps, 300)
    assert config.reward.training == round(price.exponent(error), 4)
    assert config.reward.cost == "none" and config.latency.source == "device"
    assert "trains in half the time" in capsys.readouterr().err
    ctx = plan.context(config, images.load(config))
    mean = plan.speed.size_of(ctx, SPEED.moved).mean / 1e6
    assert config.reward.training_mean == pytest.approx(mean, rel=5e-3)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert plan.settle(given, tmp_path) == config and len(tried) == 1


def test_a_run_that_was_planned_without_a_price_goes_on_without(tried, tmp_path):
    old = plan.changed(auto(), {"children.steps": 77, "search.winner_share": 0.5}).to_dict()
    for name in price.KEYS:
        del old["reward"][name.removeprefix("reward.")]  # as an earlier version wrote it
    (tmp_path / "config.json").write_text(json.dumps(old))
    config = plan.settle(auto(), tmp_path)
    assert not tried and not config.reward.training
    assert (config.children.steps, config.search.winner_share) == (77, 0.5)


@pytest.mark.slow
def test_a_priced_search_ends_with_a_network(tried, tmp_path, capsys):
    values = {"search.seconds": 25.0, "space.blocks": 1, "space.strides": (2,), "space.stem": 8}
    values |= {"space.stem_stride": 1, "space.width": 0.25, "space.head": 16, "fnas.verify": 2}
    values |= {"search.budget": 4, "search.batch": 4, "children.steps": 3, "akp.rounds": 0}
    values |= {"winner.steps": 10**7}
    result = loop.run(auto(**values, **{"log.tensorboard": False}), tmp_path)
    config = config_json.read_config(tmp_path)
    assert config.reward.training < 0
    assert result["winner"]["accuracy"] > 0 and result["target"] is None
    assert result["best"]["reward"] != result["best"]["accuracy"]
    assert result["best"]["latency_ms"] is None and (tmp_path / "best").is_dir()
    assert "misses the target" not in capsys.readouterr().err
