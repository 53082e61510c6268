"""Gaussian processes against scikit-learn, log-EI against integration, all in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from fnas_jax.core.precision import float64
from fnas_jax.methods import gp_math, whitening


@pytest.fixture
def x64():
    with float64():
        yield


def problem(n=25, m=40, d=3):
    rng = np.random.default_rng(0)
    x, new = rng.normal(size=(n, d)), rng.normal(size=(m, d))
    return x, new, np.sin(x).sum(axis=1) + 0.1 * rng.normal(size=n)


def fitted(x, new, y, signal=1.7, lengthscale=1.3, noise=0.02):
    def kernel(a, b):
        return signal * gp_math.matern52(gp_math.squared_distances(a, b), lengthscale)

    @jax.jit
    def run(x, new, y):
        matrix = kernel(x, x) + noise * jnp.eye(len(x))
        white = gp_math.whitening(matrix)
        found = gp_math.posterior(white, y, kernel(x, new), jnp.full(len(new), signal))
        return found, gp_math.log_density(matrix, y, float(len(y)))

    return run(x, new, y)


def reference(x, new, y, signal=1.7, lengthscale=1.3, noise=0.02):
    kernel = ConstantKernel(signal) * Matern(lengthscale, nu=2.5) + WhiteKernel(noise)
    model = GaussianProcessRegressor(kernel, alpha=0.0, optimizer=None).fit(x, y)
    mean, deviation = model.predict(new, return_std=True)
    return mean, deviation**2 - noise, model.log_marginal_likelihood()


log_expected_improvement = jax.jit(gp_math.log_expected_improvement)
whiten = jax.jit(gp_math.whitening)


def test_posterior_and_evidence_are_those_of_scikit_learn(x64):
    data = problem()
    found, evidence = fitted(*data)
    mean, variance, expected = reference(*data)
    assert found.mean.dtype == jnp.float64
    np.testing.assert_allclose(found.mean, mean, atol=1e-6)
    np.testing.assert_allclose(found.variance, variance, atol=1e-6)
    np.testing.assert_allclose(evidence, expected, atol=1e-6)


def test_float32_is_near_float64():
    data = problem(n=200)
    found, evidence = fitted(*(a.astype(np.float32) for a in data))
    mean, variance, expected = reference(*data)
    assert found.mean.dtype == jnp.float32
    np.testing.assert_allclose(found.mean, mean, atol=2e-3)
    np.testing.assert_allclose(found.variance, variance, atol=2e-3)
    np.testing.assert_allclose(evidence, expected, rtol=2e-3)


def test_places_that_are_masked_out_change_nothing(x64):
    x, _, y = problem(n=12)

    @jax.jit
    def evidence(x, y, use):
        kernel = gp_math.matern52(gp_math.squared_distances(x, x))
        matrix = gp_math.masked(kernel, 0.1, use)
        return gp_math.log_density(matrix, jnp.where(use, y, 0.0), 7.0)

    alone = evidence(x[:7], y[:7], np.ones(7, bool))
    np.testing.assert_allclose(evidence(x, y, np.arange(12) < 7), alone, atol=1e-12)


def test_slopes_of_the_density_are_those_of_automatic_differentiation(x64):
    x, _, y = problem(n=6)
    squared = ((x[:, None] - x) ** 2).sum(axis=-1)
    matrix = 0.1 * np.eye(6) + np.asarray(jax.jit(gp_math.matern52)(squared))

    def plain(matrix, y):
        sign, determinant = jnp.linalg.slogdet(matrix)
        return -0.5 * (y @ jnp.linalg.solve(matrix, y) + determinant + 6 * np.log(2 * np.pi)) * sign

    expected = jax.jit(jax.grad(plain, (0, 1)))(matrix, y)
    got = jax.jit(jax.grad(lambda m, t: gp_math.log_density(m, t, 6.0), (0, 1)))(matrix, y)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-8)


@pytest.mark.parametrize(("mean", "deviation"), [(0.3, 1.0), (-1.5, 0.7), (-6.0, 0.9), (2.0, 0.1)])
def test_log_expected_improvement_agrees_with_integration(x64, mean, deviation):
    best = 0.2
    ends = (best, max(best, mean) + 12 * deviation)
    expected, _ = integrate.quad(
        lambda f: (f - best) * stats.norm.pdf(f, mean, deviation), *ends, epsabs=0, epsrel=1e-11
    )
    got = log_expected_improvement(np.float64(mean), np.float64(deviation), best)
    np.testing.assert_allclose(got, np.log(expected), atol=1e-8)


@pytest.mark.parametrize("z", [-8.0, -20.0, -39.0, -60.0, -300.0])
def test_log_expected_improvement_stays_exact_far_below(x64, z):
    """With f = best + t / |z| the integral is pdf(z) / z^2 int t exp(-t - t^2 / (2 z^2)) dt."""
    integral, _ = integrate.quad(lambda t: t * np.exp(-t - t**2 / (2 * z**2)), 0, np.inf)
    expected = stats.norm.logpdf(z) + np.log(integral / z**2)
    got = log_expected_improvement(np.float64(z), np.float64(1.0), 0.0)
    np.testing.assert_allclose(got, expected, atol=1e-8)
    single = log_expected_improvement(np.float32(z), np.float32(1.0), np.float32(0.0))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=1e-5, atol=2e-3)


def test_log_expected_improvement_rises_and_has_finite_slopes():
    z = np.linspace(-50, 50, 2001, dtype=np.float32)
    value = log_expected_improvement(z, np.ones_like(z), 0.0)
    assert (np.diff(value) > -1e-3).all()
    slope = jax.grad(lambda m: gp_math.log_expected_improvement(m, 1.0, 0.0))
    slope = jax.jit(jax.vmap(slope))(z)
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_singular_matrices_get_as_much_jitter_as_they_need(x64, dtype):
    ones = np.ones((6, 6), dtype)
    white = whiten(ones)
    assert white.dtype == dtype
    assert np.isfinite(white).all()
    factor = np.linalg.inv(white)
    np.testing.assert_allclose(factor @ factor.T, ones, atol=2e-2)
    sound = ones + np.eye(6, dtype=dtype)
    np.testing.assert_array_equal(whiten(sound), jax.jit(whitening.inverse_factor)(sound))


def test_minimise_finds_the_bottom_of_a_bowl():
    target = {"a": np.float32(0.4), "b": np.array([-0.2, 0.3], np.float32)}
    start = jax.tree.map(np.zeros_like, target)

    def loss(p):
        return sum(((p[k] - target[k]) ** 2).sum() for k in p)

    end, value = jax.jit(lambda start: gp_math.minimise(loss, start, 0.1, 60))(start)
    assert value < 1e-3
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=0.03), end, target)
