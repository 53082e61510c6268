"""The cell space: its 5,260 networks, string form, graph and descriptors."""

import itertools
import json
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnas_jax.core.types import UserError
from fnas_jax.networks import cell as networks
from fnas_jax.networks.cost import cost, one_cost
from fnas_jax.spaces import base, cell
from fnas_jax.tasks import tables
from tests.networks import agreement

SPACE = cell.make()
ALL = base.enumerate_all(SPACE)
CANONICAL = np.asarray(SPACE.canonical(ALL))
archs = st.lists(st.integers(0, 4), min_size=6, max_size=6)


def edges_of(arch, op) -> list[int]:
    return [e for e, o in enumerate(cell.prune(np.asarray(arch))) if o == op]


def matched(one, other) -> Iterator[list[tuple[int, int]]]:
    """All ways to pair the convolutions of two cells: (edge of one, edge of other) of each."""
    pairs = []
    for op in CONVOLUTIONS:
        mine, theirs = edges_of(one, op), edges_of(other, op)
        if len(mine) != len(theirs):
            return
        pairs.append([tuple(zip(mine, p, strict=True)) for p in itertools.permutations(theirs)])
    yield from ([*first, *second] for first, second in itertools.product(*pairs))


def network():
    """(logits of (arch, weights), its weights): one cell, and no number of it 0 or 1."""
    net = networks.build(cell.CellSpec(channels=3, cells_per_stage=1, stages=1), 2, 4)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(6, jnp.int32))
    images = jax.random.normal(jax.random.key(1), (3, 5, 5, 2))
    run = jax.jit(lambda arch, params: net.apply(params, arch, images))
    return lambda arch, p: np.asarray(run(jnp.asarray(arch), p)), agreement.filled(shapes)


def swapped(params, pairs):
    """`params` whose edges hold at the second of each pair what stood at the first."""
    (stage,) = params["stages"]
    mine, theirs = map(list, zip(*pairs, strict=True)) if pairs else ([], [])

    def put(leaf):
        out = np.array(leaf)
        out[:, theirs] = leaf[:, mine]
        return out

    return params | {"stages": [jax.tree.map(put, stage)]}


def computes_the_same(one, other) -> bool:
    """Whether some exchange of the edges' weights makes `other` the function that `one` is."""
    logits, params = NETWORK
    wanted = logits(one, params)
    return any(
        np.allclose(logits(other, swapped(params, pairs)), wanted, atol=1e-5)
        for pairs in matched(one, other)
    )


def pairs_of(classes, differ, count, seed):
    """[<= count] random pairs of cells that `classes` joins and `differ` (a filter) keeps."""
    order = np.random.default_rng(seed).permutation(len(ALL))
    last, found = {}, []
    for i in order:
        before = last.setdefault(classes[i], i)
        if before != i and differ(before, i):
            found.append((before, i))
    return [(ALL[i], ALL[j]) for i, j in found[:count]]


CONVOLUTIONS = tuple(cell.OPS.index(f"nor_conv_{k}x{k}") for k in (1, 3))
POOL = cell.OPS.index("avg_pool_3x3")
NETWORK = network()
PUBLISHED = [cell.published_form(tuple(a)) for a in ALL.tolist()]
COSTS = np.stack(cost(SPACE, (32, 32, 3), 10)(ALL), axis=1)


def test_all_cells_are_5260_networks():
    assert len(ALL) == 15625
    assert len(np.unique(CANONICAL, axis=0)) == 5260


def test_the_published_formula_counts_6466():
    """Dong & Yang, ICLR 2020: 6,466 unique cells."""
    assert len(set(PUBLISHED)) == 6466


def test_canonical_is_the_first_of_its_class_and_idempotent():
    np.testing.assert_array_equal(SPACE.canonical(CANONICAL), CANONICAL)
    index = cell.representatives()
    assert (index <= np.arange(15625)).all()
    np.testing.assert_array_equal(jax.jit(SPACE.canonical)(ALL), ALL[index])


def test_canonical_forms_have_no_edge_without_effect():
    np.testing.assert_array_equal(cell.prune(CANONICAL), CANONICAL)
    np.testing.assert_array_equal(jax.jit(cell.prune)(ALL), cell.prune(ALL))


def test_an_edge_is_pruned_where_the_output_does_not_depend_on_it():
    """By a count of paths, node by node, instead of by two passes."""
    for arch, pruned in zip(ALL.tolist(), cell.prune(ALL).tolist(), strict=True):
        open_ = [edge for edge, op in zip(cell.EDGES, arch, strict=True) if op]
        paths = {((0, 3),), ((0, 1), (1, 3)), ((0, 2), (2, 3)), ((0, 1), (1, 2), (2, 3))}
        used = {edge for path in paths if set(path) <= set(open_) for edge in path}
        expected = [op * (e in used) for e, op in zip(cell.EDGES, arch, strict=True)]
        assert pruned == expected


def test_a_node_read_twice_is_not_two_nodes_with_weights_of_their_own():
    """One 3x3 convolution of the input that is added twice, and two of them."""
    once, twice = [3, 0, 1, 1, 2, 3], [3, 3, 0, 1, 2, 3]
    assert cell.published_form(tuple(once)) == cell.published_form(tuple(twice))
    assert cell.network_form(tuple(once)) != cell.network_form(tuple(twice))
    params, macs = cost(SPACE, (32, 32, 3), 10)(np.array([once, twice]))
    assert params.tolist() == [587386, 830426]
    np.testing.assert_allclose(macs / 1e6, [82.5, 117.9], atol=0.05)


def test_twice_the_input_is_not_the_input():
    doubled, single = [1, 1, 0, 0, 1, 1], [1, 0, 0, 0, 1, 0]
    assert cell.network_form(tuple(doubled)) == "x+x"
    assert cell.network_form(tuple(single)) == "x"


def test_every_form_of_a_network_costs_the_same():
    np.testing.assert_array_equal(COSTS, COSTS[cell.representatives()])
    some = np.random.default_rng(0).choice(len(ALL), 200, replace=False)
    for i in some:
        assert one_cost(SPACE, ALL[i], (32, 32, 3), 10) == tuple(COSTS[i])


def test_merged_cells_compute_the_same_function_once_their_weights_are_exchanged():
    index = cell.representatives()
    several = pairs_of(index, lambda i, j: (cell.prune(ALL[[i, j]]).any(axis=1)).all(), 120, 0)
    assert len(several) == 120
    for one, other in several:
        assert computes_the_same(one, other), (one, other)


def test_exchanged_weights_are_those_of_edges_that_run():
    """Cells that differ in more than edges without effect, so that something is exchanged."""
    index = cell.representatives()
    differ = lambda i, j: (cell.prune(ALL[i]) != cell.prune(ALL[j])).any()  # noqa: E731
    for one, other in pairs_of(index, differ, 60, 1):
        assert computes_the_same(one, other), (one, other)


def test_cells_that_share_a_published_formula_but_no_form_are_different_networks():
    index = cell.representatives()
    parted = pairs_of(PUBLISHED, lambda i, j: index[i] != index[j], 1000, 2)
    assert len(parted) > 400
    equal_cost = 0
    for one, other in parted[:150]:
        costs = [one_cost(SPACE, a, (32, 32, 3), 10) for a in (one, other)]
        equal_cost += costs[0] == costs[1]
        assert costs[0] != costs[1] or not computes_the_same(one, other), (one, other)


def test_forms_of_equal_cost_are_different_functions():
    """Neighbours in the list of networks of one cost."""
    forms = np.unique(cell.representatives())
    pool_sums = 0
    rng = np.random.default_rng(3)
    for _ in range(60):
        i = rng.choice(forms)
        same = forms[(COSTS[forms] == COSTS[i]).all(axis=1) & (forms != i)]
        if len(same) == 0:
            continue
        one, other = ALL[i], ALL[rng.choice(same)]
        if computes_the_same(one, other):
            # The pool of a sum is the sum of pools: no other law joins two forms.
            assert all(
                (cell.prune(a) == cell.OPS.index("avg_pool_3x3")).any() for a in (one, other)
            )
            pool_sums += 1
    assert pool_sums < 10


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
    with pytest.raises(UserError, match=message):
        SPACE.parse(text)


def test_published_table_lists_every_cell_once(tables_dir):
    lines = (tables_dir / "nats_bench_tss.csv").read_text().splitlines()[1:]
    cells = {tuple(SPACE.parse(line.split(",")[0]).tolist()) for line in lines}
    assert cells == set(itertools.product(range(5), repeat=6))


@pytest.mark.parametrize("name", ["nats_cifar10", "nats_cifar100"])
def test_the_best_cells_of_the_table_can_be_asked_for_by_their_canonical_forms(tables_dir, name):
    """Sixteen: either the form itself, or one with the same operations on a renamed node.

    The table trains every form, so another row of the same network is another training of it.
    """
    table = tables.load(name, str(tables_dir))
    best = table.archs[np.argsort(-table.judged)[:16]]
    forms = np.asarray(SPACE.canonical(jnp.asarray(best)))
    others = [i for i in range(16) if (forms[i] != best[i]).any()]
    assert len(others) == {"nats_cifar10": 0, "nats_cifar100": 1}[name]
    for i in others:
        assert sorted(forms[i]) == sorted(best[i]) and computes_the_same(best[i], forms[i])


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
    with pytest.raises(UserError, match="at least 1"):
        cell.make(channels=0)
