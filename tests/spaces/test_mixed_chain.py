"""The space of mixed chains: what is one network, string form, graph and descriptors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core.types import UserError
from fnas_jax.networks import cell as networks
from fnas_jax.networks.cost import cost
from fnas_jax.spaces import base, cells, mixed_cell, mixed_chain
from tests.networks import agreement

SPACE = mixed_chain.make()
ALL = base.enumerate_all(SPACE)
CANONICAL = np.asarray(jax.jit(SPACE.canonical)(ALL))


def by_hand(arch):
    """The layers that do something, in order."""
    subsets = [tuple(arch[i : i + 4]) for i in (0, 4, 8)]
    return tuple(s for s in subsets if s not in ((0, 0, 0, 0), (1, 0, 0, 0)))


def test_all_vectors_are_2955_networks():
    """0 to 3 layers that do something, each one of 14."""
    assert SPACE.size == len(ALL) == 4096 and SPACE.slots == (4, 4, 4)
    forms = list(map(tuple, CANONICAL.tolist()))
    assert len(set(forms)) == 1 + 14 + 14**2 + 14**3 == 2955
    pairs = set(zip(map(by_hand, ALL.tolist()), forms, strict=True))
    assert len(pairs) == 2955  # one form for each list of layers


def test_the_canonical_form_is_idempotent_and_has_shortcuts_last():
    np.testing.assert_array_equal(SPACE.canonical(CANONICAL), CANONICAL)
    for form in CANONICAL.tolist():
        layers, works = [form[i : i + 4] for i in (0, 4, 8)], by_hand(form)
        assert layers == [*map(list, works), *[[1, 0, 0, 0]] * (3 - len(works))]


def test_every_form_of_a_network_costs_the_same():
    costs = cost(SPACE, (32, 32, 3), 10)
    np.testing.assert_array_equal(np.stack(costs(ALL)), np.stack(costs(CANONICAL)))


def test_it_is_the_mixed_cell_whose_other_edges_are_off():
    """In parameters and multiply-adds, with shortcuts where a chain has nothing."""
    whole = np.zeros((len(ALL), 6, 4), np.int32)
    whole[:, [0, 2, 5]] = cells.switches(SPACE.spec, ALL)
    wanted = cost(mixed_cell.make(), (32, 32, 3), 10)(whole.reshape(-1, 24))
    np.testing.assert_array_equal(np.stack(cost(SPACE, (32, 32, 3), 10)(ALL)), np.stack(wanted))


def test_every_form_computes_the_same_once_weights_are_moved():
    """A layer behind an identity takes its place, with its weights."""
    net = networks.build(mixed_chain.MixedChainSpec(3, 1, 1), 2, 4)
    params = agreement.filled(jax.eval_shape(net.init, jax.random.key(0), None))
    images = jax.random.normal(jax.random.key(1), (3, 5, 5, 2))
    run = jax.jit(lambda arch, p: net.apply(p, arch, images))
    moved = 0
    for i in np.random.default_rng(0).choice(len(ALL), 40, replace=False):
        idle = [not s[1:].any() for s in ALL[i].reshape(3, 4)]
        order = sorted(range(3), key=idle.__getitem__)
        (stage,) = params["stages"]
        other = params | {"stages": [jax.tree.map(lambda p, o=order: p[:, o], stage)]}
        np.testing.assert_allclose(run(CANONICAL[i], other), run(ALL[i], params), atol=1e-5)
        moved += order != [0, 1, 2]
    assert moved > 1


def test_text_round_trip():
    for arch in ALL[::41]:
        np.testing.assert_array_equal(SPACE.parse(SPACE.describe(arch)["text"]), arch)
    text = "skip_connect&nor_conv_3x3/none/avg_pool_3x3"
    assert SPACE.parse(text).tolist() == [1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert SPACE.describe(SPACE.parse(text))["text"] == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("none/none", "has 2 layers; 3 are needed"),
        ("none/avg_pool/none", "'avg_pool' in .* did you mean 'avg_pool_3x3'"),
        ("none/none/nor_conv_1x1&nor_conv_1x1", "stands twice in one place"),
    ],
)
def test_bad_text_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        SPACE.parse(text)


def test_sizes_below_one_are_refused():
    with pytest.raises(UserError, match="at least 1"):
        mixed_chain.make(cells_per_stage=0)


def test_graph_and_blocks_are_those_of_the_canonical_form():
    ops, adjacency = map(np.asarray, SPACE.graph(jnp.asarray(ALL[-1:])))
    assert ops[0].tolist() == [0, *[3, 4, 5, 6] * 3, 1]
    walks = [np.linalg.matrix_power(adjacency[0].astype(int), n)[0, -1] for n in (2, 3, 4, 5)]
    assert walks == [0, 0, 4**3, 0]
    blocks = np.asarray(SPACE.blocks(jnp.asarray(ALL)))
    np.testing.assert_array_equal(blocks.argmax(-1), CANONICAL * np.tile([1, 2, 3, 4], 3))


def test_all_layers_run_something():
    """By the texts that networks are written with."""
    for arch in ALL[::97]:
        words = cells.texts(SPACE.spec, arch)
        assert list(words) == ["edge0_1", "edge1_2", "edge2_3"] and "none" not in words.values()
