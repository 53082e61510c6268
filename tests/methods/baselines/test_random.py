"""Random search."""

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import propose
from fnas_jax.methods.baselines import random
from tests.methods import toy


def test_proposals_are_uniform():
    method = toy.compiled(random.make(toy.SPACE, 4000))
    _, proposal = method.ask(method.init(jax.random.key(0)), jax.random.key(1))
    assert np.asarray(proposal.train_mask).all()
    for t, k in enumerate(toy.SPACE.cardinalities):
        counts = np.bincount(np.asarray(proposal.archs)[:, t], minlength=k)
        np.testing.assert_allclose(counts / 4000, 1 / k, atol=0.04)


def test_best_is_the_highest_measured_reward_and_the_older_of_a_tie():
    method = toy.compiled(random.make(toy.SPACE, 3))
    state = method.init(jax.random.key(0))
    assert np.isneginf(float(method.best(state).reward))
    archs = jnp.arange(15, dtype=jnp.int32).reshape(3, 5)
    masked = propose(archs)._replace(train_mask=jnp.array([True, True, False]))
    state = method.tell(state, masked, toy.metrics([0.3, 0.9, 0.99], [True, False, True]))
    best = method.best(state)
    assert np.asarray(best.arch).tolist() == [0, 1, 2, 3, 4] and abs(best.reward - 0.3) < 1e-6
    state = method.tell(state, propose(archs[::-1]), toy.metrics([0.3, 0.1, 0.2]))
    assert np.asarray(method.best(state).arch).tolist() == [0, 1, 2, 3, 4]
