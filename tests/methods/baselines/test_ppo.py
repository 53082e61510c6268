"""PPO as a search method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core.config import default
from fnas_jax.core.types import UserError
from fnas_jax.methods.baselines import ppo
from fnas_jax.methods.rl import ppo as rl
from fnas_jax.methods.rl.config import Ppo
from tests.methods import toy


def test_it_learns_the_target():
    method = ppo.make(
        toy.SPACE, Ppo(hidden=16, lr=0.02, epochs=4, entropy=0.02, baseline_decay=0.95), 8
    )
    state, trace = toy.search(method, 4, 60)
    reward = np.asarray(trace.reward)
    assert reward[:, -10:].mean() > 0.9 > 0.6 > reward[:, :5].mean()
    assert np.asarray(state.best.reward).mean() > 0.97
    assert np.asarray(state.stats["entropy"]).max() < np.log(216)


METHOD = ppo.make(toy.SPACE, Ppo(hidden=8, epochs=2, minibatches=2), 4)
ASK, TELL = jax.jit(METHOD.ask), jax.jit(METHOD.tell)


def test_proposals_carry_the_log_prob_and_state_keeps_its_shape():
    state = METHOD.init(jax.random.key(0))
    asked, proposal = ASK(state, jax.random.key(1))
    np.testing.assert_allclose(proposal.log_prob, -np.log(216), atol=0.1)
    told = TELL(asked, proposal, toy.metrics([0.1, 0.2, 0.3, 0.4]))
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (state, asked, told)]
    assert shapes[0] == shapes[1] == shapes[2]
    assert set(METHOD.stats(told)) == set(rl.STATS)


def test_the_first_state_is_one_program():
    """Its many small draws are not compiled one by one."""
    assert METHOD.init.lower(jax.random.key(0)).as_text().count("module @") == 1


def test_untrained_entries_do_not_change_the_policy():
    state, proposal = ASK(METHOD.init(jax.random.key(0)), jax.random.key(1))
    masked = proposal._replace(train_mask=jnp.array([True, True, False, False]))
    one = TELL(state, masked, toy.metrics([0.1, 0.2, 0.9, 0.0]))
    two = TELL(state, masked, toy.metrics([0.1, 0.2, 0.3, 0.8]))
    jax.tree.map(np.testing.assert_array_equal, one.ppo, two.ppo)
    np.testing.assert_allclose(one.best.reward, 0.2)


def test_minibatches_must_divide_the_batch():
    with pytest.raises(UserError, match="cannot be cut"):
        ppo.make(toy.SPACE, Ppo(minibatches=3), 4)
    config = default()
    config.ppo.minibatches = 3
    with pytest.raises(UserError, match=r"ppo\.minibatches is 3; it must divide search\.batch"):
        ppo.build(config, toy.SPACE, None, None)
