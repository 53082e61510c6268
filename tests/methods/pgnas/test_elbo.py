"""Gradients against finite differences of the exact ELBO of problems that can be enumerated."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from fnas_jax.methods.pgnas import elbo, posterior
from tests.methods.pgnas import toy
from tests.methods.pgnas.test_posterior import patterns

CARDS = (3, 2)
FAMILIES = [posterior.make(CARDS, choice) for choice in posterior.CHOICES]
IDS = list(posterior.CHOICES)
FEATURES = np.random.default_rng(3).normal(size=(2, 3, 4)).astype(np.float32)


def linear(z):
    """A loss that is linear in the switches of each slot, with interaction between slots."""
    a = jnp.asarray([[0.3, -0.8, 0.5], [1.1, -0.4, 0.0]])
    b = jnp.asarray([[0.7, 0.2, -0.5], [-0.6, 0.9, 0.0]])
    return (a * z).sum() + (b[0] * z[0]).sum() * (b[1] * z[1]).sum()


def quadratic(z):
    """Squared error of the sum of the switched-on features."""
    residual = jnp.asarray([1.0, -0.5, 0.3, 0.8]) - jnp.einsum("lk,lkd->d", z, FEATURES)
    return 0.5 * residual @ residual


def wild(z):
    """Neither."""
    return jnp.exp(quadratic(z) / 4) + jnp.sin(3 * linear(z))


# One program each, not one for every operation in them.
@functools.partial(jax.jit, static_argnums=0)
def losses(loss, z):
    return jax.vmap(loss)(z)


@functools.partial(jax.jit, static_argnums=0)
def slopes(loss, z):
    return jax.vmap(jax.grad(loss))(z)


def exact(q, values, phi, examples):
    """E_q[values] - H(q) / examples by enumeration in numpy, `values` [A] of all patterns."""
    z = np.asarray(patterns(q))
    if q.subset:
        pi = special.expit(phi)
        probability = np.where(z > 0, pi, 1 - pi)[:, q.mask].prod(-1)
    else:
        rows = [special.softmax(row[:k]) for row, k in zip(phi, q.cardinalities, strict=True)]
        choices = zip(*z.argmax(-1).T, strict=True)
        probability = np.array(
            [np.prod([row[k] for row, k in zip(rows, c, strict=True)]) for c in choices]
        )
    entropy = -(probability * np.log(probability)).sum()
    return probability @ np.asarray(values, np.float64) - entropy / examples


def differences(q, loss, phi, examples, step=1e-5):
    """Central differences of `exact`."""
    phi, values = np.asarray(phi, np.float64), losses(loss, patterns(q))
    out = np.zeros_like(phi)
    for place in np.argwhere(q.mask):
        move = np.zeros_like(phi)
        move[tuple(place)] = step
        up, down = (exact(q, values, phi + sign * move, examples) for sign in (1, -1))
        out[tuple(place)] = (up - down) / (2 * step)
    return out


def phi_of(q):
    return jnp.where(q.mask, jax.random.normal(jax.random.key(5), q.mask.shape), 0.0)


@pytest.mark.parametrize("q", FAMILIES, ids=IDS)
@pytest.mark.parametrize("loss", [linear, quadratic, wild])
def test_the_score_function_is_unbiased_for_any_loss(q, loss):
    """The expectation over all pairs of samples is the finite difference."""
    phi, z = phi_of(q), patterns(q)

    @jax.jit
    def mean(phi, z):
        p, f = jnp.exp(q.log_prob(phi, z)), jax.vmap(loss)(z)
        a, b = (i.reshape(-1) for i in jnp.meshgrid(jnp.arange(len(z)), jnp.arange(len(z))))
        each = jax.vmap(lambda i: elbo.score(q, phi, z[i], f[i]))(jnp.stack([a, b], 1))
        return jnp.einsum("p,plk->lk", p[a] * p[b], each) - elbo.entropy_gradient(q, phi) / 50

    np.testing.assert_allclose(mean(phi, z), differences(q, loss, phi, 50), atol=2e-5)


@pytest.mark.parametrize("q", FAMILIES, ids=IDS)
@pytest.mark.parametrize("loss", [linear, quadratic])
def test_the_second_order_rule_is_exact_for_quadratic_losses(q, loss):
    phi, z = phi_of(q), patterns(q)

    @jax.jit
    def mean(phi, z):
        g = jax.vmap(jax.grad(loss))(z)
        each = jax.vmap(lambda z, g: elbo.second(q, phi, z[None], g[None]))(z, g)
        found = jnp.einsum("a,alk->lk", jnp.exp(q.log_prob(phi, z)), each)
        return found - elbo.entropy_gradient(q, phi) / 50

    np.testing.assert_allclose(mean(phi, z), differences(q, loss, phi, 50), atol=2e-5)


@pytest.mark.parametrize("q", FAMILIES, ids=IDS)
def test_cold_concrete_agrees_for_losses_that_are_linear_in_a_slot(q):
    phi, temperature = phi_of(q), 0.1
    noise = q.noise(jax.random.key(0), 200_000)
    g = slopes(linear, q.draw(phi, noise))
    found = jax.jit(elbo.concrete, static_argnums=0)(q, phi, noise, temperature, g)
    wanted = differences(q, linear, phi, np.inf)
    np.testing.assert_allclose(found, wanted, atol=0.01)
    assert np.abs(wanted).max() > 0.1


@pytest.mark.parametrize("q", FAMILIES, ids=IDS)
def test_concrete_is_the_derivative_of_the_straight_through_network(q):
    """Against JAX's own derivative of `hard + soft - stop_gradient(soft)`."""
    phi, temperature = phi_of(q), 0.7
    noise = q.noise(jax.random.key(1), 5)

    def through(phi):
        soft = q.relax(phi, noise, temperature)
        z = q.draw(phi, noise) + soft - jax.lax.stop_gradient(soft)
        return jax.vmap(wild)(z).mean()

    g = slopes(wild, q.draw(phi, noise))
    found = jax.jit(elbo.concrete, static_argnums=0)(q, phi, noise, temperature, g)
    np.testing.assert_allclose(
        found, jax.jit(jax.grad(through))(phi) * q.mask, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("q", FAMILIES, ids=IDS)
@pytest.mark.parametrize("loss", [quadratic, wild])
def test_local_expectations_are_unbiased_for_any_loss(q, loss):
    phi, z = phi_of(q), patterns(q)
    values = elbo.alternatives(q, z, lambda archs: jax.vmap(loss)(toy.to_switches(q, archs)))
    each = jax.vmap(lambda v: elbo.local(q, phi, v[None]))(values)
    mean = jnp.einsum("a,alk->lk", jnp.exp(q.log_prob(phi, z)), each)
    np.testing.assert_allclose(mean, differences(q, loss, phi, np.inf), atol=2e-5)


@pytest.mark.parametrize("q", FAMILIES, ids=IDS)
def test_some_alternatives_are_those_of_their_slots(q):
    z = patterns(q)[3]
    wanted = elbo.alternatives(q, z[None], lambda archs: jax.vmap(wild)(toy.to_switches(q, archs)))[
        0
    ]
    for slots in ([0], [1], [1, 0]):
        found = elbo.some_alternatives(
            q, z, jnp.asarray(slots), lambda arch, z: wild(toy.to_switches(q, arch)), wild(z)
        )
        others = np.setdiff1d(np.arange(len(q.mask)), slots)
        np.testing.assert_allclose(found[np.asarray(slots)], wanted[np.asarray(slots)], atol=1e-6)
        assert (found[others] == 0).all()


@pytest.mark.parametrize("q", FAMILIES, ids=IDS)
def test_a_known_loss_is_not_computed_again(q):
    z, known = patterns(q)[0], 1000.0
    found = elbo.some_alternatives(q, z, jnp.asarray([0]), lambda arch, z: wild(z), known)
    assert np.sum(np.abs(found) > 500) == (q.mask[0].sum() if q.subset else 1)


@pytest.mark.parametrize("q", FAMILIES, ids=IDS)
def test_one_sample_with_any_baseline_is_unbiased(q):
    phi, z = phi_of(q), patterns(q)
    f = jax.vmap(wild)(z)
    each = jax.vmap(lambda z, f: elbo.score(q, phi, z[None], f[None], 0.7))(z, f)
    mean = jnp.einsum("a,alk->lk", jnp.exp(q.log_prob(phi, z)), each)
    np.testing.assert_allclose(mean, differences(q, wild, phi, np.inf), atol=2e-5)
