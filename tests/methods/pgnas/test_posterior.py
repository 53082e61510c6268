"""The posterior against enumeration, scipy and its own definition."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from fnas_jax.core.types import UserError
from fnas_jax.methods.pgnas import posterior
from tests.methods.pgnas import toy

CARDS = (3, 2, 4)


def patterns(q):
    """All switches [A, L, K] of a family."""
    if q.subset:
        bits = itertools.product((0, 1), repeat=q.decisions)
        return toy.to_switches(q, jnp.asarray(list(bits)))
    return toy.to_switches(q, jnp.asarray(list(itertools.product(*map(range, q.cardinalities)))))


@pytest.fixture(params=posterior.CHOICES)
def q(request):
    return posterior.make(CARDS, request.param)


@pytest.fixture
def phi(q):
    return jax.random.normal(jax.random.key(0), q.mask.shape)


def test_probabilities_of_all_patterns_add_up_to_one(q, phi):
    total = jnp.exp(q.log_prob(phi, patterns(q))).sum()
    np.testing.assert_allclose(total, 1, rtol=1e-5)


def test_pi_is_the_mean_of_the_switches(q, phi):
    z = patterns(q)
    mean = jnp.einsum("a,alk->lk", jnp.exp(q.log_prob(phi, z)), z)
    np.testing.assert_allclose(q.pi(phi), mean, atol=1e-6)


def test_entropy_is_that_of_the_enumeration(q, phi):
    log_q = np.asarray(q.log_prob(phi, patterns(q)), float)
    np.testing.assert_allclose(q.entropy(phi).sum(), -(np.exp(log_q) * log_q).sum(), rtol=1e-5)


def test_families_are_those_of_scipy():
    phi = jax.random.normal(jax.random.key(1), (3, 4))
    single, subset = (posterior.make(CARDS, choice) for choice in posterior.CHOICES)
    for logits, pi, h, k in zip(phi, single.pi(phi), single.entropy(phi), CARDS, strict=True):
        np.testing.assert_allclose(pi[:k], special.softmax(logits[:k]), rtol=1e-5)
        np.testing.assert_allclose(h, stats.entropy(pi[:k]), rtol=1e-5)
        assert (pi[k:] == 0).all()
    np.testing.assert_allclose(subset.pi(phi)[0, :3], special.expit(phi[0, :3]), rtol=1e-5)
    np.testing.assert_allclose(
        subset.entropy(phi)[2], stats.bernoulli(special.expit(phi[2])).entropy().sum(), rtol=1e-5
    )


def test_draws_are_distributed_as_q(q, phi):
    z = q.draw(phi, q.noise(jax.random.key(0), 40_000))
    np.testing.assert_allclose(z.mean(0), q.pi(phi), atol=0.015)
    if not q.subset:
        assert (z.sum(-1) == 1).all()
    assert not z[:, ~q.mask].any()


def test_the_relaxation_becomes_the_draw(q, phi):
    noise = q.noise(jax.random.key(0), 200)
    cold = q.relax(phi, noise, 1e-8)
    np.testing.assert_allclose(cold, q.draw(phi, noise), atol=1e-3)
    warm = q.relax(phi, noise, 1.0)
    assert ((warm >= 0) & (warm <= 1)).all()
    if not q.subset:
        np.testing.assert_allclose(warm.sum(-1), 1, rtol=1e-5)
        assert (warm.argmax(-1) == q.draw(phi, noise).argmax(-1)).all()


def test_the_density_of_the_relaxation_is_concrete():
    """Two operations: log-odds of the sample are logistic with scale 1 / temperature."""
    q = posterior.make((2,))
    phi, temperature = jnp.asarray([[0.7, -0.2]]), 0.5
    soft = q.relax(phi, q.noise(jax.random.key(0), 4000), temperature)[:, 0]
    odds = np.log(soft[:, 0]) - np.log(soft[:, 1])
    assert stats.kstest(odds, stats.logistic(0.9 / temperature, 1 / temperature).cdf).pvalue > 1e-3


def test_the_mode_is_the_most_probable_pattern(q, phi):
    z = patterns(q)
    np.testing.assert_array_equal(q.mode(phi), z[jnp.argmax(q.log_prob(phi, z))])


@settings(max_examples=8)  # each compiles its shapes
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.booleans(), st.integers(0, 999))
def test_vectors_and_switches_are_the_same_thing(cards, subset, seed):
    q = posterior.make(cards, "subset" if subset else "single")
    rng = np.random.default_rng(seed)
    high = np.full(q.decisions, 2) if subset else np.asarray(cards)
    archs = jnp.asarray(rng.integers(0, high, (7, q.decisions)), jnp.int32)
    z = toy.to_switches(q, archs)
    assert z.shape == (7, *q.mask.shape)
    np.testing.assert_array_equal(q.to_archs(z), archs)
    assert not z[:, ~q.mask].any()


def test_entropy_of_a_certain_choice_has_a_finite_gradient(q):
    far = 200 * jnp.eye(*q.mask.shape)
    assert jnp.isfinite(jax.grad(lambda phi: q.entropy(phi).sum())(far)).all()


def test_wrong_families_are_refused():
    with pytest.raises(UserError, match="single, subset"):
        posterior.make((2,), "sinlge")
    with pytest.raises(UserError, match="at least one operation"):
        posterior.make((2, 0))
