"""Local search: climbs, tries every neighbour, restarts."""

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.methods.baselines import local
from fnas_jax.spaces import base, categorical
from tests.methods import toy


def step(method, state, seed, reward):
    state, proposal = method.ask(state, jax.random.key(seed))
    return method.tell(state, proposal, toy.metrics(reward)), np.asarray(proposal.archs)


def test_every_neighbour_is_tried_once_before_a_restart():
    method = toy.compiled(local.make(toy.SPACE, 2))
    state, starts = step(method, method.init(jax.random.key(0)), 1, [0.4, 0.5])
    np.testing.assert_array_equal(state.arch, starts[1])
    tried = []
    for seed in range(2, 7):  # 10 neighbours, two at a time, none better
        assert float(state.reward) == 0.5
        state, archs = step(method, state, seed, [0.1, 0.5])
        tried += archs.tolist()
    expected = base.neighbours(toy.SPACE.cardinalities, jnp.asarray(starts[1]))
    assert sorted(tried) == sorted(np.asarray(expected).tolist())
    assert np.isneginf(float(state.reward))
    _, archs = step(method, state, 9, [0.1, 0.1])
    assert (archs != starts[1]).any()


def test_it_moves_to_the_best_improvement_of_a_batch():
    method = toy.compiled(local.make(toy.SPACE, 3))
    state, _ = step(method, method.init(jax.random.key(0)), 1, [0.4, 0.5, 0.3])
    state, archs = step(method, state, 2, [0.6, 0.7, 0.2])
    np.testing.assert_array_equal(state.arch, archs[1])
    assert int(state.tried) == 0


def test_untrained_entries_never_become_the_summit():
    method = toy.compiled(local.make(toy.SPACE, 2))
    state, proposal = method.ask(method.init(jax.random.key(0)), jax.random.key(1))
    masked = proposal._replace(train_mask=jnp.array([False, True]))
    state = method.tell(state, masked, toy.metrics([0.9, 0.2]))
    np.testing.assert_array_equal(state.arch, proposal.archs[1])


def test_it_solves_a_separable_problem_from_anywhere():
    state, _ = toy.search(local.make(toy.SPACE, 1), 8, 60)
    np.testing.assert_allclose(state.best.reward, 1.0, atol=1e-6)


def test_a_space_of_one_is_asked_for_again_and_again():
    method = local.make(categorical.make((1, 1)), 2)
    state = method.init(jax.random.key(0))
    for i in range(3):
        state, proposal = method.ask(state, jax.random.key(i))
        np.testing.assert_array_equal(proposal.archs, np.zeros((2, 2)))
        state = method.tell(state, proposal, toy.metrics([0.5, 0.5]))
    assert state.best.reward == 0.5
