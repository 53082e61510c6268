"""The sampling of PGNAS, and what a price of costs does to it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core.types import propose
from fnas_jax.methods.pgnas import method, posterior, step
from fnas_jax.methods.pgnas.config import Pgnas
from fnas_jax.networks import cost as real_cost
from fnas_jax.spaces import categorical, macro
from tests.methods import toy as search_toy
from tests.methods.pgnas import toy


@pytest.fixture(scope="module")
def priced():
    """The Macro space with its real costs, and a loss that falls with every operation's size."""
    space = macro.make()
    cost = real_cost.cost(space, (28, 28, 1), 10)
    q = posterior.make(space.cardinalities)
    gain = jnp.asarray([0.0, 0.03, 0.05])
    net = toy.make(q, lambda params, arch, z, x, y: -(z @ gain).sum(), steps=600)
    features = np.zeros((50, 1, 1), np.float32)

    def learn(**numbers):
        config = Pgnas(precision=0.0, lr=0.05, warmup=0.0, gradient="score", **numbers)
        costs = lambda archs: cost(archs)[1] / 1e6  # noqa: E731
        state, _ = toy.learn(q, net, config, features, features[:, 0, 0], costs, jax.random.key(0))
        z = q.draw(state.phi, q.noise(jax.random.key(1), 1000))
        return float(costs(q.to_archs(z)).mean()), state, config, costs

    return space, q, net, learn


@pytest.mark.slow  # that a price moves phi at all, `the_budget_is_met` shows
def test_expected_cost_falls_with_gamma(priced):
    *_, learn = priced
    mflops = [learn(gamma=gamma)[0] for gamma in (0.0, 0.1, 1.0)]
    assert mflops[0] > mflops[1] > mflops[2]
    assert mflops[2] < 0.6 * mflops[0]


def test_the_budget_is_met(priced):
    space, q, net, learn = priced
    budget = 60.0
    mflops, state, config, costs = learn(mflops=budget, dual=0.02)
    assert state.gamma > 0
    assert 0.85 * budget < mflops < budget
    training = step.Context(q, net, config, 50, costs)
    ctx = method.Context(space, training, 16, lambda key: {"w": jnp.zeros((8, 3))})
    trained = method.init(ctx, jax.random.key(0))._replace(learnt=state)
    asked, proposal = method.ask(ctx, trained, jax.random.key(1))
    assert proposal.train_mask.all()
    assert (costs(proposal.archs) <= budget).all()
    np.testing.assert_allclose(
        proposal.log_prob, q.log_prob(state.phi, toy.to_switches(q, proposal.archs)), rtol=1e-5
    )
    np.testing.assert_array_equal(asked.samples, proposal.archs)


def test_sampling_ends_when_the_best_stay_the_best():
    space = categorical.make((3, 3))
    q = posterior.make(space.cardinalities)
    net = toy.make(q, toy.squared_error, steps=1)
    config = Pgnas(top=2, patience=6)
    training = step.Context(q, net, config, 50, toy.no_cost)
    ctx = method.Context(space, training, 3, lambda key: {"w": jnp.zeros((2, 3))})
    state = method.init(ctx, jax.random.key(0))
    archs = jnp.asarray([[0, 0], [1, 1], [2, 2]])
    rewards = ([0.5, 0.6, 0.7], [0.5, 0.6, 0.7], [0.5, 0.6, 0.7], [0.5, 0.6, 0.7])
    done = []
    for reward in rewards:
        state = method.tell(ctx, state, propose(archs), search_toy.metrics(reward))
        done.append(bool(method.done(ctx, state)))
    assert done == [False, False, True, True]
    new = jnp.asarray([[0, 1], [0, 2], [1, 0]])
    state = method.tell(ctx, state, propose(new), search_toy.metrics([0.1, 0.65, 0.2]))
    assert not method.done(ctx, state)
    np.testing.assert_array_equal(state.ranking.archs, [[2, 2], [0, 2]])
    np.testing.assert_array_equal(state.best.arch, [2, 2])
