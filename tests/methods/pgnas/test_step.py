"""The training step of PGNAS on problems whose answers are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from fnas_jax.methods.pgnas import posterior, step
from fnas_jax.methods.pgnas.config import Pgnas
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
    config = Pgnas(
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
    config = Pgnas(
        mc_samples=64, average=True, gradient="concrete", precision=0.0, lr=0.03, warmup=0.0
    )
    features, targets = toy.regression(CARDS, EXAMPLES)
    state, _ = toy.learn(q, net, config, features, targets, toy.no_cost, jax.random.key(0))
    for pi, row, k in zip(q.pi(state.phi), values, CARDS, strict=True):
        np.testing.assert_allclose(pi[:k], special.softmax(-row[:k]), atol=0.02)


def test_temperature_goes_from_first_to_last():
    config = Pgnas(temperature=1.0, temperature_end=0.1)
    values = [float(step.annealed(config, jnp.float32(p))) for p in (0, 0.5, 1)]
    np.testing.assert_allclose(values, [1.0, np.sqrt(0.1), 0.1], rtol=1e-5)


def context(**numbers):
    """One that trains on the regression, one sample a step."""
    q = posterior.make(CARDS)
    net = toy.make(q, toy.squared_error, steps=10)
    return step.Context(q, net, Pgnas(precision=PRECISION, **numbers), EXAMPLES, toy.no_cost)


def test_the_first_steps_train_weights_only():
    ctx = context(warmup=0.5)
    features, targets = map(jnp.asarray, toy.regression(CARDS, EXAMPLES))
    state, phis = step.start(ctx, {"w": jnp.full(ctx.q.mask.shape, 0.1)}), []
    train = jax.jit(functools.partial(step.step, ctx))
    for i in range(8):
        state, _ = train(state, features, targets, jax.random.key(i))
        phis.append(np.asarray(state.phi))
    assert state.steps == state.weights.step == 8
    assert not np.any(phis[4])  # the sixth step is the first beyond half of ten
    assert np.any(phis[5]) and np.any(state.weights.vector != 0.1)


def test_norms_are_looked_at_when_learning_begins_and_now_and_then():
    ctx = context()
    z = toy.to_switches(ctx.q, jnp.asarray([[2, 0]]))
    start = step.start(ctx, {"w": jnp.full(ctx.q.mask.shape, 0.1)})._replace(steps=jnp.int32(3))
    look = jax.jit(functools.partial(step.refreshed_norms, ctx))
    yes = jnp.bool_(True)
    first = look(start, z, yes)
    np.testing.assert_allclose(first[0][ctx.q.mask], 2 * 0.1**2, rtol=1e-5)  # of two operations
    assert not look(start, z, ~yes).any()
    old = start._replace(norms=2 * first)
    np.testing.assert_array_equal(look(old, z, yes), 2 * first)
    again = look(old._replace(steps=jnp.int32(step.NORM_STEPS)), z, yes)
    np.testing.assert_array_equal(again, first)


@pytest.mark.parametrize("gradient", ["local", "score", "second"])
def test_each_estimator_asks_for_what_it_needs(gradient):
    """[L, K] losses of other choices, nothing, or derivatives in the switches."""
    ctx = context(gradient=gradient, slots=1)
    features, targets = map(jnp.asarray, toy.regression(CARDS, EXAMPLES))
    arch = jnp.asarray([2, 0])
    z, vector = toy.to_switches(ctx.q, arch), jnp.linspace(-1, 1, 6)

    def loss(vector, arch, z):
        return toy.squared_error(ctx.net.params(vector), arch, z, features, targets)

    differentiate = step.differentiate(ctx, jax.random.key(0), jnp.bool_(True))
    nll, slope, values = differentiate(loss, vector, arch, z)
    np.testing.assert_allclose(nll, loss(vector, arch, z), rtol=1e-6)
    np.testing.assert_allclose(slope, jax.grad(loss)(vector, arch, z), rtol=1e-6)
    if gradient == "score":
        assert not values.any()
    if gradient == "second":
        np.testing.assert_allclose(values, jax.grad(loss, 2)(vector, arch, z), rtol=1e-5)
    if gradient == "local":
        slot = int(jax.random.permutation(jax.random.key(0), 2)[0])
        assert not values[1 - slot].any()
        for k in range(CARDS[slot]):
            other = z.at[slot].set(jax.nn.one_hot(k, 3))
            np.testing.assert_allclose(values[slot, k], loss(vector, arch, other), rtol=1e-5)


def test_gamma_rises_above_the_budget_and_never_below_zero():
    ctx = context(mflops=10.0, dual=0.5)
    yes = jnp.bool_(True)
    assert step.adapted_gamma(ctx, jnp.float32(1), jnp.float32(12), yes) > 1
    assert step.adapted_gamma(ctx, jnp.float32(1), jnp.float32(9), yes) < 1
    assert step.adapted_gamma(ctx, jnp.float32(0), jnp.float32(1), yes) == 0
    assert step.adapted_gamma(ctx, jnp.float32(1), jnp.float32(12), ~yes) == 1
    assert step.adapted_gamma(context(), jnp.float32(1), jnp.float32(12), yes) == 1
