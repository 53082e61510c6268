"""The switch of elastic layers: value and gradient are the chosen branch's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks.executed import multiply_adds
from fnas_jax.layers.switch import Halves, switch, tile_size

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


HALVES = (
    Halves(lambda p, x, _: x @ p["w"], lambda p, h, x, extra: jnp.tanh(h) * extra + x),
    Halves(lambda p, x, _: x * p["b"], lambda p, h, x, extra: h + extra),
    Halves(lambda p, x, _: x, lambda p, h, x, _: h),
)


@pytest.mark.parametrize("index", range(3))
def test_a_branch_in_two_halves_has_the_gradient_of_the_whole(index):
    def of(branch, params, x):
        return (branch.outer(params, branch.inner(params, x, 1.5), x, 1.5) ** 2).sum()

    def ours(params, x):
        return (switch(HALVES, jnp.int32(index), params, x, jnp.float32(1.5)) ** 2).sum()

    found = jax.jit(jax.value_and_grad(ours, (0, 1)))(PARAMS, X)
    expected = jax.jit(jax.value_and_grad(lambda *given: of(HALVES[index], *given), (0, 1)))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        found,
        expected(PARAMS, X),
    )


def test_what_lies_between_the_halves_is_not_computed_again():
    """A product forward, its two derivatives backward, and no other product."""

    def loss(params, x):
        return (switch(HALVES, jnp.int32(0), params, x, jnp.float32(1.5)) ** 2).sum()

    product = X.size * 4
    assert multiply_adds(loss, PARAMS, X) == product
    assert multiply_adds(jax.grad(loss, (0, 1)), PARAMS, X) == 3 * product


@pytest.mark.parametrize("items", [1, 3, 17, 24])
def test_items_in_tiles_are_what_each_is_alone(items):
    rng = np.random.default_rng(items)
    indices = rng.integers(0, 3, items)
    x = rng.standard_normal((items, *X.shape)).astype(np.float32)
    scaled = {
        "w": rng.standard_normal((items, 4, 4)).astype(np.float32),
        "b": PARAMS["b"],  # the same for all
    }

    def one(params, x, index):
        return (switch(HALVES, index, params, x, jnp.float32(1.5)) ** 2).sum()

    of = jax.value_and_grad(one, (0, 1))
    axes = ({"w": 0, "b": None}, 0, 0)
    together = jax.jit(jax.vmap(of, axes))(scaled, x, indices)
    alone = jax.jit(of)
    each = [alone(scaled | {"w": scaled["w"][i]}, x[i], indices[i]) for i in range(items)]
    expected = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), together, expected
    )


def test_an_item_of_a_batch_costs_its_own_branch():
    """Tiles of three items; only those of the first branch have products."""
    indices = np.asarray([0] * 4 + [1] * 6 + [2] * 7)
    assert tile_size(17, 3) == 3
    x = jax.ShapeDtypeStruct((17, *X.shape), jnp.float32)
    params = {name: jax.ShapeDtypeStruct((17, *p.shape), p.dtype) for name, p in PARAMS.items()}

    def run(params, x, indices):
        return jax.vmap(lambda *given: switch(HALVES, given[2], *given[:2], 1.5))(
            params, x, indices
        )

    assert multiply_adds(run, params, x, indices) == 6 * X.size * 4  # two tiles for four items
    shared = jax.vmap(lambda p, x: switch(HALVES, jnp.int32(1), p, x, 1.5))
    assert multiply_adds(shared, params, x) == 0
