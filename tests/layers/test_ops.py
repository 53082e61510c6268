"""Normalisation, gates and initialisation of children, against plain formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core.precision import float64
from fnas_jax.layers import convolutions, ops
from fnas_jax.layers.ops import Moments
from fnas_jax.layers.spec import HARD_SWISH, NONE, RELU, RELU6

ACTIVE, CHANNELS = 5, 8
KEY = jax.random.key(0)
X = 3 * jax.random.normal(KEY, (4, 3, 5, CHANNELS)) + 1
P = {
    "scale": 1 + jax.random.normal(jax.random.key(1), (CHANNELS + 2,)),
    "bias": jax.random.normal(jax.random.key(2), (CHANNELS + 2,)),
}


def formula(x, p, active, act, mean, var):
    """Over the active channels alone, zeros behind."""
    scale, bias = p["scale"][:active], p["bias"][:active]
    y = (x[..., :active] - mean[:active]) / jnp.sqrt(var[:active] + 1e-5) * scale + bias
    relu6 = jnp.minimum(jnp.maximum(y, 0), 6)
    hard_swish = jnp.where(y < -3, 0, jnp.where(y > 3, y, y * (y + 3) / 6))
    y = {NONE: y, RELU: jnp.maximum(y, 0), RELU6: relu6, HARD_SWISH: hard_swish}[act]
    return jnp.concatenate([y, jnp.zeros((*x.shape[:-1], x.shape[-1] - active))], axis=-1)


@pytest.mark.parametrize("act", [NONE, RELU, RELU6, HARD_SWISH])
def test_norm_act_and_its_gradient_in_training(act):
    weights = jax.random.normal(jax.random.key(3), X.shape)

    def ours(x, p):
        y, moments = ops.norm_act(x, p, ACTIVE, act, None)
        assert moments is None
        return (y * weights).sum(), y

    def expected(x, p):
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        y = formula(x, p, ACTIVE, act, mean, var)
        return (y * weights).sum(), y

    @jax.jit
    def both(x, p):
        grads = (jax.grad(f, argnums=(0, 1), has_aux=True)(x, p) for f in (ours, expected))
        return tuple(grads)

    found, wanted = both(X, P)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-5, rtol=1e-4), found, wanted)


@pytest.mark.parametrize("pixels", [(2, 8, 8), (3, 7, 9), (131, 1, 1), (1, 1, 1)])
def test_sums_in_two_steps_are_those_of_all_pixels(pixels):
    """As where the network's images are in bfloat16; of 131, which has no divisors, in one."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3, *pixels, CHANNELS)).astype(np.float32)
    sums = jax.vmap(functools.partial(ops._sums, jnp.bfloat16))
    found = jax.jit(sums)(a, b)
    for total, array in zip(found, (a, b), strict=True):
        expected = array.astype(np.float64).sum((1, 2, 3))
        np.testing.assert_allclose(total, expected, atol=1e-4, rtol=1e-5)
    twice = "optimization_barrier" in str(jax.make_jaxpr(sums)(a, b))
    assert twice == (pixels in [(2, 8, 8), (3, 7, 9)])


@pytest.mark.parametrize("moments", [None, Moments(jnp.zeros(CHANNELS), jnp.ones(CHANNELS))])
def test_normalisations_of_short_numbers_sum_in_float32(moments):
    """In training, and where the batch's moments are collected."""
    x = X.astype(jnp.bfloat16)
    weights = jax.random.normal(jax.random.key(3), X.shape).astype(jnp.bfloat16)

    def ours(x, p):
        y = ops.norm_act(x, p, CHANNELS, RELU, moments, True)[0]
        return (y.astype(jnp.float32) * weights).sum()

    def expected(x, p):
        x = x.astype(jnp.float32)
        y = formula(x, p, CHANNELS, RELU, x.mean((0, 1, 2)), x.var((0, 1, 2)))
        return (y * weights).sum()

    found, wanted = (jax.grad(f, argnums=(0, 1))(x, P) for f in (ours, expected))
    np.testing.assert_allclose(*(np.float32(g[0]) for g in (found, wanted)), atol=0.05)
    for name in P:
        np.testing.assert_allclose(found[1][name], wanted[1][name], atol=1e-4, rtol=1e-5)


def test_in_float64_nothing_is_rounded_to_float32():
    rng = np.random.default_rng(0)
    x, g = rng.standard_normal((2, 4, 3, 5, CHANNELS))
    p = {"scale": 1 + rng.standard_normal(CHANNELS), "bias": rng.standard_normal(CHANNELS)}
    shapes = {"w1": (CHANNELS, 2), "b1": (2,), "w2": (2, CHANNELS), "b2": (CHANNELS,)}
    se = {name: rng.standard_normal(shape) for name, shape in shapes.items()}

    def ours(x, p, se):
        y = ops.norm_act(x, p, CHANNELS, HARD_SWISH)[0]
        return (y * ops.squeeze_excite(y, se, 2) * g).sum()

    def expected(x, p, se):
        y = formula(x, p, CHANNELS, HARD_SWISH, x.mean((0, 1, 2)), x.var((0, 1, 2)))
        h = jax.nn.relu(y.mean((1, 2)) @ se["w1"] + se["b1"]) @ se["w2"] + se["b2"]
        return (y * jax.nn.sigmoid(h)[:, None, None] * g).sum()

    with float64():
        _, moments = ops.norm_act(x, p, CHANNELS, NONE, ops.zero_moments(p), True)
        found, wanted = (jax.jit(jax.grad(f, (0, 1, 2)))(x, p, se) for f in (ours, expected))
        pooled = convolutions.average_pool(jnp.ones((1, 3, 3, 1)) / 3, 1)
    np.testing.assert_allclose(moments.mean, x.mean((0, 1, 2)), rtol=0, atol=1e-13)
    np.testing.assert_allclose(moments.var, x.var((0, 1, 2)), rtol=0, atol=1e-13)
    np.testing.assert_allclose(pooled, 1 / 3, rtol=0, atol=1e-15)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-11), found, wanted)


def test_channels_that_a_child_lacks_stay_zero_and_get_no_gradient():
    def loss(x, p):
        y, _ = ops.norm_act(x, p, ACTIVE, NONE)
        return (y**3).sum() + y[..., ACTIVE:].sum(), y

    gradient, y = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(X, P)
    assert not np.any(y[..., ACTIVE:])
    assert not np.any(gradient[0][..., ACTIVE:])
    assert not np.any(gradient[1]["scale"][ACTIVE:]) and not np.any(gradient[1]["bias"][ACTIVE:])


def test_channels_of_zeros_stay_finite():
    zeros = jnp.zeros((2, 3, 3, CHANNELS))
    grad = jax.jit(jax.grad(lambda x: ops.norm_act(x, P, CHANNELS, RELU)[0].sum()))(zeros)
    assert np.all(np.isfinite(grad))


@pytest.mark.parametrize("act", [NONE, RELU6, HARD_SWISH])
def test_evaluation_uses_the_estimate_or_collects_the_batch(act):
    estimate = ops.Moments(jnp.arange(CHANNELS + 2.0) / 4, jnp.arange(CHANNELS + 2.0) + 0.5)
    run = jax.jit(lambda collect: ops.norm_act(X, P, ACTIVE, act, estimate, collect))
    batch = ops.Moments(np.asarray(X).mean((0, 1, 2)), np.asarray(X).var((0, 1, 2)))
    for collect, used in ((False, estimate), (True, batch)):
        y, moments = run(jnp.bool_(collect))
        np.testing.assert_allclose(y, formula(X, P, ACTIVE, act, *used), atol=2e-5)
        np.testing.assert_allclose(moments.mean, batch.mean, atol=1e-5)
        np.testing.assert_allclose(moments.var, batch.var, rtol=1e-4)


def test_a_constant_channel_never_has_a_negative_variance():
    x = jnp.full((2, 3, 3, 1), 1234.567)
    estimate = ops.Moments(jnp.zeros(1), jnp.ones(1))
    _, moments = ops.norm_act(x, ops.norm_params(1), 1, NONE, estimate, jnp.bool_(True))
    assert moments.var >= 0


def test_squeeze_excite_uses_only_the_hidden_units_of_the_child():
    rng = np.random.default_rng(0)
    p = {
        name: rng.standard_normal(shape).astype(np.float32)
        for name, shape in (("w1", (10, 4)), ("b1", (4,)), ("w2", (4, 10)), ("b2", (10,)))
    }
    x, hidden = np.asarray(X), 3
    h = x.mean((1, 2)) @ p["w1"][:CHANNELS, :hidden] + p["b1"][:hidden]
    z = np.maximum(h, 0) @ p["w2"][:hidden, :CHANNELS] + p["b2"][:CHANNELS]
    found = jax.jit(ops.squeeze_excite)(X, p, hidden)
    assert found.shape == (4, 1, 1, CHANNELS)
    np.testing.assert_allclose(found[:, 0, 0], 1 / (1 + np.exp(-z)), rtol=1e-4, atol=1e-6)


def test_fit_channels_cuts_and_fills():
    x = np.arange(6.0).reshape(1, 1, 1, 6)
    np.testing.assert_array_equal(ops.fit_channels(x, 4), x[..., :4])
    np.testing.assert_array_equal(ops.fit_channels(x, 8)[0, 0, 0], [0, 1, 2, 3, 4, 5, 0, 0])


def test_realised_weights_have_hes_deviation_and_differ():
    tree = {
        "a": ops.he_normal((100, 50), 8),
        "b": ops.he_normal((2, 50, 50), jnp.array([[[2.0]], [[50.0]]])),
        "norm": ops.norm_params(7),
    }
    found = jax.jit(lambda key: ops.realise(key, tree))(KEY)
    assert found["a"].std() == pytest.approx(0.5, rel=0.05)
    np.testing.assert_allclose(found["b"].std((1, 2)), [1.0, 0.2], rtol=0.1)
    halves = found["a"].ravel()[:2500] / 0.5, found["b"][0].ravel()
    assert abs(np.corrcoef(*halves)[0, 1]) < 0.1
    np.testing.assert_array_equal(found["norm"]["scale"], np.ones(7))
    np.testing.assert_array_equal(found["norm"]["bias"], np.zeros(7))


def test_activations():
    x = jnp.array([-1.0, 0.5, 7.0])
    np.testing.assert_array_equal(ops.activate(NONE, x), x)
    np.testing.assert_array_equal(ops.activate(RELU, x), [0, 0.5, 7])
    np.testing.assert_array_equal(ops.activate(RELU6, x), [0, 0.5, 6])
    np.testing.assert_allclose(ops.activate(HARD_SWISH, x), [-1 / 3, 0.5 * 3.5 / 6, 7], rtol=1e-6)
    np.testing.assert_array_equal(ops.activate(HARD_SWISH, jnp.array([-3.0, -4.0, 3.0])), [0, 0, 3])
