"""Where a table holds an architecture, in small spaces and in large ones."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core.limits import NONE
from fnas_jax.spaces import categorical
from fnas_jax.tasks import table_index, tables, tabular
from tests.tasks.test_tabular import accuracy_only, make_table


def large(rows=25_000, decisions=12, choices=4):
    """Different random rows of a space that has no direct index; mflops are their numbers."""
    space = categorical.make([choices] * decisions)
    assert space.size > table_index.DENSE
    drawn = np.random.default_rng(0).integers(0, choices, (2 * rows, decisions), np.int32)
    _, first = np.unique(drawn, axis=0, return_index=True)
    archs = drawn[np.sort(first)[:rows]]
    assert len(archs) == rows
    values = np.linspace(0, 1, rows, dtype=np.float32)
    nan = np.full(rows, np.nan, np.float32)
    return tables.Table(
        "t", space, archs, values, values[:, None], nan, np.arange(rows, dtype=np.float32), nan, ""
    )


def test_row_of_finds_every_row_and_refuses_invalid_ones():
    table = make_table()
    where = table_index.of(table)
    np.testing.assert_array_equal(where.row_of(table.archs), np.arange(6561))
    assert where.networks == 3969
    assert np.asarray(where.row_of(jnp.array([[3] + [0] * 7, [0] * 8]))).tolist() == [-1, 0]


@pytest.mark.parametrize(("decisions", "choices"), [(12, 4), (40, 7)])
def test_a_large_table_is_looked_up_exactly_and_in_little_memory(decisions, choices):
    """7^40 has no number of 64 bits; the reference is a dictionary."""
    table = large(25_000, decisions, choices)
    where = table_index.of(table)
    lookup = jax.jit(where.row_of).lower(jnp.asarray(table.archs)).compile()
    # A comparison of all with all would take 25,000^2 * T bytes, which are 7.5 GB and more.
    assert lookup.memory_analysis().temp_size_in_bytes < 100e6
    np.testing.assert_array_equal(lookup(jnp.asarray(table.archs)), np.arange(25_000))
    number = {arch.tobytes(): i for i, arch in enumerate(table.archs)}
    others = np.random.default_rng(1).integers(-1, choices + 1, (2000, decisions), np.int32)
    near = table.archs[:2000].copy()
    near[np.arange(2000), np.arange(2000) % decisions] ^= 1
    for archs in (others, near, table.archs[::-1][:100]):
        expected = [number.get(arch.tobytes(), -1) for arch in archs]
        np.testing.assert_array_equal(jax.jit(where.row_of)(archs), expected)
    absent = np.array(expected[:3]) * 0 + 25_000
    np.testing.assert_array_equal(where.network_of(jnp.full((3, decisions), -1)), absent)


def test_searching_by_halves_agrees_with_a_list_at_all_small_sizes():
    everything = np.array(list(itertools.product(range(3), repeat=2)), np.int32)
    for size in range(1, 10):
        rows = everything[np.sort(np.random.default_rng(size).permutation(9)[:size])]
        found = table_index.search(jnp.asarray(rows), jnp.arange(size), jnp.asarray(everything))
        listed = rows.tolist()
        expected = [listed.index(a) if a in listed else -1 for a in everything.tolist()]
        assert found.tolist() == expected


def test_what_is_askable_of_a_large_table_are_its_rows_within_the_limits():
    table = large()
    where, limits = table_index.of(table), NONE._replace(mflops=99.5)
    assert int(tabular.askable(table, where, limits).sum()) == 100
    evaluator = tabular.evaluator(table, where, accuracy_only, False, limits)
    known, metrics = jax.jit(evaluator.evaluate)(
        evaluator.init(), jnp.asarray(table.archs[98:102]), jnp.ones(4, bool), jax.random.key(0)
    )
    assert metrics.fresh.tolist() == [True, True, False, False]
    assert int(evaluator.left(known)) == 98
    allowed = tabular.allowed(limits, table, where, jnp.asarray(table.archs))
    np.testing.assert_array_equal(allowed, np.arange(25_000) < 100)
