"""The count of executed multiply-adds, against XLA's own of programs without conditionals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from experiments.benchmarks.executed import multiply_adds
from fnas_jax.layers import convolutions

X = jnp.ones((2, 9, 8, 4))


def by_xla(function, *given):
    """XLA counts two operations for a multiply-add."""
    return jax.jit(function).lower(*given).compile().cost_analysis()["flops"] / 2


def convolution(stride, groups=1):
    return lambda x, w: lax.conv_general_dilated(
        x,
        w,
        (stride, stride),
        "VALID",  # XLA does not count what is read of a padding
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


@pytest.mark.parametrize(
    ("function", "weights"),
    [
        pytest.param(lambda x, w: x @ w, (4, 6), id="product"),
        pytest.param(convolution(1), (3, 3, 4, 6), id="convolution"),
        pytest.param(convolution(2), (3, 3, 4, 6), id="strided"),
        pytest.param(convolution(1, groups=4), (3, 3, 1, 4), id="depthwise"),
    ],
)
def test_forward_is_what_xla_counts(function, weights):
    w = jnp.ones(weights)
    assert multiply_adds(function, X, w) == by_xla(function, X, w)


def test_a_gradient_is_two_more_and_holes_of_a_strided_one_do_not_count():
    w = jnp.ones((3, 3, 4, 6))
    for stride in (1, 2):
        run = convolution(stride)
        grad = jax.grad(lambda x, w, run=run: (run(x, w) ** 2).sum(), (0, 1))
        found, forward = multiply_adds(grad, X, w), multiply_adds(run, X, w)
        # Positions on padding count, which a gradient of the input has more of.
        assert 3 * forward <= found < 5 * forward


def test_shifted_products_count_as_the_convolution_that_they_are():
    def run(x, w):
        return convolutions.depthwise(x, w, 0, (3,), 1)

    def together(x, w):
        return jax.vmap(run)(x, w)

    x, w = X[None].repeat(2, 0), jnp.ones((2, 3, 3, 4))
    assert multiply_adds(run, x[0], w[0]) == X.size * 9
    assert multiply_adds(together, x, w) == 2 * X.size * 9
    grads = jax.grad(lambda *given: (together(*given) ** 2).sum(), (0, 1))
    assert multiply_adds(grads, x, w) == 3 * 2 * X.size * 9


def test_loops_count_as_often_as_they_run_and_branches_if_they_are_taken():
    w = jnp.ones((4, 4))
    branches = [lambda x: x @ w, lambda x: x @ w @ w, lambda x: x]

    def run(x, indices, times):
        x, _ = lax.scan(lambda x, i: (lax.switch(i, branches, x), None), x, indices)
        return lax.fori_loop(0, times, lambda _, x: x @ w, x)

    x = jax.ShapeDtypeStruct((8, 4), jnp.float32)
    assert multiply_adds(run, x, np.asarray([0, 2, 1, 1, 7]), np.int32(0)) == 5 * 8 * 16
    assert multiply_adds(run, x, np.asarray([2, 2, 2, 2, 2]), np.int32(3)) == 3 * 8 * 16
    with pytest.raises(ValueError, match="depends on numbers that are not given"):
        multiply_adds(run, x, jax.ShapeDtypeStruct((5,), jnp.int32), np.int32(0))


def test_what_nobody_reads_does_not_count():
    def run(x, flag):
        return lax.cond(flag, lambda x: (x @ x, x)[1], lambda x: x, x)

    assert multiply_adds(run, jnp.ones((4, 4)), np.bool_(True)) == 0
