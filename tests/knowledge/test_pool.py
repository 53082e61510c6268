"""The knowledge pool: there is always a block to inherit, and none gains by order or luck."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax import layered
from fnas_jax.knowledge import pool as pools
from fnas_jax.networks import elastic
from fnas_jax.spaces import base, mnas
from tests.knowledge.pools import SPACES, add, children, fresh, functions, gradient, layout, on_host

SLOW = ("mixed_cell", "mixed_chain")
NAMES = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in SPACES]
)
QUICK_NAMES = pytest.mark.parametrize(
    "name", ["mnas", "cell", *(pytest.param(n, marks=pytest.mark.slow) for n in ("macro", *SLOW))]
)


@QUICK_NAMES
def test_what_a_child_uses_is_what_has_a_gradient(name):
    archs, params = children(name, 6)
    all_used = functions(name).used(archs)
    for i, arch in enumerate(archs):
        got, _ = gradient(name)(jax.tree.map(lambda p, i=i: p[i], params), arch)
        masks = jax.tree.leaves(jax.tree.map(lambda m, i=i: m[i], all_used))
        reached = 0
        for (path, g), mask in zip(jax.tree_util.tree_leaves_with_path(got), masks, strict=True):
            assert g.shape == mask.shape, path
            assert (g[~mask] == 0).all(), path
            reached += (g != 0).sum()
        # Rectifiers that are closed for all images block some.
        assert reached > 0.5 * sum(mask.sum() for mask in masks)


@QUICK_NAMES
def test_from_the_first_moment_every_block_finds_an_entry(name):
    archs, _ = children(name, 20)
    find, inherit = functions(name).find, functions(name).inherit
    source = find(fresh(name), archs)
    assert source.hit.all()
    assert (source.entry == 0).all()  # the one that there is
    params = inherit(fresh(name), archs[:3], source.entry[:3])
    like = jax.eval_shape(layout(name).network.init, jax.random.key(0), archs[0])
    assert jax.tree.map(lambda p: p.shape[1:], params) == jax.tree.map(lambda p: p.shape, like)
    # A fresh entry is passed on as it is: all children start from one initialisation.
    blocks, _ = layout(name).parts.split(jax.tree.map(lambda p: p[0], params))
    for entries, block in zip(fresh(name).blocks, blocks, strict=True):
        got = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(block)])
        np.testing.assert_array_equal(got, entries.params[0])


def test_what_children_use_is_traced_once_for_all_places():
    """Of seven blocks, whose network would be traced for each of them, and twice more."""
    space, calls = mnas.make(width=0.25, stem=8, head=16), []
    network = elastic.make(space, 1, 3)

    def used(arch):
        calls.append(arch)
        return network.parts.used(arch)

    counted = network._replace(parts=network.parts._replace(used=used))
    made = pools.make_layout(counted, space)
    pool = jax.eval_shape(lambda key: pools.init(made, 2, key), jax.random.key(0))
    archs = jnp.zeros((3, len(space.cardinalities)), jnp.int32)
    source = jax.eval_shape(lambda pool: pools.find(made, pool, archs), pool)
    jax.eval_shape(lambda pool, at: pools.inherit(made, pool, archs[0], at[0]), pool, source.entry)
    assert len(pool.blocks) == 7 and len(calls) == 1


@QUICK_NAMES
def test_a_child_inherits_what_it_left(name):
    archs, params = children(name, 1)
    find, inherit = functions(name).find, functions(name).inherit
    pool = add(name, fresh(name), archs, params)
    source = find(pool, archs)
    back = inherit(pool, archs, source.entry)
    logits = [gradient(name)(jax.tree.map(lambda p: p[0], p), archs[0])[1] for p in (params, back)]
    # Inner channels may stand in another order, and the function is the same.
    np.testing.assert_allclose(*logits, rtol=1e-3, atol=1e-3)
    places = zip(pool.blocks, source.entry[0], strict=True)
    sizes = [entries.size[entry] for entries, entry in places]
    trained = np.asarray(sizes) > 0  # what has no weights cannot be left
    assert trained.any() and (source.similarity[0][trained] == 1).all()


def test_several_children_leave_their_average_in_any_order():
    archs, params = children("mnas", 4)
    archs[2:] = archs[0]
    use = [True, True, True, False]
    accuracy = [0.2, 0.9, 0.4, 1.0]
    pool = add("mnas", fresh("mnas"), archs, params, accuracy, use)
    find = functions("mnas").find
    entry = find(pool, archs).entry[0]
    used = jax.tree.map(lambda m: m[0], functions("mnas").used(archs))
    masks, _ = layout("mnas").parts.split(used)
    for s, entries in enumerate(pool.blocks):
        assert entries.updates[entry[s]] == 2
        np.testing.assert_allclose(entries.accuracy[entry[s]], 0.3, rtol=1e-6)
        assert entries.owner[entry[s]] == 7
        block = layout("mnas").unravel[s](entries.params[entry[s]])
        mean = jax.tree.map(lambda p: (p[0] + p[2]) / 2, layout("mnas").parts.split(params)[0][s])
        norm, expected = block["first"]["norm_out"], mean["first"]["norm_out"]
        mask = masks[s]["first"]["norm_out"]["scale"]
        np.testing.assert_allclose(norm["scale"][mask], expected["scale"][mask], rtol=1e-5)
    order = np.array([3, 2, 1, 0])
    turned = add(
        "mnas",
        fresh("mnas"),
        archs[order],
        jax.tree.map(lambda p: p[order], params),
        np.asarray(accuracy)[order],
        np.asarray(use)[order],
    )
    source = find(pool, archs).entry, find(turned, archs).entry
    for i in range(2):
        np.testing.assert_allclose(
            pool.blocks[0].params[source[0][i, 0]],
            turned.blocks[0].params[source[1][i, 0]],
            rtol=1e-4,
            atol=1e-6,
        )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        pool.shared,
        turned.shared,
    )
    stem = np.mean(params["stem"][:3], axis=0)
    np.testing.assert_allclose(pool.shared["stem"], stem, rtol=1e-5)


def test_failed_children_never_enter():
    archs, params = children("mnas", 2)
    for leaf in jax.tree.leaves(params):
        leaf[1] = np.nan
    pool = add("mnas", fresh("mnas"), archs, params, [0.5, np.nan], use=[True, False])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(pool))
    assert [int(entries.valid.sum()) for entries in pool.blocks] == [2]
    nothing = add("mnas", fresh("mnas"), archs, params, use=[False, False])
    jax.tree.map(np.testing.assert_array_equal, nothing, fresh("mnas"))


def test_a_full_place_gives_up_the_least_updated_of_the_most_redundant():
    layout_, space = layout("mnas"), SPACES["mnas"]
    text = "{}-e3-k{}-se{}-none-f1-l+0"
    kinds = [
        ("conv", 3, 0),
        ("conv", 5, 0),
        ("sepconv", 3, 0),
        ("sepconv", 5, 0.25),
        ("mbconv", 5, 0),
    ]
    archs = np.asarray([space.parse(text.format(op, k, se)) for op, k, se in kinds])
    _, params = children("mnas", 5)
    find = functions("mnas").find
    pool = add("mnas", fresh("mnas"), archs, params)  # with the fresh entry: full
    first = jax.tree.map(lambda p: p[:1], params)
    again = np.asarray([space.parse(text.format("conv", 5, 0))])
    pool = add("mnas", pool, again, first)  # now the other convolution is updated less
    new = np.asarray([space.parse(text.format("mbconv", 3, 0.25))])
    after = add("mnas", pool, new, first)
    for s, entries in enumerate(after.blocks):
        assert entries.valid.all()
        before = np.asarray(pool.blocks[s].descriptor)
        kept = (before[:, None] == np.asarray(entries.descriptor)).all(axis=-1).any(axis=1)
        assert (~kept).sum() == 1
        lost = int(np.flatnonzero(~kept)[0])
        alike = np.asarray(pools.cosine(before, before, layout_.weights)) - np.eye(6)
        redundancy = alike.max(axis=1)
        assert redundancy[lost] >= np.sort(redundancy)[-1]
        updates = np.asarray(pool.blocks[s].updates)
        assert updates[lost] == updates[redundancy >= redundancy[lost]].min()
    assert (find(after, new).similarity == 1).all()


def test_merging_takes_what_others_learnt_and_nothing_twice():
    merge = functions("mnas").merge
    archs, params = children("mnas", 3)
    one = [jax.tree.map(lambda p, i=i: p[i : i + 1], params) for i in range(3)]
    mine = add("mnas", fresh("mnas"), archs[:1], one[0], owner=1)
    theirs = add("mnas", fresh("mnas"), archs[1:2], one[1], owner=2)
    theirs = add("mnas", theirs, archs[2:], one[2], owner=1)  # mine, from a past that is gone
    merged = merge(mine, theirs, 1)
    find = functions("mnas").find
    source = find(merged, archs)
    assert (source.similarity[:2] == 1).all() and (source.similarity[2] < 1).any()
    jax.tree.map(np.testing.assert_array_equal, merge(merged, theirs, 1), merged)
    # Of a block that both have, the one updated more often stays.
    newer = add("mnas", theirs, archs[1:2], one[0], owner=2)
    twice = merge(merged, newer, 1)
    entry = find(twice, archs[1:2]).entry[0]
    assert all(entries.updates[e] == 2 for entries, e in zip(twice.blocks, entry, strict=True))
    assert [int(h.valid.sum()) for h in twice.blocks] == [3]
    back = merge(twice, theirs, 1)
    jax.tree.map(np.testing.assert_array_equal, back, twice)


@NAMES
def test_after_fair_rounds_all_choices_were_trained_equally_often(name):
    space, pool, tally = SPACES[name], fresh(name), functions(name).tally
    fair_round = on_host(functools.partial(base.fair_round, space.cardinalities))
    rounds, length = 3, int(np.lcm.reduce(space.cardinalities))
    for key in jax.random.split(jax.random.key(0), rounds):
        archs = fair_round(key)
        assert archs.shape == (length, len(space.cardinalities))
        pool = tally(pool, archs, np.ones(length, bool))
    expected = [rounds * length // k for k in space.cardinalities for _ in range(k)]
    assert pool.counts.tolist() == expected
    assert pools.count_range(layout(name), pool) == 0
    pool = tally(pool, archs, np.arange(length) == 0)
    assert pools.count_range(layout(name), pool) == 1


def test_statistics_are_of_the_children_in_use():
    archs, params = children("mnas", 2)
    pool = add("mnas", fresh("mnas"), archs[:1], jax.tree.map(lambda p: p[:1], params))
    find, statistics = functions("mnas").find, functions("mnas").statistics
    source = find(pool, archs)
    both, one, none = (
        statistics(pool, source, np.array(use))
        for use in ((True, True), (True, False), (False, False))
    )
    assert both["pool/hits"] == one["pool/hits"] == 1
    assert one["pool/exact"] == one["pool/similarity"] == 1
    np.testing.assert_allclose(both["pool/similarity"], source.similarity.mean(), rtol=1e-6)
    assert np.isnan(none["pool/similarity"])
    assert both["pool/entries"] == 2
    assert both["pool/mib"] * 2**20 == sum(x.nbytes for x in jax.tree.leaves(pool))


def test_resizing_keeps_the_most_often_updated():
    archs, params = children("mnas", 3)
    pool = add("mnas", fresh("mnas"), archs, params)
    pool = add("mnas", pool, archs[1:2], jax.tree.map(lambda p: p[1:2], params))
    small, large = pools.resize(pool, 2), pools.resize(pool, 9)
    for entries, kept, grown in zip(pool.blocks, small.blocks, large.blocks, strict=True):
        assert 2 in kept.updates and kept.valid.all() and len(kept.params) == 2
        assert grown.valid.sum() == entries.valid.sum() and len(grown.params) == 9


def test_layers_of_one_s_own_that_differ_are_different_blocks():
    mine = "tests.layers.own_layers:Turned"
    choices = {"one": layered.own(mine), "two": layered.own(mine, act="tanh")}
    space = layered.make([layered.stage(8, choices)], stem=8)
    network = elastic.make(space, 1, 3, "reference")
    found, archs = pools.make_layout(network, space), jnp.asarray([[0], [1]])

    @on_host
    def left(key):
        params = jax.vmap(lambda key: network.init(key, archs[0]))(jax.random.split(key))
        given = archs, params, jnp.full(2, 0.5), jnp.ones(2, bool), jnp.uint32(7)
        pool = pools.deposit(found, pools.init(found, 6, key), *given)
        return pool, pools.find(found, pool, archs)

    pool, source = left(jax.random.key(0))
    assert int(pool.blocks[0].valid.sum()) == 1 + 2  # the fresh one, too
    assert set(source.entry[:, 0].tolist()) == {1, 2} and (source.similarity == 1).all()


def test_a_fresh_block_is_scaled_for_layers_that_there_are():
    """He's numbers of the widest layers, whatever choice is the last: here that of no layer."""
    choices = {"mb": layered.mbconv(3, 2), "k3": layered.conv(3)}
    space = layered.make([layered.stage(32, choices, depth=2, optional=True)], stem=32)
    found = pools.make_layout(elastic.make(space, 1, 3, "reference"), space)
    pool = on_host(lambda key: pools.init(found, 2, key))(jax.random.key(0))
    for s, entries in enumerate(pool.blocks):
        first = found.unravel[s](entries.params[0])["first"]
        for tensor, fan_in in (("conv", 9 * 32), ("expand", 32), ("project", 64)):
            wanted = (2 / fan_in) ** 0.5
            np.testing.assert_allclose(np.std(first[tensor]), wanted, rtol=0.1)
        np.testing.assert_allclose(np.std(first["depthwise"]), (2 / 9) ** 0.5, rtol=0.2)
