"""The evaluator with and without the knowledge pool, on very small cells and few digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core import apart
from fnas_jax.core.config import default
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import pool as pools
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.networks import elastic
from fnas_jax.spaces import cell
from fnas_jax.tasks import data, images, pool_access, trained

SPACE = cell.make(channels=4, cells_per_stage=1)
KEY = jax.random.key(0)


def settings(enabled, **changes):
    config = default()
    config.akp.enabled = enabled
    config.akp.rounds = 2
    config.akp.capacity = 6
    config.children.steps = 10
    config.children.batch_size = 32
    config.search.budget = 12
    config.search.batch = 3
    for name, value in changes.items():
        config.akp[name] = value
    return config


def evaluator(config, knowledge=None):
    dataset = data.load("digits")
    few = dataset._replace(
        train_images=dataset.train_images[:256, ::2, ::2],
        train_labels=dataset.train_labels[:256],
        val_images=dataset.val_images[:, ::2, ::2],
    )
    return trained.evaluator(images.train_context(config, SPACE, few, knowledge))


@pytest.fixture(scope="module")
def pooled():
    return evaluator(settings(True))


@pytest.fixture(scope="module")
def warmed(pooled):
    """The states and metrics of the two fair rounds."""
    return list(pooled.hooks.prepare(pooled.init(), KEY))


@pytest.fixture(scope="module")
def archs():
    return SPACE.canonical(SPACE.sample(jax.random.key(1), 3))


def test_fair_rounds_train_all_choices_equally_and_measure_nothing(pooled, warmed):
    assert len(warmed) == 2
    for rounds, (state, figures) in enumerate(warmed, start=1):
        assert state.learnt.rounds == rounds
        assert figures["children"] == 5  # operations
        assert figures["pool/hits"] == 1 and figures["pool/count_range"] == 0
        assert (state.learnt.pool.counts == rounds).all()
        assert state.cache.size == 0
    assert list(pooled.hooks.prepare(warmed[-1][0], KEY)) == []


def test_a_resumed_warm_up_goes_on_as_if_undisturbed(pooled, warmed):
    again = list(pooled.hooks.prepare(warmed[0][0], KEY))
    assert len(again) == 1
    jax.tree.map(np.testing.assert_array_equal, again[0][0], warmed[1][0])


def test_children_inherit_and_leave_their_blocks(pooled, warmed, archs):
    start = warmed[-1][0]
    state, metrics = pooled.evaluate(start, archs, jnp.array([True, True, False]), KEY)
    assert metrics.ok.tolist() == metrics.fresh.tolist() == [True, True, False]
    figures = pooled.stats(state)
    assert figures["pool/hits"] == 1 and 0 < figures["pool/similarity"] <= 1
    assert state.learnt.pool.counts.sum() - start.learnt.pool.counts.sum() == 2 * 6
    updates = [sum(int(h.updates.sum()) for h in s.learnt.pool.blocks) for s in (start, state)]
    assert updates[1] > updates[0]
    again, known = pooled.evaluate(state, archs, jnp.array([True, True, False]), KEY)
    assert not known.fresh.any()
    jax.tree.map(np.testing.assert_array_equal, again, state)  # nothing was trained


def test_without_a_pool_children_start_fresh(archs, warmed, pooled):
    plain = evaluator(settings(False))
    assert plain.hooks.prepare is None
    state, fresh = plain.evaluate(plain.init(), archs, jnp.ones(3, bool), KEY)
    assert state.learnt.pool is None and plain.stats(state) == {}
    _, again = plain.evaluate(plain.init(), archs, jnp.ones(3, bool), KEY)
    np.testing.assert_array_equal(fresh.accuracy, again.accuracy)
    _, inherited = pooled.evaluate(warmed[-1][0], archs, jnp.ones(3, bool), KEY)
    assert (fresh.accuracy != inherited.accuracy).any()


def test_a_child_is_judged_alike_in_whatever_form_it_is_asked_for(monkeypatch):
    """Trained, priced, timed and rewarded: the canonical form."""
    config = settings(False)
    config.reward.cost, config.reward.target = "latency_ms", 1.0
    timed = []
    monkeypatch.setattr(
        images, "latency_ms", lambda *args: timed.append(np.asarray(args[-1]).tolist()) or 2.0
    )
    judges = evaluator(config)
    # An edge that nothing reads, two that read nothing, and nodes under other names.
    asked = jnp.asarray([[3, 3, 0, 1, 2, 0], [0, 1, 3, 0, 4, 2], [3, 2, 0, 0, 2, 3]])
    forms = SPACE.canonical(asked)
    assert (asked != forms).any(axis=1).all()
    found = [judges.evaluate(judges.init(), a, jnp.ones(3, bool), KEY)[1] for a in (asked, forms)]
    for metrics in found:
        assert metrics.ok.all() and metrics.fresh.all()
    named = [m._replace(seconds=0)._asdict() for m in found]
    jax.tree.map(np.testing.assert_array_equal, *named)
    assert timed == 2 * np.asarray(forms).tolist()
    np.testing.assert_array_equal(judges.form(asked), forms)


def test_a_second_run_starts_from_the_blocks_of_the_first(tmp_path, pooled, warmed):
    first = evaluator(settings(True), Knowledge(None, pool=tmp_path / "pool", run="1" * 32))
    left = first.hooks.sync(warmed[-1][0], tmp_path / "kept" / "7")
    # What a checkpoint would hold is on disk already.
    pool = first.hooks.apart.get(left)
    back = apart.read(tmp_path / "kept", 7, apart.version_of(tmp_path / "kept", 7), pool)
    jax.tree.map(np.testing.assert_array_equal, back, pool)
    assert not jax.tree.leaves(first.hooks.apart.get(first.hooks.apart.put(left, None)))
    assert (tmp_path / "pool" / "pool.json").exists()
    second = evaluator(settings(True), Knowledge(None, pool=tmp_path / "pool", run="2" * 32))
    start = second.init()
    # Whoever searches at the same time finds all in the store, and goes on as if he were alone.
    third = evaluator(settings(True), Knowledge(None, pool=tmp_path / "pool", run="3" * 32))
    alone = third.hooks.sync(warmed[0][0], tmp_path / "kept" / "8")
    jax.tree.map(np.testing.assert_array_equal, alone, warmed[0][0])
    assert apart.version_of(tmp_path / "kept", 8) == apart.NONE
    for entries, was in zip(start.learnt.pool.blocks, left.learnt.pool.blocks, strict=True):
        jax.tree.map(np.testing.assert_array_equal, entries, was)
    assert pools.is_trained(start.learnt.pool) and start.learnt.rounds == 2  # no warm-up once more
    assert start.learnt.pool.counts.sum() == 0 and list(second.hooks.prepare(start, KEY)) == []


def test_large_blocks_are_fewer():
    config = settings(True, mib=1)
    network = elastic.make(cell.make(channels=16, cells_per_stage=2), 1, 10)
    layout = pool_access.pool_layout(config.akp, SPACE, network)
    sizes = [
        int(np.prod(x.shape))
        for x in jax.tree.leaves(
            jax.eval_shape(
                lambda: network.parts.split(network.init(KEY, jnp.zeros(6, jnp.int32)))[0]
            )
        )
    ]
    assert pools.entry_bytes(layout) == 4 * sum(sizes)
    config.akp.mib = 3 * 4 * sum(sizes) // 2**20 + 1
    expected = config.akp.mib * 2**20 // (4 * sum(sizes))
    assert pool_access.pool_capacity(config.akp, layout) == expected
    config.akp.mib = 1
    assert pool_access.pool_capacity(config.akp, layout) == 2


def test_a_pool_that_another_split_has_taught_is_refused_before_anything_is_built(tmp_path):
    config = settings(True)
    config.task.name = "images/digits"

    def build(run):
        return images.build(config, SPACE, Knowledge(None, pool=tmp_path, run=run * 32))

    build("1").evaluator.init()  # a search begins
    build("2").evaluator.init()  # another one on the same images does, too
    config.task.image_size = 6  # the same images in another size
    build("3").evaluator.init()
    config.task.split_seed = 1
    with pytest.raises(UserError, match=r"of the 359 test images have taught the pool"):
        build("4")
    config.task.split_seed, config.task.test_fraction = 0, 0.5
    with pytest.raises(UserError, match=r"of the \d+ test images have taught the pool"):
        build("4")
    config.akp.enabled = False
    build("4")


def test_a_pool_of_another_space_is_refused_before_anything_is_built(tmp_path, warmed):
    kept = Knowledge(None, pool=tmp_path, run="1" * 32)
    evaluator(settings(True), kept).hooks.sync(warmed[-1][0], tmp_path / "7")
    config = settings(True)
    config.task.name = "images/digits"
    with pytest.raises(UserError, match="is of another space: channels is 4 there and 8 here"):
        images.build(config, cell.make(channels=8, cells_per_stage=1), kept)
