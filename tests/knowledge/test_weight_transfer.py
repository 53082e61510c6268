"""Weights of one block for another: a larger child starts as the function of the smaller."""

import jax
import numpy as np
import pytest

from fnas_jax.knowledge import weight_transfer
from tests.knowledge.pools import SPACES, add, children, fresh, functions, gradient

SPACE = SPACES["mnas"]
canonical = jax.jit(SPACE.canonical)


def child(text):
    return np.asarray(canonical(np.asarray(SPACE.parse(text))[None]))


@pytest.mark.parametrize(
    "text",
    [
        "mbconv-e6-k3-se0-identity-f1-l+0",  # twice the inner channels
        "mbconv-e3-k5-se0-identity-f1-l+0",  # a rim around the kernels
        "mbconv-e3-k3-se0-identity-f1-l+1",  # a layer more
        "mbconv-e6-k5-se0-identity-f1-l+1",
    ],
)
def test_a_larger_child_starts_as_the_same_function(text):
    find, inherit = functions("mnas").find, functions("mnas").inherit
    small, large = child("mbconv-e3-k3-se0-identity-f1-l+0"), child(text)
    _, params = children("mnas", 1)
    pool = add("mnas", fresh("mnas"), small, params)
    # The place's own entry, whatever else may be alike.
    entry = find(pool, small).entry
    start = jax.tree.map(lambda p: p[0], inherit(pool, large, entry))
    before = gradient("mnas")(jax.tree.map(lambda p: p[0], params), small[0])[1]
    after = gradient("mnas")(start, large[0])[1]
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-3)
    # What is silent in the beginning can learn.
    slope, _ = gradient("mnas")(start, large[0])
    used = functions("mnas").used(large)
    old = functions("mnas").used(small)
    moved = [
        bool((g[new[0] & ~was[0]] != 0).any())
        for g, new, was in zip(
            *(jax.tree.leaves(tree["stacks"]) for tree in (slope, used, old)), strict=True
        )
        if (new[0] & ~was[0]).any()
    ]
    assert any(moved)


def test_by_hand():
    layer = {"project": np.ones((3, 2)), "norm_out": {"scale": np.ones(2)}}
    rest = jax.tree.map(lambda p: np.stack([p, 2 * p, 3 * p]), layer)
    trained = {
        "first": {
            "project": np.array([[1, 0], [0, 0], [0, 0]], bool),
            "norm_out": {"scale": np.array([1, 0], bool)},
        },
        "rest": {
            "project": np.arange(3)[:, None, None] == np.zeros((1, 3, 2), int),
            "norm_out": {"scale": np.arange(3)[:, None] == np.zeros((1, 2), int)},
        },
    }
    expand = jax.jit(weight_transfer.expand)
    got = expand({"first": layer, "rest": rest}, trained, np.array([True, True, False]))
    # New inputs of the trained output weigh nothing; the other output is as it was.
    np.testing.assert_array_equal(got["first"]["project"], [[1, 1], [0, 1], [0, 1]])
    # Layers behind the last trained one are its copies, silent where something goes around them.
    np.testing.assert_array_equal(got["rest"]["project"], np.ones((3, 3, 2)))
    np.testing.assert_array_equal(got["rest"]["norm_out"]["scale"], [[1, 1], [0, 0], [1, 1]])


def test_channels_stand_by_the_norm_of_what_reads_them():
    layer = {
        "expand": np.arange(8.0, dtype=np.float32).reshape(2, 4),
        "norm_expand": {"scale": np.arange(4.0), "bias": -np.arange(4.0)},
        "depthwise": np.arange(36.0).reshape(3, 3, 4),
        "norm_depthwise": {"scale": np.arange(4.0), "bias": -np.arange(4.0)},
        "project": np.array([[1.0, -1.0], [5.0, 0.0], [-2.0, -2.0], [9.0, 9.0]]),
        "se": {
            "w1": np.arange(5.0)[:, None],
            "b1": np.zeros(1),
            "w2": np.arange(5.0)[None],
            "b2": np.arange(5.0),
        },
    }
    used = {"expand": np.array([[1, 1, 1, 0], [0, 0, 0, 0]], bool)}
    got = jax.jit(weight_transfer.sort_channels)({"first": layer}, {"first": used})["first"]
    order = [1, 2, 0, 3]  # the last is not used, however large
    np.testing.assert_array_equal(got["project"], layer["project"][np.array(order)])
    np.testing.assert_array_equal(got["expand"][0], order)
    np.testing.assert_array_equal(got["norm_expand"]["bias"], [-1, -2, 0, -3])
    np.testing.assert_array_equal(got["depthwise"][0, 0], order)
    np.testing.assert_array_equal(got["se"]["b2"], [*order, 4])
    np.testing.assert_array_equal(got["se"]["w1"][:, 0], [*order, 4])
