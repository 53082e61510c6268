"""The conditioned surrogate against textbook formulas."""

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.methods.tnas import losses, networks, surrogate
from tests.methods import toy
from tests.methods.tnas import small

KNOWN = small.known(rows=25)
W = networks.init(jax.random.key(0), toy.SPACE, small.SMALL, 2, 1)
ARCHS = jnp.asarray(small.ARCHS[::7])


def textbook():
    """Mean and covariance of ARCHS on a new task by explicit inversion in float64."""
    tasks, rows = KNOWN.mask.shape
    index = jnp.divmod(jnp.arange(tasks * rows), rows)
    known = losses.embed_rows(toy.SPACE, small.SMALL, W, KNOWN, *index)
    xi = networks.embed_archs(small.SMALL, W, jnp.zeros(4), toy.SPACE, ARCHS)
    new = jnp.full(len(ARCHS), -1)

    def kernel(*args):
        return np.asarray(losses.kernel(W.hyper, *args), np.float64)

    inverse = np.linalg.inv(kernel(known.xi, known.task, known.xi, known.task) + 0.05 * np.eye(50))
    cross = kernel(known.xi, known.task, xi, new)
    prior = kernel(xi, new, xi, new)
    return cross.T @ inverse @ np.asarray(known.score), prior - cross.T @ inverse @ cross


def test_mean_and_covariance_are_those_of_the_textbook():
    s = surrogate.condition(toy.SPACE, small.SMALL, W, KNOWN)
    view = surrogate.conditioned(toy.SPACE, small.SMALL, s, ARCHS)
    mean, covariance = textbook()
    np.testing.assert_allclose(view.mean, mean, atol=1e-3)
    np.testing.assert_allclose(view.variance, np.diag(covariance), atol=1e-3)
    np.testing.assert_allclose(surrogate.covariance(s, view, view), covariance, atol=1e-3)


def test_float64_agrees():
    def run(weights, known):
        s = surrogate.condition(toy.SPACE, small.SMALL, weights, known)
        return surrogate.conditioned(toy.SPACE, small.SMALL, s, ARCHS)

    single = run(W, KNOWN)
    with jax.enable_x64(True):
        cast = [
            jax.tree.map(
                lambda x: jnp.asarray(
                    np.asarray(x), jnp.float64 if x.dtype == jnp.float32 else None
                ),
                tree,
            )
            for tree in (W, KNOWN)
        ]
        double = run(*cast)
        assert double.mean.dtype == jnp.float64
    for a, b in zip(single, double, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)


def test_places_of_the_source_tasks_that_are_empty_change_nothing():
    widths = {
        "archs": ((0, 0), (0, 6), (0, 0)),
        "scores": ((0, 0), (0, 6)),
        "mask": ((0, 0), (0, 6)),
    }
    padded = KNOWN._replace(**{n: jnp.pad(getattr(KNOWN, n), w) for n, w in widths.items()})
    views = [
        surrogate.conditioned(
            toy.SPACE, small.SMALL, surrogate.condition(toy.SPACE, small.SMALL, W, known), ARCHS
        )
        for known in (KNOWN, padded)
    ]
    np.testing.assert_allclose(views[0].mean, views[1].mean, atol=1e-4)
    np.testing.assert_allclose(views[0].variance, views[1].variance, atol=1e-4)


def test_without_source_tasks_nothing_is_predicted():
    s = surrogate.condition(toy.SPACE, small.SMALL, W, None)
    view = surrogate.conditioned(toy.SPACE, small.SMALL, s, ARCHS)
    assert (
        not view.mean.any()
        and not view.variance.any()
        and view.whitened_cross.shape == (0, len(ARCHS))
    )
    assert not surrogate.covariance(s, view, view).any()
