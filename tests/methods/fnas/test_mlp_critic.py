"""The critic of networks: what it picks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.methods.fnas import mlp_critic
from fnas_jax.methods.fnas.config import Fnas, Uac
from fnas_jax.spaces import base
from tests.methods import toy

ALL = jnp.asarray(base.enumerate_all(toy.SPACE))
KEY = jax.random.key(0)
CONFIG = Uac(uncertainty="ensemble", members=4, hidden=16)


def taught(ctx):
    """A critic whose members no longer predict nothing, as before their first fit."""
    state = jax.jit(partial(mlp_critic.init, ctx))(jax.random.key(0))
    mlp = state.ensemble.mlp
    w3 = mlp.w3 * jax.random.uniform(jax.random.key(2), mlp.w3.shape)
    return state._replace(ensemble=state.ensemble._replace(mlp=mlp._replace(w3=w3)))


@pytest.mark.parametrize("optimism", [0.0, 50.0])
def test_optimism_weighs_the_calibrated_uncertainty(optimism):
    ctx = mlp_critic.context(toy.SPACE, CONFIG, Fnas(optimism=optimism, verify=8), 16, None)
    state = taught(ctx)
    score, sigma = jax.jit(partial(mlp_critic.predict, ctx))(state, ALL)
    new = np.arange(216) % 3 > 0
    pick = jax.jit(partial(mlp_critic.pick, ctx))
    picks, elite = pick(state, jax.random.key(1), ALL, new, jnp.float32(1.0))
    by_score = np.argsort(np.where(new, -np.asarray(score), np.inf), kind="stable")
    np.testing.assert_array_equal(elite, by_score[:8])
    assert new[picks].all() and len(set(np.asarray(picks))) == 8
    assert (set(np.asarray(picks)) == set(by_score[:8])) == (optimism == 0)
    if optimism:
        assert np.asarray(sigma)[picks].mean() > np.asarray(sigma)[elite].mean()
        greedy, _ = pick(state, jax.random.key(1), ALL, new, jnp.float32(0.0))
        assert set(np.asarray(greedy)) == set(by_score[:8])


def test_of_whole_spaces_no_priors_are_computed():
    """Their mean is 0, and they are as much work as the networks."""
    ctx = mlp_critic.context(toy.SPACE, CONFIG, Fnas(), 16, None)
    state, many = jax.eval_shape(lambda: taught(ctx)), jnp.zeros((20_000, ALL.shape[1]), jnp.int32)

    def work(function, *given):
        return jax.jit(function).lower(state, *given).cost_analysis()["flops"]

    picking = work(partial(mlp_critic.pick, ctx), KEY, many, jnp.ones(20_000, bool), 1.0)
    assert picking < 0.75 * work(partial(mlp_critic.predict, ctx), many)
