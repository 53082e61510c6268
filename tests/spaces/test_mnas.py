"""The block space of MnasNet: canonical forms, text form, graph and descriptors."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core.types import UserError
from fnas_jax.networks import mobile_spaces
from fnas_jax.networks.cost import cost
from fnas_jax.spaces import base, mnas

ONE = mnas.make(blocks=1, strides=(2,), width=0.5, stem=8, head=0)
# Roundings to multiples of 8 make some widths equal; strides of both kinds.
TWO = [
    mnas.make(blocks=2, strides=(1, 2), width=0.5, stem=16, stem_stride=1),
    mnas.make(blocks=2, strides=(2, 1), width=1.0, stem=24),
]


def compiled(space):
    """The space with each of its functions one program, not one for every operation in them."""
    return space._replace(
        sample=jax.jit(space.sample, static_argnums=1),
        canonical=jax.jit(space.canonical),
        validate=jax.jit(space.validate),
        blocks=jax.jit(space.blocks),
    )


ONE, TWO, WHOLE = compiled(ONE), [compiled(space) for space in TWO], compiled(mnas.make())


def networks(space, archs):
    """What each of `archs` [N, T] computes, as texts: its layers, without those that pass."""
    return [str(mobile_spaces.layers_of(space.spec, arch)) for arch in archs]


def assert_equal_exactly_for_equal_layers(space, archs):
    """Neither one canonical form of two networks, nor two forms of one."""
    forms = [str(form) for form in np.asarray(jax.jit(space.canonical)(archs)).tolist()]
    made = networks(space, archs)
    pairs = set(zip(forms, made, strict=True))
    assert len(pairs) == len(set(forms)) == len(set(made))
    return len(pairs)


@pytest.mark.parametrize(("stride", "networks"), [(2, 160), (1, 176)])
def test_one_block_has_fewer_networks_than_its_648_vectors(stride, networks):
    """Kernels, SE and 4 operations make 16; times 2 widths, 1 or 2 layers, and skips.

    These are 3, but 2 for a lone layer where identity has nothing to add: with stride 2, or from 8
    to 16 channels.
    """
    space = mnas.make(blocks=1, strides=(stride,), width=0.5, stem=8, head=0)
    archs = base.enumerate_all(space)
    assert len(archs) == 648
    assert assert_equal_exactly_for_equal_layers(space, archs) == networks


@pytest.mark.parametrize("space", TWO, ids=["narrow", "wide"])
def test_two_blocks_have_one_form_for_each_network(space):
    archs = np.asarray(space.sample(jax.random.key(0), 10_000))
    assert 5_000 < assert_equal_exactly_for_equal_layers(space, archs) < 10_000


@pytest.mark.parametrize("space", [ONE, *TWO, WHOLE], ids=["one", "narrow", "wide", "whole"])
def test_every_form_of_a_network_costs_the_same(space):
    archs = np.asarray(space.sample(jax.random.key(2), 2_000))
    forms = np.asarray(space.canonical(archs))
    assert (archs != forms).any(axis=1).mean() > 0.5
    price = cost(space, (32, 32, 3), 10)
    np.testing.assert_array_equal(price(archs), price(forms))
    made = jax.jit(jax.vmap(functools.partial(mobile_spaces.layers, space.spec)))
    jax.tree.map(np.testing.assert_array_equal, made(archs), made(forms))


@pytest.mark.parametrize("space", [ONE, *TWO], ids=["one", "narrow", "wide"])
def test_canonical_is_a_member_of_the_space_that_stays_as_it_is(space):
    forms = space.canonical(space.sample(jax.random.key(1), 500))
    assert space.validate(forms).all()
    np.testing.assert_array_equal(space.canonical(forms), forms)


def test_a_sample_has_every_choice():
    archs = np.asarray(ONE.sample(jax.random.key(0), 500))
    assert [len(set(column)) for column in archs.T] == list(ONE.cardinalities)
    assert not ONE.validate(jnp.asarray([[3, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, -1]])).any()


def test_parse_is_the_inverse_of_the_text():
    for space in (ONE, *TWO):
        for arch in np.asarray(space.sample(jax.random.key(2), 50)):
            np.testing.assert_array_equal(space.parse(space.describe(arch)["text"]), arch)


def test_describe_names_what_is_built():
    arch = TWO[0].parse("mbconv-e6-k5-se0.25-pool-f1.25-l+1 conv-e3-k3-se0-none-f0.75-l-1")
    first, second = TWO[0].describe(arch)["blocks"]
    assert first == {
        "op": "mbconv",
        "expansion": 6,
        "kernel": 5,
        "se": 0.25,
        "skip": "pool",
        "filters": 16,  # 16 * 0.5 * 1.25 = 10, rounded to 8, is more than 10% below
        "layers": 2,
        "stride": 1,
    }
    assert (second["expansion"], second["layers"], second["stride"]) == (None, 1, 2)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("conv-e3-k3-se0-none-f1-l+0 conv-e3-k3-se0-none-f1-l+0", "has 2 blocks; the space has 1"),
        ("conv-e3-k3-se0-none-f1", "is not op-expansion-kernel-se-skip-filters-layers"),
        ("conv-e4-k3-se0-none-f1-l+0", "'e4' .* is not one of e3, e6"),
    ],
)
def test_wrong_texts_are_refused(text, complaint):
    with pytest.raises(UserError, match=complaint):
        ONE.parse(text)


def test_graph_is_a_chain_with_an_operation_for_every_block():
    archs = base.enumerate_all(ONE)
    ops, adjacency = ONE.graph(archs)
    assert ops.shape == (648, 3) and (ops[:, 0] == 0).all() and (ops[:, -1] == 1).all()
    assert (ops >= 0).all() and (ops < ONE.num_ops).all()
    assert (adjacency == np.eye(3, k=1, dtype=bool)).all()
    # Equal operations exactly for equal networks.
    pairs = set(zip(ops[:, 1].tolist(), networks(ONE, archs), strict=True))
    assert len(pairs) == len(set(ops[:, 1].tolist())) == 160


def test_descriptors_differ_exactly_where_canonical_forms_do():
    archs = base.enumerate_all(ONE)
    found = np.asarray(ONE.blocks(archs))
    assert found.shape == (648, 1, 11) and found.dtype == np.float32
    assert found.min() == 0 and found.max() == 1
    forms = np.asarray(ONE.canonical(archs))
    pairs = {
        (tuple(d), tuple(f)) for d, f in zip(found[:, 0].tolist(), forms.tolist(), strict=True)
    }
    assert len(pairs) == len({d for d, _ in pairs}) == 160


def test_weights_of_descriptors_stand_by_their_fields():
    """A pair that differs in one field is as far apart as that field's entries weigh."""
    weights = mnas.descriptor_weights(range(1, 8))
    base_arch = np.asarray([0, 0, 0, 0, 2, 1, 1])
    for field, weight in enumerate(range(1, 8)):
        if mnas.FIELDS[field] == "expansion":
            continue  # of a convolution, without effect
        other = base_arch.copy()
        other[field] = 0 if mnas.FIELDS[field] == "skip" else mnas.COUNTS[field] - 1
        a, b = (np.asarray(TWO[1].blocks(np.tile(x, 2)[None]))[0, 0] for x in (base_arch, other))
        assert set(weights[a != b]) == {weight}, mnas.FIELDS[field]


def test_reference_is_mobilenet_v2():
    space = mnas.make()
    layers = mobile_spaces.layers_of(space.spec, mobile_spaces.reference(space.spec))
    assert [layer.cout for *_, layer in layers] == list(
        itertools.chain.from_iterable([c] * n for c, n, _ in mnas.MOBILENET_V2)
    )
    assert all(layer.middle == 6 * layer.cin for *_, layer in layers)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"blocks": 8}, "space.blocks is 8; allowed are 1 to 7"),
        ({"blocks": 2, "strides": (1,)}, "needs 2 entries, each 1 or 2"),
        ({"blocks": 1, "strides": (3,)}, "needs 1 entries, each 1 or 2"),
    ],
)
def test_wrong_options_are_refused(options, complaint):
    with pytest.raises(UserError, match=complaint):
        mnas.make(**options)
