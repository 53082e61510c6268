"""The conditioned surrogate against textbook formulas."""

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.methods.tnas import losses, meta, networks, surrogate
from tests.methods import toy
from tests.methods.tnas import small

KNOWN = small.known(rows=25)
W = networks.init(jax.random.key(0), toy.SPACE, small.NET, 2, 1)
FORMS = jnp.asarray(small.ARCHS[::7])


def textbook():
    """Mean and covariance of FORMS on a new task by explicit inversion in float64."""
    tasks, rows = KNOWN.mask.shape
    held = meta.gather(toy.SPACE, small.NET, W, KNOWN, *jnp.divmod(jnp.arange(tasks * rows), rows))
    xi = networks.embed_forms(small.NET, W, jnp.zeros(4), toy.SPACE, FORMS)
    new = jnp.full(len(FORMS), -1)

    def kernel(*args):
        return np.asarray(losses.kernel(W.hyper, *args), np.float64)

    inverse = np.linalg.inv(kernel(held.xi, held.task, held.xi, held.task) + 0.05 * np.eye(50))
    cross = kernel(held.xi, held.task, xi, new)
    prior = kernel(xi, new, xi, new)
    return cross.T @ inverse @ np.asarray(held.score), prior - cross.T @ inverse @ cross


def test_mean_and_covariance_are_those_of_the_textbook():
    s = surrogate.condition(toy.SPACE, small.NET, W, KNOWN)
    view = surrogate.conditioned(toy.SPACE, small.NET, s, FORMS)
    mean, covariance = textbook()
    np.testing.assert_allclose(view.mean, mean, atol=1e-3)
    np.testing.assert_allclose(view.variance, np.diag(covariance), atol=1e-3)
    np.testing.assert_allclose(surrogate.covariance(s, view, view), covariance, atol=1e-3)


def test_float64_agrees():
    def run(weights, known):
        s = surrogate.condition(toy.SPACE, small.NET, weights, known)
        return surrogate.conditioned(toy.SPACE, small.NET, s, FORMS)

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


def test_places_of_the_history_that_are_empty_change_nothing():
    widths = {
        "forms": ((0, 0), (0, 6), (0, 0)),
        "scores": ((0, 0), (0, 6)),
        "mask": ((0, 0), (0, 6)),
    }
    padded = KNOWN._replace(**{n: jnp.pad(getattr(KNOWN, n), w) for n, w in widths.items()})
    views = [
        surrogate.conditioned(
            toy.SPACE, small.NET, surrogate.condition(toy.SPACE, small.NET, W, known), FORMS
        )
        for known in (KNOWN, padded)
    ]
    np.testing.assert_allclose(views[0].mean, views[1].mean, atol=1e-4)
    np.testing.assert_allclose(views[0].variance, views[1].variance, atol=1e-4)


def test_without_a_history_nothing_is_foretold():
    s = surrogate.condition(toy.SPACE, small.NET, W, None)
    view = surrogate.conditioned(toy.SPACE, small.NET, s, FORMS)
    assert (
        not view.mean.any()
        and not view.variance.any()
        and view.whitened_cross.shape == (0, len(FORMS))
    )
    assert not surrogate.covariance(s, view, view).any()
