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
CONFIG = Uac(uncertainty="ensemble", members=4, hidden=16)


@pytest.mark.parametrize("optimism", [0.0, 50.0])
def test_optimism_weighs_the_calibrated_uncertainty(optimism):
    ctx = mlp_critic.context(toy.SPACE, CONFIG, Fnas(optimism=optimism, verify=8), 16, None)
    state = jax.jit(partial(mlp_critic.init, ctx))(jax.random.key(0))
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
