"""The reward: accuracy under a cost constraint."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core import reward
from fnas_jax.core.config import default
from fnas_jax.core.types import UserError


def test_soft_constraint_matches_the_formula():
    accuracy, cost = jnp.array([0.5, 0.5, 0.9]), jnp.array([40.0, 160.0, 80.0])
    got = jax.jit(lambda a, c: reward.mnas_reward(a, c, 80.0, -0.07, -0.07))(accuracy, cost)
    np.testing.assert_allclose(got, [0.5 * 0.5**-0.07, 0.5 * 2.0**-0.07, 0.9], rtol=1e-6)


def test_hard_constraint_ignores_cost_below_target_and_divides_above():
    accuracy, cost = jnp.array([0.8, 0.8, 0.8]), jnp.array([1.0, 10.0, 40.0])
    got = reward.mnas_reward(accuracy, cost, 10.0, 0.0, -1.0)
    np.testing.assert_allclose(got, [0.8, 0.8, 0.2], rtol=1e-6)


def test_doubling_the_cost_costs_about_five_percent():
    one = jnp.ones(1)
    ratio = reward.mnas_reward(one, 2 * one, 1.0, -0.07, -0.07)
    assert 0.95 < float(ratio[0]) < 0.96


def test_config_picks_the_cost():
    config = default()
    columns = [jnp.array([v]) for v in (0.5, 7.0, 20.0, 3.0)]
    assert float(reward.from_config(config)(*columns)[0]) == 0.5
    config.reward.cost, config.reward.target, config.reward.beta = "mflops", 10.0, -1.0
    np.testing.assert_allclose(reward.from_config(config)(*columns), [0.25], rtol=1e-6)


@pytest.mark.parametrize("exponent", [-0.07, 0.0])
def test_figures_of_other_searches_get_the_own_reward_or_none(exponent):
    """Without the cost there is no reward, although what is no number to the power 0 is 1."""
    config = default()
    nan = np.nan
    figures = np.array([[0.5, 7.0, 20.0, 3.0], [0.5, nan, nan, 3.0], [nan, 7.0, 20.0, 3.0]]).T
    plain = reward.recompute(reward.define(config), *figures)
    np.testing.assert_array_equal(plain, [0.5, 0.5, nan])
    config.reward.cost, config.reward.target = "mflops", 10.0
    config.reward.alpha = config.reward.beta = exponent
    paid = reward.recompute(reward.define(config), *figures)
    np.testing.assert_allclose(paid, [0.5 * 2.0**exponent, nan, nan], rtol=1e-6)


def test_bad_configs_are_refused():
    config = default()
    config.reward.cost = "mflops"
    with pytest.raises(UserError, match=r"reward\.target is 0\.0"):
        reward.from_config(config)
    config.reward.cost = "watts"
    with pytest.raises(UserError, match="allowed are none, latency_ms"):
        reward.from_config(config)
