"""The training stage and the sampling of PGNAS on problems whose answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from fnas_jax.core.types import propose
from fnas_jax.methods.pgnas import method as pgnas
from fnas_jax.methods.pgnas import posterior
from fnas_jax.networks import cost as real_cost
from fnas_jax.spaces import categorical, macro
from tests.methods import toy as search_toy
from tests.methods.pgnas import toy
from tests.methods.pgnas.test_posterior import patterns

CARDS = (3, 2)
EXAMPLES, PRECISION = 40, 2.0


def exact_pi(q, features, targets):
    """[L, K] probability of each switch given the data, weights integrated out, by enumeration.

    log p(D | z) = -1/2 y' C^-1 y - 1/2 log |C| with C = 1 + X_z X_z' / precision. A switched-off
    operation's weights have no posterior precision; in the limit of point-like weights (s to 0)
    they are not paid for, so |C| is the same for all patterns.
    """
    y, z = targets.astype(float), np.asarray(patterns(q))
    log_p = []
    for pattern in z:
        X = features[:, pattern > 0].astype(float)
        C = np.eye(len(y)) + X @ X.T / PRECISION
        log_p.append(-0.5 * y @ np.linalg.solve(C, y))
    p = special.softmax(log_p)
    return np.einsum("a,alk->lk", p, z)


@pytest.mark.parametrize("choice", posterior.CHOICES)
@pytest.mark.parametrize("estimator", ["local", "score", "second"])
def test_the_learnt_pi_is_the_exact_posterior(choice, estimator):
    q = posterior.make(CARDS, choice)
    features, targets = toy.regression(CARDS, EXAMPLES)
    net = toy.make(q, toy.squared_error, steps=2500)
    config = pgnas.Config(
        mc_samples=8, average=True, gradient=estimator, precision=PRECISION, lr=0.03, warmup=0.05
    )
    state, scalars = toy.learn(q, net, config, features, targets, toy.no_cost, jax.random.key(0))
    wanted = exact_pi(q, features, targets)
    assert 0.1 < np.ptp(wanted[q.mask]) < 0.95  # neither uniform nor certain
    np.testing.assert_allclose(q.pi(state.phi), wanted, atol=0.02)
    # The means are those of the exact posterior of the weights, given that they are switched on.
    ridge = np.einsum("dlk,d->lk", features, targets) / (EXAMPLES + PRECISION)
    np.testing.assert_allclose(
        (net.params(state.weights.vector)["w"] - ridge)[q.mask], 0, atol=0.02
    )
    assert scalars["kl_weights"] > 0 > scalars["kl_entropy"]


def test_determinants_are_equal_for_all_networks_of_one_operation_a_slot():
    """So that the exact posterior above is the exact one, without a limit, for `single`."""
    q = posterior.make(CARDS)
    features, _ = toy.regression(CARDS, EXAMPLES)
    found = []
    for pattern in np.asarray(patterns(q)):
        X = features[:, pattern > 0].astype(float)
        found.append(np.linalg.slogdet(np.eye(EXAMPLES) + X @ X.T / PRECISION)[1])
    np.testing.assert_allclose(found, found[0], rtol=1e-5)


def test_concrete_learns_the_posterior_of_a_loss_that_is_linear_in_a_slot():
    q = posterior.make(CARDS)
    values = jnp.asarray([[0.3, -0.8, 0.5], [1.1, -0.4, 0.0]])
    net = toy.make(q, lambda params, arch, z, x, y: (values * z).sum() / len(y), steps=2500)
    config = pgnas.Config(
        mc_samples=64, average=True, gradient="concrete", precision=0.0, lr=0.03, warmup=0.0
    )
    features, targets = toy.regression(CARDS, EXAMPLES)
    state, _ = toy.learn(q, net, config, features, targets, toy.no_cost, jax.random.key(0))
    for pi, row, k in zip(q.pi(state.phi), values, CARDS, strict=True):
        np.testing.assert_allclose(pi[:k], special.softmax(-row[:k]), atol=0.02)


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
        config = pgnas.Config(precision=0.0, lr=0.05, warmup=0.0, gradient="score", **numbers)
        costs = lambda archs: cost(archs)[1] / 1e6  # noqa: E731
        state, _ = toy.learn(q, net, config, features, features[:, 0, 0], costs, jax.random.key(0))
        z = q.draw(state.phi, q.noise(jax.random.key(1), 1000))
        return float(costs(q.to_archs(z)).mean()), state, config, costs

    return space, q, net, learn


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
    method = pgnas.make(
        space, q, net, config, 16, costs, lambda key: {"w": jnp.zeros((8, 3))}, None
    )
    asked, proposal = method.ask(
        method.init(jax.random.key(0))._replace(learnt=state), jax.random.key(1)
    )
    assert proposal.train_mask.all()
    assert (costs(proposal.archs) <= budget).all()
    np.testing.assert_allclose(
        proposal.log_prob, q.log_prob(state.phi, q.to_switches(proposal.archs)), rtol=1e-5
    )
    np.testing.assert_array_equal(asked.samples, proposal.archs)


def test_sampling_ends_when_the_best_stay_the_best():
    space = categorical.make((3, 3))
    q = posterior.make(space.cardinalities)
    net = toy.make(q, toy.squared_error, steps=1)
    config = pgnas.Config(top=2, patience=6)
    method = pgnas.make(
        space, q, net, config, 3, toy.no_cost, lambda key: {"w": jnp.zeros((2, 3))}, None
    )
    state = method.init(jax.random.key(0))
    archs = jnp.asarray([[0, 0], [1, 1], [2, 2]])
    rewards = ([0.5, 0.6, 0.7], [0.5, 0.6, 0.7], [0.5, 0.6, 0.7], [0.5, 0.6, 0.7])
    done = []
    for reward in rewards:
        state = method.tell(state, propose(archs), search_toy.metrics(reward))
        done.append(bool(method.done(state)))
    assert done == [False, False, True, True]
    new = jnp.asarray([[0, 1], [0, 2], [1, 0]])
    state = method.tell(state, propose(new), search_toy.metrics([0.1, 0.65, 0.2]))
    assert not method.done(state)
    np.testing.assert_array_equal(state.ranking.forms, [[2, 2], [0, 2]])
    np.testing.assert_array_equal(method.best(state).arch, [2, 2])


def test_temperature_goes_from_first_to_last():
    config = pgnas.Config(temperature=1.0, temperature_end=0.1)
    values = [float(pgnas.annealed(config, jnp.float32(p))) for p in (0, 0.5, 1)]
    np.testing.assert_allclose(values, [1.0, np.sqrt(0.1), 0.1], rtol=1e-5)
