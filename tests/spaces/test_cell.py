"""The cell space: its 6,466 cells, string form, graph and descriptors."""

import itertools
import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnas_jax.spaces import base, cell

SPACE = cell.make()
ALL = base.enumerate_all(SPACE)
CANONICAL = np.asarray(SPACE.canonical(ALL))
archs = st.lists(st.integers(0, 4), min_size=6, max_size=6)


def output(arch, weights, x) -> np.ndarray:
    """A numerical cell: each (op, node) is a fixed random map that keeps zero at zero."""
    nodes = [x]
    for target in (1, 2, 3):
        total = np.zeros_like(x)
        for (source, end), op in zip(cell.EDGES, arch, strict=True):
            if end == target and op == 1:
                total = total + nodes[source]
            elif end == target and op > 1:
                total = total + np.tanh(weights[op] @ nodes[source])
        nodes.append(total)
    return nodes[3]


def test_all_cells_are_6466_up_to_isomorphism():
    assert len(ALL) == 15625
    assert len(np.unique(CANONICAL, axis=0)) == 6466


def test_canonical_is_the_first_of_its_class_and_idempotent():
    np.testing.assert_array_equal(SPACE.canonical(CANONICAL), CANONICAL)
    index = cell.representatives()
    assert (index <= np.arange(15625)).all()
    np.testing.assert_array_equal(jax.jit(SPACE.canonical)(ALL), ALL[index])


def test_merged_cells_compute_the_same_function():
    rng = np.random.default_rng(0)
    weights, x = rng.normal(size=(5, 4, 4)), rng.normal(size=4)
    changed = np.flatnonzero(cell.representatives() != np.arange(15625))
    for i in rng.choice(changed, 400, replace=False):
        np.testing.assert_allclose(
            output(ALL[i], weights, x), output(CANONICAL[i], weights, x), atol=1e-12
        )


@given(archs)
@settings(max_examples=50, deadline=None)
def test_text_round_trip(arch):
    described = SPACE.describe(np.array(arch))
    np.testing.assert_array_equal(SPACE.parse(described["text"]), arch)
    json.dumps(described)


def test_text_form_of_a_published_cell():
    text = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|avg_pool_3x3~0|skip_connect~1|none~2|"
    assert SPACE.parse(text).tolist() == [3, 0, 2, 4, 1, 0]
    assert SPACE.describe([3, 0, 2, 4, 1, 0])["text"] == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("|none~0|", "3 are needed"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|", "needs 3 edges"),
        ("|none~0|+|none~0|none~0|+|none~0|none~1|none~2|", "is not OP~1"),
        ("|conv~0|+|none~0|none~1|+|none~0|none~1|none~2|", "is not OP~0"),
        ("none~0+|none~0|none~1|+|none~0|none~1|none~2|", "needs 1 edges"),
    ],
)
def test_bad_text_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        SPACE.parse(text)


def test_published_table_lists_every_cell_once(tables_dir):
    lines = (tables_dir / "nats_bench_tss.csv").read_text().splitlines()[1:]
    cells = {tuple(SPACE.parse(line.split(",")[0]).tolist()) for line in lines}
    assert cells == set(itertools.product(range(5), repeat=6))


def test_samples_are_valid():
    samples = SPACE.sample(jax.random.key(1), 200)
    assert np.asarray(SPACE.validate(samples)).all()
    assert not np.asarray(SPACE.validate(np.array([[0, 0, 0, 0, 0, 5]]))).any()


def test_graph_has_the_paths_of_the_cell():
    ops, adjacency = map(np.asarray, SPACE.graph(np.array([[3, 3, 3, 3, 3, 3]])))
    assert ops[0].tolist() == [0, 5, 5, 5, 5, 5, 5, 1]
    # Paths input -> output in a complete graph of four nodes: 0-3, 0-1-3, 0-2-3, 0-1-2-3.
    walks = [np.linalg.matrix_power(adjacency[0].astype(int), n)[0, -1] for n in (2, 3, 4, 5)]
    assert walks == [1, 2, 1, 0]
    assert ops.max() < SPACE.num_ops


def test_equal_cells_have_equal_blocks():
    blocks = np.asarray(SPACE.blocks(ALL))
    assert blocks.shape == (15625, 6, 5)
    np.testing.assert_array_equal(blocks, blocks[cell.representatives()])


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        cell.make(channels=0)
