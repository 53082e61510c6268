"""The mixture of a transferred and an untransferred process."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import multivariate_normal, norm
from scipy import stats

from fnas_jax.methods import gp_math
from fnas_jax.methods import scores as scores_lib
from fnas_jax.methods.tnas import gp_mixture, source_tasks, surrogate
from tests.methods import toy
from tests.methods.tnas import small

OWN = np.random.default_rng(3).permutation(small.ARCHS)[:20]
MASK = np.arange(20) < 14
# One program each, not one for every operation in them.
fit = jax.jit(gp_mixture.fit, static_argnames="adapt")
fit_component = jax.jit(gp_mixture.fit_component, static_argnames="adapt")
align = jax.jit(gp_mixture.align, static_argnames="warm")
process = jax.jit(gp_mixture.process)
believe = jax.jit(gp_mixture.believe)
# What follows from them is on the host, and no program of its own.
on_host = lambda f: lambda *given: jax.device_get(jax.jit(f)(*given))  # noqa: E731
covariance = on_host(surrogate.covariance)
matern52 = on_host(gp_math.matern52)
squared_distances = on_host(gp_math.squared_distances)


def conditioned(known):
    s = small.condition(small.weights(), known)
    return s, jax.device_get(small.conditioned(s, OWN))


def component(s, own):
    return gp_mixture.Component(s, surrogate.empty(s, 0), own)


@functools.cache
def scores():
    return jax.jit(source_tasks.standardise)(jnp.asarray(toy.accuracy(OWN)), MASK)


def test_own_scores_get_the_mean_and_std_of_what_was_predicted():
    mean = np.array([1.0, 2.0, 3.0, -9.0], np.float32)
    mask = np.array([True, True, True, False])
    own = np.array([-1.0, 0.0, 1.0, 0.0], np.float32)
    got = align(own, mask, mean, warm=True)
    spread = np.std([1.0, 2.0, 3.0])
    np.testing.assert_allclose(got.value, [2 - spread, 2, 2 + spread, 0], rtol=1e-5)
    flat = align(own, mask, np.ones(4, np.float32), warm=True)
    np.testing.assert_allclose(flat.std, scores_lib.LEAST_STD)
    cold = align(own, mask, mean, warm=False)
    np.testing.assert_array_equal(cold.value, own)


@pytest.mark.parametrize("warm", [True, False])
def test_evidence_is_the_density_of_the_own_scores(warm):
    """By scipy, at hyper-parameters that were not adapted."""
    s, view = conditioned(small.known() if warm else None)
    targets = jax.device_get(align(scores(), MASK, view.mean, warm=warm))
    f, evidence = jax.device_get(fit(s, view, targets, adapt=False))
    squared = squared_distances(view.xi, view.xi)
    kernel = covariance(s, view, view) + np.exp(f.own) * matern52(squared, np.exp(f.lengthscale))
    kernel = np.asarray(kernel, np.float64)[:14, :14] + 0.05 * np.eye(14)
    # Own scores are (value - middle) / spread; the density is per unit of these.
    spread, own = float(targets.std), np.asarray(scores())
    mean = (view.mean[:14] - (targets.value - spread * own)[0]) / spread
    expected = stats.multivariate_normal(mean, kernel / spread**2).logpdf(own[:14])
    np.testing.assert_allclose(evidence, expected, rtol=1e-3, atol=0.02)


def test_what_is_adapted_goes_to_the_most_probable_numbers():
    """A priori normal about where they start, by JAX's own densities."""
    s, view = conditioned(small.known())
    targets = align(scores(), MASK, view.mean, warm=True)
    start = jax.device_get(gp_mixture.start(s))
    targets = jax.device_get(targets)
    squared = squared_distances(view.xi, view.xi)[:14, :14]
    given, residual = covariance(s, view, view)[:14, :14], (targets.value - view.mean)[:14]

    def loss(f):
        prior = sum(map(norm.logpdf, f, start, gp_mixture.PRIOR))
        own = jnp.exp(f.own) * gp_math.matern52(squared, jnp.exp(f.lengthscale))
        kernel = jnp.exp(f.scale) * given + own + jnp.exp(f.noise) * jnp.eye(14)
        return -prior - multivariate_normal.logpdf(residual, jnp.zeros(14), kernel)

    minimise = functools.partial(gp_math.minimise, loss)
    expected, _ = jax.jit(lambda f: minimise(f, gp_mixture.RATE, gp_mixture.STEPS))(start)
    fitted, _ = fit(s, view, targets, adapt=True)
    np.testing.assert_allclose(fitted, expected, atol=2e-3)
    assert np.abs(np.subtract(fitted, start)).min() > 1e-2


@pytest.mark.parametrize(("sign", "helps"), [(1.0, True), (-1.0, False)])
def test_a_history_that_misleads_is_less_likely_than_none(sign, helps):
    evidence = []
    for known in (None, small.known(sign)):
        s, view = conditioned(known)
        targets = align(scores(), MASK, view.mean, warm=known is not None)
        evidence.append(float(fit(s, view, targets, adapt=True)[1]))
    assert (evidence[1] > evidence[0]) == helps


def test_the_fitted_process_is_the_textbooks():
    s, view = conditioned(small.known())
    fitted = jax.device_get(fit_component(component(s, view), scores(), MASK, adapt=True))
    f, targets = fitted.fit, fitted.targets
    archs = small.ARCHS[::5]
    at = jax.device_get(small.conditioned(s, archs))
    got = process(fitted, at)

    def kernel(x, y):
        mine = matern52(squared_distances(x.xi, y.xi), np.exp(f.lengthscale))
        found = np.exp(f.scale) * covariance(s, x, y) + np.exp(f.own) * mine
        return np.asarray(found, np.float64)

    noise = np.exp(f.noise) * np.eye(14)
    inverse = np.linalg.inv(kernel(view, view)[:14, :14] + noise)
    cross, residual = kernel(view, at)[:14], np.asarray(targets.value - view.mean)[:14]
    np.testing.assert_allclose(
        got.posterior.mean, at.mean + cross.T @ inverse @ residual, atol=5e-3
    )
    variance = np.diag(kernel(at, at)) - np.einsum("im,ij,jm->m", cross, inverse, cross)
    np.testing.assert_allclose(got.posterior.variance, variance, atol=5e-3)
    own = np.asarray(view.mean)[:14] + kernel(view, view)[:14, :14] @ inverse @ residual
    np.testing.assert_allclose(got.incumbent, own.max(), atol=5e-3)


def test_the_acquisition_is_the_mixtures():
    def normal(mean, std):
        posterior = gp_math.Posterior(*np.array([mean, [1.0, 4.0]], np.float32))
        return gp_mixture.Process(posterior, np.float32(0.5), np.float32(std))

    pair = [normal([0.0, 1.0], 1.0), normal([3.0, -1.0], 2.0)]
    acquire = jax.jit(gp_mixture.acquire, static_argnums=2)
    log_weights = np.log(np.array([0.3, 0.7], np.float32))
    got = acquire(pair, log_weights + 5, None)

    def improvement(mean, sd):
        z = (mean - 0.5) / sd
        return sd * (z * stats.norm.cdf(z) + stats.norm.pdf(z))

    expected = [
        0.3 * improvement(0, 1) + 0.7 * improvement(3, 1) / 2,
        0.3 * improvement(1, 2) + 0.7 * improvement(-1, 2) / 2,
    ]
    np.testing.assert_allclose(got, np.log(expected), rtol=1e-4)
    bound = acquire(pair, log_weights, 2.0)
    expected = [0.3 * 1.5 + 0.7 * 4.5 / 2, 0.3 * 4.5 + 0.7 * 2.5 / 2]
    np.testing.assert_allclose(bound, expected, rtol=1e-4)


def test_what_is_believed_stands_in_its_place_only():
    s, view = conditioned(small.known())
    fitted = jax.device_get(fit_component(component(s, view), scores(), MASK, adapt=False))
    at = jax.device_get(small.conditioned(s, small.ARCHS[::5]))
    predicted = process(fitted, at)
    got = jax.device_get(believe(fitted, predicted, at, jnp.int32(3), jnp.int32(15)))
    assert got.targets.mask.tolist() == [*MASK[:15].tolist(), True, *MASK[16:].tolist()]
    np.testing.assert_allclose(got.targets.value[15], predicted.posterior.mean[3])
    own = got.component.own
    for name, axis in (("xi", 0), ("mean", 0), ("whitened_cross", 1)):
        new, old, source = (np.moveaxis(getattr(x, name), axis, 0) for x in (own, view, at))
        np.testing.assert_array_equal(new[15], source[3])
        np.testing.assert_array_equal(np.delete(new, 15, 0), np.delete(old, 15, 0))
    # Beyond the last place nothing is kept.
    nothing = believe(fitted, predicted, at, jnp.int32(3), jnp.int32(20))
    jax.tree.map(np.testing.assert_array_equal, nothing, fitted)
    # And the believed candidate is less uncertain than before.
    after = process(got, at)
    assert after.posterior.variance[3] < predicted.posterior.variance[3]
