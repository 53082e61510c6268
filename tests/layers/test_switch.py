"""The switch of elastic layers: value and gradient are the chosen branch's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.layers.switch import switch

BRANCHES = (
    lambda p, x, extra: jnp.tanh(x @ p["w"]) * extra,
    lambda p, x, extra: x * p["b"] + extra,
    lambda p, x, extra: x,
)
PARAMS = {
    "w": jax.random.normal(jax.random.key(0), (4, 4)),
    "b": jnp.arange(4.0),
}
X = jax.random.normal(jax.random.key(1), (3, 5, 4))


def chosen(params, x, index, extra):
    return (switch(BRANCHES, index, params, x, extra) ** 2).sum()


@pytest.mark.parametrize("index", range(3))
def test_gradient_is_the_branchs_own(index):
    extra = jnp.float32(1.5)
    found = jax.jit(jax.value_and_grad(chosen, (0, 1)))(PARAMS, X, jnp.int32(index), extra)
    branch = BRANCHES[index]
    of_branch = jax.value_and_grad(lambda p, x: (branch(p, x, extra) ** 2).sum(), (0, 1))
    expected = jax.jit(of_branch)(PARAMS, X)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected
    )


def test_under_vmap_each_takes_its_own_branch():
    indices = jnp.array([2, 0, 1])
    run = jax.jit(jax.value_and_grad(chosen, (0, 1)))
    scaled = jax.tree.map(lambda leaf: np.stack([leaf, 2 * leaf, -leaf]), PARAMS)
    together = jax.jit(jax.vmap(run, (0, 0, 0, None)))
    batched = jax.device_get(together(scaled, X, indices, jnp.float32(0.5)))
    for i, index in enumerate(indices):
        alone = run(jax.tree.map(lambda leaf, i=i: leaf[i], scaled), X[i], index, jnp.float32(0.5))
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-6),
            batched,
            alone,
        )


def test_branches_that_were_not_chosen_may_be_infinite():
    branches = (lambda p, x, extra: x / p, lambda p, x, extra: p * x)
    gradient = jax.jit(jax.grad(lambda p: switch(branches, jnp.int32(1), p, 2.0, None)))(0.0)
    assert gradient == 2.0


def test_settings_as_extra_data_may_be_integers_and_flags():
    branches = (lambda p, x, extra: jnp.where(extra[0], x * p, x) * extra[1],) * 2

    def loss(p, flag, number):
        return switch(branches, jnp.int32(0), p, jnp.float32(3.0), (flag, number))

    gradient = jax.jit(jax.grad(loss))
    assert gradient(2.0, True, 4) == 12.0
    assert gradient(2.0, False, 4) == 0.0
