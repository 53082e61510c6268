"""Equal rows of a batch."""

import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core import rows

ROWS = jnp.array([[0, 1], [2, 2], [0, 1], [1, 0], [0, 1]])


def test_the_first_of_equal_rows():
    assert np.asarray(rows.first_of_each(ROWS)).tolist() == [True, True, False, True, False]
    assert np.asarray(rows.first_equal(ROWS)).tolist() == [0, 1, 0, 3, 0]
    assert np.asarray(rows.first_of_each(ROWS[:, 0])).tolist() == [True, True, False, True, False]


def test_masked_rows_alone_count():
    mask = jnp.array([False, True, True, False, True])
    assert np.asarray(rows.first_of_each(ROWS, mask)).tolist() == [False, True, True, False, False]
    # A row that no masked one equals stands for itself.
    assert np.asarray(rows.first_equal(ROWS, mask)).tolist() == [2, 1, 2, 3, 2]


@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_rows_of_any_shape_agree_with_numpy(shape):
    drawn = np.random.default_rng(0).integers(0, 2, (30, *shape))
    _, first = np.unique(drawn.reshape(30, -1), axis=0, return_index=True)
    got = np.asarray(rows.first_of_each(jnp.asarray(drawn)))
    assert np.flatnonzero(got).tolist() == sorted(first)


def test_membership():
    asked = jnp.array([[2, 2], [2, 1]])
    assert np.asarray(rows.contains(ROWS, asked)).tolist() == [True, False]
