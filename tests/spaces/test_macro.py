"""The macro space: its 3,969 networks, text form, graph and descriptors."""

import itertools
import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnas_jax.core.types import UserError
from fnas_jax.networks import mobile_spaces
from fnas_jax.networks.cost import cost
from fnas_jax.spaces import base, macro

SPACE = macro.make()
ALL = base.enumerate_all(SPACE)
CANONICAL = np.asarray(SPACE.canonical(ALL))
archs = st.lists(st.integers(0, 2), min_size=8, max_size=8)


def pushed(text: str) -> str:
    """An independent canonical form: drop late identities of a stage, pad at its end."""
    stages = text[:2], text[2:5], text[5:]
    return "".join(s[0] + s[1:].replace("0", "").ljust(len(s) - 1, "0") for s in stages)


def test_all_strings_are_3969_networks():
    assert len(ALL) == 6561
    assert len(np.unique(CANONICAL, axis=0)) == 3969


def test_canonical_equals_dropping_late_identities():
    texts = ["".join(map(str, a)) for a in ALL]
    assert ["".join(map(str, a)) for a in CANONICAL] == [pushed(t) for t in texts]


def test_canonical_is_idempotent_and_jits():
    np.testing.assert_array_equal(SPACE.canonical(CANONICAL), CANONICAL)
    np.testing.assert_array_equal(jax.jit(SPACE.canonical)(ALL), CANONICAL)


def test_published_table_agrees_that_merged_strings_are_one_network(tables_dir):
    table = json.loads((tables_dir / "nas_bench_macro_cifar10.json").read_text())
    assert sorted(table) == ["".join(t) for t in itertools.product("012", repeat=8)]
    for text, form in zip(table, map(pushed, table), strict=True):
        assert table[text] == table[form]


def test_every_form_of_a_network_has_its_layers_and_its_cost():
    """What is trained and priced, for all 6,561 vectors: layers in order, wherever they stand."""
    made = [str([layer[2:] for layer in mobile_spaces.layers_of(SPACE.spec, arch)]) for arch in ALL]
    forms = [str(form) for form in CANONICAL.tolist()]
    assert len(set(zip(forms, made, strict=True))) == len(set(forms)) == len(set(made))
    price = cost(SPACE, (28, 28, 1), 10)
    np.testing.assert_array_equal(price(ALL), price(CANONICAL))


@given(archs)
@settings(max_examples=50, deadline=None)
def test_text_round_trip(arch):
    described = SPACE.describe(np.array(arch))
    np.testing.assert_array_equal(SPACE.parse(described["text"]), arch)
    assert [len(s) for s in described["stages"]] == [2, 3, 3]
    json.dumps(described)


@pytest.mark.parametrize("text", ["", "2221222", "222122203", "2221222x"])
def test_bad_text_is_refused(text):
    with pytest.raises(UserError, match="eight digits"):
        SPACE.parse(text)


def test_samples_are_valid_and_cover_every_choice():
    samples = np.asarray(SPACE.sample(jax.random.key(0), 500))
    assert np.asarray(SPACE.validate(samples)).all()
    counts = np.stack([(samples == k).mean(axis=0) for k in range(3)])
    np.testing.assert_allclose(counts, 1 / 3, atol=0.08)
    assert not np.asarray(SPACE.validate(np.array([[0] * 7 + [3], [-1] + [0] * 7]))).any()


def test_equal_networks_have_equal_blocks_and_graphs():
    pair = np.array([SPACE.parse("22212220"), SPACE.parse("22212202")])
    blocks = np.asarray(SPACE.blocks(pair))
    ops, adjacency = map(np.asarray, SPACE.graph(pair))
    assert blocks.shape == (2, 8, 4) and ops.shape == (2, 10) and adjacency.shape == (2, 10, 10)
    np.testing.assert_array_equal(blocks[0], blocks[1])
    np.testing.assert_array_equal(ops[0], ops[1])
    assert ops[0].tolist() == [0, 4, 7, 4, 6, 7, 4, 7, 5, 1]
    assert (np.argwhere(adjacency[0]) == [[i, i + 1] for i in range(9)]).all()


def test_graph_separates_all_networks():
    ops, _ = SPACE.graph(ALL)
    assert len(np.unique(np.asarray(ops), axis=0)) == 3969
    assert np.asarray(ops).max() < SPACE.num_ops


def test_other_stages_are_refused():
    with pytest.raises(UserError, match="stages"):
        macro.make(macro.MacroSpec(stages=(3, 3, 2)))
