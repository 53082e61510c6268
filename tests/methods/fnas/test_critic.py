"""The ensemble: its Gauss-Newton fit, bootstrap, priors, and what its deviation says."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import stats

from fnas_jax.core.types import Features
from fnas_jax.methods.fnas import critic as critics
from fnas_jax.methods.fnas.config import Uac
from fnas_jax.spaces import base
from tests.methods import toy

CARDS = toy.SPACE.cardinalities
ALL = jnp.asarray(base.enumerate_all(toy.SPACE))
TRUTH = np.asarray(toy.accuracy(np.asarray(ALL)))
SCORES = jnp.asarray((TRUTH - TRUTH.mean()) / TRUTH.std(), jnp.float32)
NOTHING = jnp.zeros(0)


def make(**numbers):
    return critics.make(CARDS, Uac(**{"members": 5, "hidden": 32} | numbers))


CRITIC = make()
ENSEMBLE = jax.jit(partial(critics.init, CRITIC))(jax.random.key(0))
X = jax.jit(partial(critics.encode, CRITIC))(ALL, NOTHING)
predict = jax.jit(critics.predict, static_argnums=0)
FIT = jax.jit(partial(critics.fit, CRITIC), static_argnames=("rank", "steps"))


def test_it_learns_the_order_of_unseen_architectures():
    seen = np.random.default_rng(0).permutation(216)[:60]
    fitted = FIT(ENSEMBLE, X[seen], SCORES[seen], jnp.ones((5, 60)))
    unseen = np.setdiff1d(np.arange(216), seen)
    value = np.asarray(predict(CRITIC, fitted, X[unseen]).mean(axis=0))
    assert stats.spearmanr(value, TRUTH[unseen]).statistic > 0.9


def flat_of(mlp):
    """The weights of the second member, as `ravel_pytree` has them."""
    return np.concatenate([np.asarray(leaf)[1].ravel() for leaf in jax.tree.leaves(mlp)])


@pytest.mark.parametrize("rank", [0.0, 2.0])
def test_a_step_solves_the_linearised_least_squares_problem(rank):
    """Against the normal equations in all weights, built from an explicit Jacobian."""
    critic = make(members=2, hidden=8, prior=0.3, noise=0.1)
    ensemble = jax.jit(partial(critics.init, critic))(jax.random.key(1))
    x, y = X[:20], np.asarray(SCORES[:20], float)
    weights = jnp.arange(40).reshape(2, 20) % 3.0
    # Not at the anchor, so that the way back to it counts as well.
    start = jax.device_get(ensemble.start)
    ensemble = ensemble._replace(
        anchor=jax.tree.map(lambda a: np.float32(0.9) * a, start),
        mlp=jax.tree.map(lambda a: np.float32(1.1) * a, start),
    )
    fit = jax.jit(partial(critics.fit, critic), static_argnames=("rank", "steps"))
    fitted = fit(ensemble, x, jnp.asarray(y, jnp.float32), weights, rank=rank, steps=1)
    flat, unravel = ravel_pytree(jax.tree.map(lambda a: a[1], ensemble.mlp))

    def output(vector):
        one = unravel(vector)
        mlp = jax.tree.map(lambda a, b: jnp.asarray(a).at[1].set(b), ensemble.mlp, one)
        return predict(critic, ensemble._replace(mlp=mlp), x)[1]

    jacobian = np.asarray(jax.jit(jax.jacobian(output))(flat), float)
    anchor = flat_of(ensemble.anchor).astype(float)
    w = np.asarray(weights[1], float)
    precision = (1 + rank) * np.diag(w) - rank * np.outer(w, w) / w.sum()
    error = (
        y - np.asarray(jax.jit(output)(flat), float) + jacobian @ (np.asarray(flat, float) - anchor)
    )
    normal = jacobian.T @ precision @ jacobian + 0.1 * np.eye(len(anchor))
    expected = anchor + np.linalg.solve(normal, jacobian.T @ precision @ error)
    np.testing.assert_allclose(flat_of(fitted.mlp), expected, atol=3e-3)


def test_steps_lower_the_loss_that_they_are_for():
    def loss(ensemble):
        error = np.asarray(predict(CRITIC, ensemble, X)) - np.asarray(SCORES)
        mlp, anchor = jax.device_get((ensemble.mlp, ensemble.anchor))
        moved = sum(np.sum((a - b) ** 2) for a, b in zip(mlp, anchor, strict=True))
        return np.sum(error**2) + 0.05 * moved

    losses = [loss(FIT(ENSEMBLE, X, SCORES, jnp.ones((5, 216)), steps=n)) for n in (1, 2, 4, 8)]
    assert losses[0] < loss(ENSEMBLE) and losses[-1] < losses[0]


def test_the_rank_term_forgives_a_shift_of_all_targets():
    def error(rank):
        fitted = FIT(ENSEMBLE, X[:60], SCORES[:60] + 5.0, jnp.ones((5, 60)), rank=rank, noise=20.0)
        value = np.asarray(predict(CRITIC, fitted, X).mean(axis=0))
        return 1 - stats.kendalltau(value, TRUTH).statistic

    assert error(50.0) < error(0.0)


def test_priors_cancel_in_the_mean_and_have_their_deviation():
    free = predict(CRITIC, ENSEMBLE, X)
    np.testing.assert_allclose(free.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(float(free.std()), 0.4, rtol=0.3)
    assert float(jnp.abs(predict(make(prior=0.0), ENSEMBLE, X)).max()) < 1e-6
    single = make(members=1)
    assert predict(single, jax.jit(partial(critics.init, single))(jax.random.key(0)), X).shape == (
        1,
        216,
    )


def test_members_disagree_where_there_is_no_data():
    near = np.flatnonzero(np.asarray(ALL[:, 0]) == 0)
    far = np.flatnonzero(np.asarray(ALL[:, 0]) == 2)
    fitted = FIT(ENSEMBLE, X[near], SCORES[near], jnp.ones((5, len(near))))
    std = np.asarray(predict(CRITIC, fitted, X).std(axis=0))
    assert std[far].mean() > 1.4 * std[near].mean()


def test_samples_of_weight_zero_have_no_influence():
    weights = jnp.ones((5, 30)).at[:, 20:].set(0)
    scores = SCORES[:30].at[20:].set(99.0)
    one = FIT(ENSEMBLE, X[:30], scores, weights)
    two = FIT(ENSEMBLE, X[:20], SCORES[:20], weights[:, :20])
    np.testing.assert_allclose(predict(CRITIC, one, X), predict(CRITIC, two, X), atol=1e-3)


def test_bootstrap_weights_are_poisson_of_mean_one():
    weights = np.asarray(critics.bootstrap(make(bootstrap=True), jax.random.key(0), 20_000))
    for k in range(4):
        np.testing.assert_allclose((weights == k).mean(), stats.poisson.pmf(k, 1), atol=0.005)
    assert (np.asarray(critics.bootstrap(CRITIC, jax.random.key(0), 9)) == 1).all()


@pytest.mark.slow
def test_an_embedding_tells_tasks_apart():
    """Two tasks that want the opposite: one critic learns both."""
    critic = critics.make(CARDS, Uac(members=3, hidden=32), embedding=1)
    seen = np.random.default_rng(1).permutation(216)[:100]
    x = jnp.concatenate([critics.encode(critic, ALL[seen], jnp.array([e])) for e in (-1.0, 1.0)])
    y = jnp.concatenate([SCORES[seen], -SCORES[seen]])
    fitted = critics.fit(
        critic, critics.init(critic, jax.random.key(0)), x, y, jnp.ones((3, 200)), steps=4
    )
    for e, sign in ((-1.0, 1), (1.0, -1)):
        value = predict(critic, fitted, critics.encode(critic, ALL, jnp.array([e]))).mean(axis=0)
        assert sign * stats.spearmanr(np.asarray(value), TRUTH).statistic > 0.8


def test_features_are_half_of_the_mean_squared_distance_of_codes():
    numbers = np.random.default_rng(0).normal(size=(216, 4))
    numbers = jnp.asarray((numbers - numbers.mean(0)) / numbers.std(0), jnp.float32)
    weights = base.place_values(CARDS)
    known = Features(tuple("abcd"), lambda archs: numbers[archs @ weights], "{}")
    config = Uac(members=2, hidden=8, gain=0.7)
    critic = critics.make(CARDS, config, 1, known)
    x = np.asarray(critics.encode(critic, ALL, jnp.ones(1)))
    plain = np.asarray(critics.encode(critics.make(CARDS, config, 1), ALL, jnp.ones(1)))
    assert x.shape == (216, critic.inputs) == (216, sum(CARDS) + 4 + 1)

    def squared(code):
        return ((code[:, None] - code) ** 2).sum(-1)

    apart = squared(np.asarray(numbers)) / 8
    mean = squared(plain).mean()
    assert mean == pytest.approx(2 * 0.7**2, rel=1e-4)
    np.testing.assert_allclose(squared(x), (squared(plain) + mean * apart) / 2, atol=1e-4)
    ensemble = critics.init(critic, jax.random.key(0))
    assert critics.predict(critic, ensemble, jnp.asarray(x)).shape == (2, 216)
