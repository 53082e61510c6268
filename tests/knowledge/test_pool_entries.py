"""The blocks of one place: which of them stay when there are more than fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.knowledge import pool_entries
from fnas_jax.knowledge.pool_entries import Entries

WEIGHTS = jnp.ones(2)


def entries(descriptors, updates, valid=None, size=7, value=0.0):
    """Blocks of one parameter, `value` and counting on, of the same size."""
    n = len(descriptors)
    return Entries(
        params=jnp.arange(n, dtype=jnp.float32)[:, None] + value,
        arch=jnp.zeros((n, 3), jnp.int32),
        descriptor=jnp.asarray(descriptors, jnp.float32),
        size=jnp.full(n, size, jnp.int32),
        updates=jnp.asarray(updates, jnp.int32),
        accuracy=jnp.zeros(n),
        owner=jnp.full(n, 5, jnp.uint32),
        valid=jnp.ones(n, bool) if valid is None else jnp.asarray(valid),
    )


ANGLES = [(1, 0), (1, 0.1), (0, 1), (1, 1)]  # the first two are most alike


def insert(*args, add=True):
    return jax.jit(pool_entries.insert, static_argnames="add")(*args, WEIGHTS, add=add)


def test_a_free_place_is_taken_first():
    known = entries(ANGLES, [1, 1, 1, 1], valid=[True, True, False, True])
    after = insert(known, entries([(0.5, 1)], [1], value=9.0))
    assert after.params[:, 0].tolist() == [0, 1, 9, 3]
    assert after.valid.all()


def test_a_known_block_is_replaced_where_it_stands_and_its_updates_add_up():
    known = entries(ANGLES, [4, 1, 1, 1])
    after = insert(known, entries([(1, 0)], [2], value=9.0))
    assert after.params[:, 0].tolist() == [9, 1, 2, 3]
    assert after.updates.tolist() == [6, 1, 1, 1]


def test_the_same_descriptor_of_another_size_is_another_block():
    known = entries(ANGLES, [4, 1, 1, 1], valid=[True, True, True, False])
    after = insert(known, entries([(1, 0)], [2], size=8, value=9.0))
    assert after.updates.tolist() == [4, 1, 1, 2]
    assert after.size.tolist() == [7, 7, 7, 8]


def test_merging_takes_the_block_that_was_updated_more_often():
    known = entries(ANGLES, [4, 1, 1, 1])
    for updates, stays in ((3, 0.0), (5, 9.0)):
        after = insert(known, entries([(1, 0)], [updates], value=9.0), add=False)
        assert after.params[0, 0] == stays and after.updates[0] == max(4, updates)
    twice = insert(after, entries([(1, 0)], [5], value=9.0), add=False)
    jax.tree.map(np.testing.assert_array_equal, twice, after)


def test_where_all_is_full_the_least_updated_of_the_most_redundant_goes():
    # A quarter of four is one, but both of the closest pair are equally redundant.
    after = insert(entries(ANGLES, [3, 2, 1, 1]), entries([(0.2, 1)], [1], value=9.0))
    assert after.params[:, 0].tolist() == [0, 9, 2, 3]


def test_new_blocks_do_not_push_out_each_other():
    known = entries(ANGLES, [1, 1, 1, 1])
    news = entries([(0.5, 1), (0.6, 1), (0.7, 1)], [1, 1, 1], value=10.0)
    after = insert(known, news)
    assert {10.0, 11.0, 12.0} <= set(after.params[:, 0].tolist())


def test_blocks_that_are_not_valid_are_not_inserted():
    known = entries(ANGLES, [1, 1, 1, 1])
    after = insert(known, entries([(0.5, 1)], [9], valid=[False], value=9.0))
    jax.tree.map(np.testing.assert_array_equal, after, known)


@pytest.mark.parametrize("capacity", [2, 4, 6])
def test_another_number_of_places_keeps_the_most_often_updated(capacity):
    known = entries(ANGLES, [1, 4, 3, 2], valid=[True, True, True, False])
    after = pool_entries.resize(known, capacity)
    assert len(after.valid) == capacity and after.valid.sum() == min(capacity, 3)
    kept = {1: [1, 2], 2: [1, 2]}.get(capacity, [0, 1, 2])
    assert after.params[after.valid, 0].tolist() == kept
    jax.tree.map(lambda x: pytest.fail("not numpy") if not isinstance(x, np.ndarray) else x, after)
