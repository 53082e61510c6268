"""The conditioned surrogate against textbook formulas."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core.precision import float64
from fnas_jax.methods.tnas import losses, networks, surrogate
from tests.methods import toy
from tests.methods.tnas import small

KNOWN = small.known(rows=25)
ARCHS = small.ARCHS[::7]


@jax.jit
def kernels(weights, known):
    """Scores of the known rows, and the kernel among them, with ARCHS, and among ARCHS."""
    tasks, rows = known.mask.shape
    index = jnp.divmod(jnp.arange(tasks * rows), rows)
    known = losses.embed_rows(toy.SPACE, small.SMALL, weights, known, *index)
    xi = networks.embed_archs(small.SMALL, weights, jnp.zeros(4), toy.SPACE, jnp.asarray(ARCHS))
    theirs, new = (known.xi, known.task), (xi, jnp.full(len(ARCHS), -1))
    pairs = ((theirs, theirs), (theirs, new), (new, new))
    return known.score, *(losses.kernel(weights.hyper, *a, *b) for a, b in pairs)


def textbook():
    """Mean and covariance of ARCHS on a new task by explicit inversion in float64."""
    score, among, cross, prior = (
        np.asarray(x, np.float64) for x in kernels(small.weights(), KNOWN)
    )
    inverse = np.linalg.inv(among + 0.05 * np.eye(50))
    return cross.T @ inverse @ score, prior - cross.T @ inverse @ cross


def test_mean_and_covariance_are_those_of_the_textbook():
    s = small.condition(small.weights(), KNOWN)
    view = small.conditioned(s, ARCHS)
    mean, covariance = textbook()
    np.testing.assert_allclose(view.mean, mean, atol=1e-3)
    np.testing.assert_allclose(view.variance, np.diag(covariance), atol=1e-3)
    found = jax.jit(surrogate.covariance)(s, view, view)
    np.testing.assert_allclose(found, covariance, atol=1e-3)
    assert not any(np.any(x) for x in surrogate.empty(s, 3))


def test_chunks_of_architectures_change_nothing(monkeypatch):
    s = small.condition(small.weights(), KNOWN)
    whole = small.conditioned(s, ARCHS)
    monkeypatch.setattr(surrogate, "CHUNK", 9)
    run = functools.partial(surrogate.conditioned, toy.SPACE, small.SMALL)
    for a, b in zip(jax.jit(run)(s, ARCHS), whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("film", [False, True])
def test_the_deep_part_is_the_graphs_code_with_that_of_the_task(monkeypatch, film):
    """Which stands beside it or, with `film`, bends every layer."""
    rng = np.random.default_rng(0)
    psi, codes = rng.normal(size=(2, 5, 4)).astype(np.float32)
    monkeypatch.setattr(networks.graph_encoder, "encode", lambda p, graphs: psi)
    p = small.weights()
    if film:  # the first layer reads the graph's code only
        p = p._replace(fusion=(p.fusion[0]._replace(w=p.fusion[0].w[:4]), *p.fusion[1:]))
    config = dataclasses.replace(small.SMALL, film=film)
    inputs = networks.inputs(toy.SPACE, jnp.asarray(ARCHS[:5]))
    got = jax.jit(functools.partial(networks.embed, config))(p, codes, inputs)
    h = psi if film else np.concatenate([codes, psi], axis=1)
    for layer, bend in zip(p.fusion[:-1], p.film, strict=True):
        h = h @ layer.w + layer.b
        if film:
            scale, shift = np.split(codes @ bend.w + bend.b, 2, axis=1)
            h = h * (1 + scale) + shift
        h = np.maximum(h, 0)
    out = np.exp(p.hyper.gate) * (h @ p.fusion[-1].w + p.fusion[-1].b) / 8**0.5
    np.testing.assert_allclose(got[:, -8:], out, rtol=1e-4, atol=1e-6)


def test_float64_agrees():
    def run(weights, known):
        return small.conditioned(small.condition(weights, known), ARCHS)

    weights = small.weights()
    single = run(weights, KNOWN)
    with float64():
        cast = [
            jax.tree.map(
                lambda x: jnp.asarray(
                    np.asarray(x), jnp.float64 if x.dtype == jnp.float32 else None
                ),
                tree,
            )
            for tree in (weights, KNOWN)
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
    padded = KNOWN._replace(**{n: np.pad(getattr(KNOWN, n), w) for n, w in widths.items()})
    views = [
        small.conditioned(small.condition(small.weights(), known), ARCHS)
        for known in (KNOWN, padded)
    ]
    np.testing.assert_allclose(views[0].mean, views[1].mean, atol=1e-4)
    np.testing.assert_allclose(views[0].variance, views[1].variance, atol=1e-4)


def test_without_source_tasks_nothing_is_predicted():
    s = small.condition(small.weights(), None)
    view = small.conditioned(s, ARCHS)
    assert (
        not view.mean.any()
        and not view.variance.any()
        and view.whitened_cross.shape == (0, len(ARCHS))
    )
    assert not surrogate.covariance(s, view, view).any()
