"""The space of mixed cells: what is one network, string form, graph and descriptors."""

import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnas_jax.core.types import UserError
from fnas_jax.networks import cell as networks
from fnas_jax.networks.cost import cost
from fnas_jax.spaces import base, categorical, cell, cells, mixed_cell, mixed_chain
from tests.networks import agreement

SPACE = mixed_cell.make()
CANONICAL = jax.jit(SPACE.canonical)
SAMPLE = np.asarray(SPACE.sample(jax.random.key(0), 4096))
# Sparse ones, of which more have edges that change nothing.
SPARSE = np.random.default_rng(0).binomial(1, 0.12, (4096, 24)).astype(np.int32)
SOME = np.concatenate([SAMPLE[:512], SPARSE])
archs = st.lists(st.integers(0, 1), min_size=24, max_size=24)


def exchanged(arch):
    """With nodes 1 and 2 called by each other's names; by hand, edge by edge."""
    on = dict(zip(cell.EDGES, np.asarray(arch).reshape(6, 4), strict=True))
    swap = {(0, 1): (0, 2), (0, 2): (0, 1), (1, 3): (2, 3), (2, 3): (1, 3)}
    return np.concatenate([on[swap.get(edge, edge)] for edge in cell.EDGES])


def test_it_has_a_switch_for_each_operation_of_each_edge():
    assert SPACE.cardinalities == (2,) * 24 and SPACE.slots == (4,) * 6
    assert SPACE.size == 2**24
    assert SPACE.names[0] == "edge0-1/skip_connect" and SPACE.names[23] == "edge2-3/avg_pool_3x3"
    assert SPACE.labels[0] == ("off", "on") and SPACE.largest.all()


def expression(arch, numbers):
    """(last node as a sum, the term of each convolution {(edge, op): ..}) of `arch`, as texts.

    `numbers` tell convolutions apart, {(edge, op): ..}.
    """
    nodes, terms = [["x"], [], [], []], {}
    for e, (source, target) in enumerate(cell.EDGES):
        for op, on in zip(mixed_cell.OPS, arch.reshape(6, 4)[e], strict=True):
            term = f"{op}{numbers.get((e, op), '')}({'+'.join(sorted(nodes[source]))})"
            if on:
                nodes[target] = nodes[target] + (nodes[source] if op == "skip_connect" else [term])
            if on and "conv" in op:
                terms[e, op] = term
    return "+".join(sorted(nodes[3])), terms


def network(arch):
    """What `cell.network_form` says of cells, of mixed ones, and the terms of convolutions."""
    return _network(tuple(mixed_cell.prune(np.asarray(arch)).tolist()))


@functools.cache
def _network(pruned):
    arch, alike = np.asarray(pruned), {}
    for place, term in expression(arch, {})[1].items():
        alike.setdefault(term, []).append(place)
    orders = itertools.product(*map(itertools.permutations, alike.values()))
    numbered = ({place: i for of in order for i, place in enumerate(of)} for order in orders)
    return min((expression(arch, numbers) for numbers in numbered), key=lambda found: found[0])


def test_forms_are_of_one_network_each_and_most_networks_have_one():
    """Of all vectors of two operations: 1,948 where nodes that only copy are nodes."""
    for one in ("nor_conv_3x3", "avg_pool_3x3"):
        on = base.enumerate_all(mixed_chain.make()).reshape(-1, 6, 2)
        archs = np.zeros((4096, 6, 4), np.int32)
        archs[:, :, [0, mixed_cell.OPS.index(one)]] = on
        form, first, place = np.unique(
            CANONICAL(archs.reshape(-1, 24)), axis=0, return_index=True, return_inverse=True
        )
        texts = [network(arch)[0] for arch in archs.reshape(-1, 24)]
        assert texts == [texts[first[i]] for i in place.ravel()]
        assert [network(arch)[0] for arch in form] == [texts[i] for i in first]
        assert (len(form), len(set(texts))) == (1014, 917 if "conv" in one else 538)


def test_random_vectors_are_the_networks_of_their_forms():
    some = SOME[:: len(SOME) // 300]
    forms = np.asarray(CANONICAL(some))
    assert [network(form)[0] for form in forms] == [network(arch)[0] for arch in some]
    assert (forms != mixed_cell.prune(some)).any(1).sum() > 30


@pytest.mark.slow
def test_all_vectors_have_12455664_forms():
    """Those that are their own; chunk by chunk, as all are 400 million numbers."""

    @jax.jit
    def count(start):
        numbers = start + jnp.arange(2**18)
        archs = numbers[:, None] >> jnp.arange(23, -1, -1) & 1
        return (SPACE.canonical(archs) == archs).all(1).sum()

    assert sum(int(count(start)) for start in range(0, 2**24, 2**18)) == 12455664


def test_pruned_are_the_edges_that_the_cell_space_prunes():
    """Of all patterns of edges that run, whatever runs on them."""
    for pattern in itertools.product((0, 1), repeat=6):
        ops = np.random.default_rng(sum(pattern)).integers(1, 16, 6) * pattern
        arch = np.array([[int(o) >> k & 1 for k in range(4)] for o in ops])
        live = cell.prune(np.array(pattern)) > 0
        np.testing.assert_array_equal(
            mixed_cell.prune(arch.reshape(-1)), (arch * live[:, None]).ravel()
        )
    np.testing.assert_array_equal(jax.jit(mixed_cell.prune)(SPARSE), mixed_cell.prune(SPARSE))
    assert (mixed_cell.prune(SPARSE) != SPARSE).any(1).mean() > 0.3


def test_the_canonical_form_is_pruned_idempotent_and_that_of_renamed_nodes():
    form = np.asarray(CANONICAL(SOME))
    np.testing.assert_array_equal(CANONICAL(form), form)
    np.testing.assert_array_equal(mixed_cell.prune(form), form)
    free = ~SOME.reshape(-1, 6, 4)[:, 2].any(1)
    renamed = np.stack([exchanged(arch) for arch in SOME[free]])
    np.testing.assert_array_equal(CANONICAL(renamed), form[free])
    assert free.sum() > 1000 and (renamed != SOME[free]).any(1).sum() > 1000


def test_names_do_not_matter_where_nodes_only_copy():
    """All cells of skips and one convolution with nothing between nodes 1 and 2."""
    on = base.enumerate_all(categorical.make((2,) * 10)).reshape(-1, 5, 2)
    cells_ = np.zeros((len(on), 6, 4), np.int32)
    cells_[:, [[0], [1], [3], [4], [5]], [0, 2]] = on  # skips and 3x3 convolutions; edge 1-2: none
    archs = cells_.reshape(-1, 24)
    renamed = np.stack([exchanged(arch) for arch in archs])
    np.testing.assert_array_equal(CANONICAL(renamed), CANONICAL(archs))
    np.testing.assert_array_equal(CANONICAL(CANONICAL(archs)), CANONICAL(archs))


def test_no_cells_are_joined_that_the_cell_space_parts():
    """Of one operation an edge: its 5,260 networks have 5,575 forms here."""
    cells_ = base.enumerate_all(cell.make())
    one = (cells_[..., None] == 1 + np.arange(4)).astype(np.int32).reshape(len(cells_), -1)
    _, form = np.unique(CANONICAL(one), axis=0, return_inverse=True)
    networks_ = cell.representatives()
    pairs = np.unique(np.stack([form.ravel(), networks_]), axis=1)
    assert pairs.shape[1] == len(np.unique(form)) == 5575
    assert len(np.unique(networks_)) == 5260


def test_every_form_of_a_network_costs_the_same():
    costs = cost(SPACE, (32, 32, 3), 10)
    np.testing.assert_array_equal(
        np.stack(costs(SOME)), np.stack(costs(np.asarray(CANONICAL(SOME))))
    )


def test_every_form_computes_the_same_once_weights_have_the_other_names():
    """A vector and its canonical form, whose edges hold the weights of what stands there now."""
    net = networks.build(mixed_cell.MixedCellSpec(3, 1, 1), 2, 4)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(24, jnp.int32))
    params = agreement.filled(shapes)
    images = jax.random.normal(jax.random.key(1), (3, 5, 5, 2))
    run = jax.jit(lambda arch, p: net.apply(p, arch, images))
    (stage,) = params["stages"]
    moved = 0
    for arch, form in zip(SPARSE[:120], np.asarray(CANONICAL(SPARSE[:120])), strict=True):
        (_, here), (_, there) = network(arch), network(form)
        of = {term: edge for (edge, _), term in here.items()}
        places = {size: list(range(6)) for size in "13"}
        for (edge, op), term in there.items():
            places[op[-1]][edge] = of[term]
        taken = {
            name: jax.tree.map(lambda p, at=places[name[-1]]: p[:, jnp.asarray(at)], leaf)
            for name, leaf in stage.items()
        }
        moved += any(at != list(range(6)) for at in places.values())
        found = run(form, params | {"stages": [taken]})
        np.testing.assert_allclose(found, run(arch, params), atol=1e-5)
    assert moved > 5


def test_networks_without_a_path_are_one():
    """All but the sum of what leads nowhere is off."""
    nowhere = np.zeros((3, 24), np.int32)
    nowhere[1, :4], nowhere[2, 20:] = 1, 1  # into node 1 only; out of node 2 only
    assert not np.asarray(CANONICAL(nowhere)).any()
    assert SPACE.describe(nowhere[0])["text"] == "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


@given(archs)
@settings(max_examples=50, deadline=None)
def test_text_round_trip(arch):
    described = SPACE.describe(np.array(arch))
    np.testing.assert_array_equal(SPACE.parse(described["text"]), arch)
    json.dumps(described)


def test_text_form_of_a_cell():
    text = "|skip_connect&nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|avg_pool_3x3~0|none~1|none~2|"
    arch = np.zeros((6, 4), int)
    arch[0, [0, 2]] = arch[2, 1] = arch[3, 3] = 1
    assert SPACE.parse(text).tolist() == arch.ravel().tolist()
    assert SPACE.describe(arch.ravel())["text"] == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("|none~0|", "3 are needed"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|", "needs 3 edges"),
        ("|none~0|+|none~0|none~0|+|none~0|none~1|none~2|", "does not end in ~1"),
        (
            "|nor_conv_3X3~0|+|none~0|none~1|+|none~0|none~1|none~2|",
            "'nor_conv_3X3' in .* did you mean 'nor_conv_3x3'",
        ),
        (
            "|skip_connect&none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
            "'none' in .* is no operation",
        ),
        (
            "|skip_connect&skip_connect~0|+|none~0|none~1|+|none~0|none~1|none~2|",
            "skip_connect stands twice in one place",
        ),
        ("none~0+|none~0|none~1|+|none~0|none~1|none~2|", "needs 1 edges"),
    ],
)
def test_bad_text_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        SPACE.parse(text)


def test_sizes_below_one_are_refused():
    with pytest.raises(UserError, match="at least 1"):
        mixed_cell.make(channels=0)


def test_graph_has_the_paths_of_the_cell():
    ops, adjacency = map(np.asarray, jax.jit(SPACE.graph)(np.ones((1, 24), np.int32)))
    assert ops[0].tolist() == [0, *[3, 4, 5, 6] * 6, 1]
    # Paths of one, two and three edges, each by any of four operations.
    walks = [np.linalg.matrix_power(adjacency[0].astype(int), n)[0, -1] for n in (2, 3, 4, 5)]
    assert walks == [4, 2 * 4**2, 4**3, 0]
    off, _ = map(np.asarray, jax.jit(SPACE.graph)(np.zeros((1, 24), np.int32)))
    assert off[0].tolist() == [0, *[2] * 24, 1] and ops.max() < SPACE.num_ops


def test_blocks_are_those_of_the_canonical_form():
    blocks = np.asarray(jax.jit(SPACE.blocks)(SOME))
    assert blocks.shape == (len(SOME), 24, 5)
    form = np.asarray(CANONICAL(SOME))
    np.testing.assert_array_equal(blocks.argmax(-1), form * np.tile([1, 2, 3, 4], 6))
    assert (blocks.sum(-1) == 1).all()


def test_what_runs_is_the_same_by_vector_and_by_text():
    """As networks are built from vectors, and written as source from texts."""
    for spec, many in ((SPACE.spec, SPARSE[:50]), (cell.CellSpec(), SAMPLE[:50, :6] * 3)):
        for arch in many:
            by_hand = [
                (*edge, op)
                for edge, ops in zip(cell.EDGES, cells.switches(spec, arch), strict=True)
                for op, on in zip(mixed_cell.OPS, ops, strict=True)
                if on
            ]
            assert [one[:3] for one in cells.running(spec, arch)] == by_hand
            names = [one.name for one in cells.running(spec, arch) if one.name]
            assert len(set(names)) == len(names)
