"""Convolutions with kernel sizes as data, against XLA's own and explicit sums."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fnas_jax.layers import convolutions, cpu_convolutions, taps

SIZES = (3, 5)
BATCH, CHANNELS, FEATURES = 6, 3, 4
# Odd, even, and smaller than either kernel.
CASES = list(itertools.product(((5, 7), (8, 6), (1, 2)), (1, 2)))


def reference(x, w, kernel, stride, groups):
    w = w[1:-1, 1:-1] if kernel == 3 else w
    return lax.conv_general_dilated(
        x,
        w,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def check(ours, groups, image, stride, weights_shape):
    """Value and both gradients of `ours(x, w, size)` for every kernel size, compiled once."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BATCH, *image, CHANNELS)).astype(np.float32)
    w = rng.standard_normal((5, 5, *weights_shape)).astype(np.float32)
    out = [-(-size // stride) for size in image]
    g = rng.standard_normal((BATCH, *out, weights_shape[-1])).astype(np.float32)

    @jax.jit
    def compare(size):
        y, pull = jax.vjp(lambda x, w: ours(x, w, size), x, w)
        found = (y, *pull(g))
        expected = []
        for kernel in SIZES:
            y, pull = jax.vjp(lambda x, w, k=kernel: reference(x, w, k, stride, groups), x, w)
            expected.append((y, *pull(g)))
        return found, expected

    for size in range(len(SIZES)):
        found, expected = compare(jnp.int32(size))
        for a, b in zip(found, expected[size], strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(("image", "stride"), CASES)
def test_depthwise_equals_grouped_convolution(image, stride):
    def ours(x, w, size):
        return convolutions.depthwise(x, w[:, :, 0], size, SIZES, stride)

    check(ours, CHANNELS, image, stride, (1, CHANNELS))


@pytest.mark.parametrize(("image", "stride"), CASES)
def test_conv_equals_convolution(image, stride):
    def ours(x, w, size):
        return convolutions.conv(x, w, size, SIZES, stride)

    check(ours, 1, image, stride, (CHANNELS, FEATURES))


def test_all_platforms_forms_are_equal_under_vmap():
    forms = (cpu_convolutions.padded, convolutions._direct, convolutions._patched)
    forms = [functools.partial(form, stride=2) for form in forms]
    key = jax.random.key(0)
    x = jax.random.normal(key, (2, BATCH, 5, 6, CHANNELS))
    w = jax.random.normal(key, (2, 3, 3, CHANNELS, FEATURES))
    found = jax.jit(lambda x, w: [jax.vmap(form)(x, w) for form in forms])(x, w)
    for other in found[1:]:
        np.testing.assert_allclose(found[0], other, atol=1e-5)


def as_on_an_accelerator(monkeypatch):
    """What other platforms than a CPU compile is compiled."""
    choose = lambda *given, cpu, default: default(*given)  # noqa: E731
    monkeypatch.setattr(convolutions.lax, "platform_dependent", choose)


@pytest.mark.parametrize(("image", "stride"), CASES)
@pytest.mark.parametrize("op", ["depthwise", "conv"])
@pytest.mark.parametrize("at_once", [False, True])
def test_accelerators_have_the_same_values_and_gradients(monkeypatch, at_once, op, image, stride):
    as_on_an_accelerator(monkeypatch)
    groups = {"depthwise": CHANNELS, "conv": 1}[op]
    shape = {"depthwise": (1, CHANNELS), "conv": (CHANNELS, FEATURES)}[op]

    def ours(x, w, size):
        w = w[:, :, 0] if op == "depthwise" else w
        one = functools.partial(getattr(convolutions, op), size=size, sizes=SIZES, stride=stride)
        if not at_once:
            return one(x, w)
        # The second child's value is -2 times the first one's, so that both make that again.
        both = jax.vmap(one)(jnp.stack([x, -x]), jnp.stack([w, 2 * w]))
        return 2 * both[0] + both[1] / 2

    check(ours, groups, image, stride, shape)


def test_numbers_of_accelerators_have_no_code_for_cpus():
    def both(x, w):
        narrow = convolutions.depthwise(x, w[..., 0], 0, (3,), 1)
        return convolutions.conv(narrow, w, 0, (3,), 1).astype(jnp.float32).sum()

    def traced(dtype):
        x, w = jnp.ones((BATCH, 4, 4, CHANNELS), dtype), jnp.ones((3, 3, CHANNELS, 4), dtype)
        return str(jax.make_jaxpr(jax.grad(both, argnums=(0, 1)))(x, w))

    assert "platform_index" in traced(jnp.float32)
    assert "platform_index" not in traced(jnp.bfloat16)


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_of_short_depthwise_weights_of_children_at_once_are_one_sum(stride):
    rng = np.random.default_rng(0)
    x, w = (
        jnp.asarray(rng.standard_normal(shape), jnp.bfloat16)
        for shape in ((2, BATCH, 5, 6, CHANNELS), (2, 5, 5, CHANNELS))
    )

    def gradient(x, w):
        y, pull = jax.vjp(lambda w: convolutions.depthwise(x, w, 0, (5,), stride), w)
        return pull(y)[0]

    of = jax.vmap(gradient)
    found = of(x, w)
    assert found.dtype == jnp.bfloat16
    exact = of(x.astype(jnp.float32), w.astype(jnp.float32))
    distance = np.linalg.norm(found.astype(jnp.float32) - exact) / np.linalg.norm(exact)
    assert distance < 0.02  # 0.002 to 0.006; y itself is rounded
    assert str(jax.make_jaxpr(of)(x, w)).count("reduce_sum") == 1  # not one for each tap


def test_children_at_once_have_products_of_matrices_on_accelerators(monkeypatch):
    """No grouped convolution: of many children, these took minutes to compile and to run."""
    as_on_an_accelerator(monkeypatch)
    x, w = jnp.ones((2, BATCH, 4, 4, CHANNELS)), jnp.ones((2, 3, 3, CHANNELS, FEATURES))

    def loss(x, w):
        narrow = convolutions.depthwise(x, w[..., 0], 0, (3,), 1)
        return (convolutions.conv(narrow, w, 0, (3,), 1) ** 2).sum()

    of = jax.value_and_grad(loss, argnums=(0, 1))
    alone, together = str(jax.make_jaxpr(of)(x[0], w[0])), str(jax.make_jaxpr(jax.vmap(of))(x, w))
    assert "conv_general_dilated" in alone
    assert "conv_general_dilated" not in together and "dot_general" in together
    one, both = jax.jit(of)(x[0], w[0]), jax.jit(jax.vmap(of))(x, w)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(both), strict=True):
        np.testing.assert_allclose(a, b[0], rtol=1e-5)


def test_a_batch_of_kernel_sizes_gives_each_image_its_own():
    key = jax.random.key(1)
    x, w = (
        np.asarray(jax.random.normal(key, shape))
        for shape in ((2, BATCH, 5, 6, CHANNELS), (5, 5, CHANNELS))
    )

    def loss(x, w, size):
        return (convolutions.depthwise(x, w, size, SIZES, 1) ** 2).sum()

    run = jax.jit(jax.grad(loss, argnums=(0, 1)))
    together = jax.jit(jax.vmap(jax.grad(loss, argnums=(0, 1)), (0, None, 0)))
    batched = jax.device_get(together(x, w, jnp.arange(2)))
    for size in range(2):
        alone = run(x[size], w, jnp.int32(size))
        jax.tree.map(
            lambda a, b, i=size: np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-4),
            batched,
            alone,
        )


@pytest.mark.parametrize(("image", "stride"), CASES)
def test_average_pool_counts_no_padding(image, stride):
    x = np.random.default_rng(2).standard_normal((BATCH, *image, CHANNELS)).astype(np.float32)
    out = [-(-size // stride) for size in image]
    g = np.random.default_rng(3).standard_normal((BATCH, *out, CHANNELS)).astype(np.float32)
    # What "SAME" means for a window of three: padding as even as can be, the odd one behind.
    low = [max((o - 1) * stride + 3 - s, 0) // 2 for o, s in zip(out, image, strict=True)]
    expected, gradient = np.zeros_like(g), np.zeros_like(x)
    for i, j in itertools.product(range(out[0]), range(out[1])):
        top, left = i * stride - low[0], j * stride - low[1]
        window = np.s_[:, max(top, 0) : top + 3, max(left, 0) : left + 3]
        expected[:, i, j] = x[window].mean((1, 2))
        pixels = x[window].shape[1] * x[window].shape[2]
        gradient[window] += g[:, i : i + 1, j : j + 1] / pixels

    @jax.jit
    def value_and_gradient(x):
        y, pull = jax.vjp(lambda x: convolutions.average_pool(x, stride), x)
        return y, pull(g)[0]

    y, found = value_and_gradient(x)
    np.testing.assert_allclose(y, expected, atol=1e-6)
    np.testing.assert_allclose(found, gradient, atol=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
def test_pointwise_equals_a_convolution(stride):
    module = nn.Conv(FEATURES, (1, 1), (stride, stride), use_bias=False)
    x = jax.random.normal(jax.random.key(4), (2, 5, 6, CHANNELS))
    w = jax.random.normal(jax.random.key(5), (CHANNELS, FEATURES))
    expected = module.apply({"params": {"kernel": w[None, None]}}, x)
    np.testing.assert_allclose(convolutions.pointwise(x, w, stride), expected, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 7, 8])
def test_same_padding_is_xlas(size):
    for kernel, stride in itertools.product((1, 3, 5), (1, 2)):
        low, high, out = taps.same_padding(size, kernel, stride)
        assert [(low, high)] == lax.padtype_to_pads((size,), (kernel,), (stride,), "SAME")
        assert out == (size + low + high - kernel) // stride + 1 or stride > kernel
