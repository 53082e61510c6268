"""Image tasks with masks: children, pool, one-shot networks and winners answer for every pixel."""

import functools

import jax
import numpy as np
import pytest

from fnas_jax import registry
from fnas_jax.core import config as config_lib
from fnas_jax.core.types import IGNORE, UserError
from fnas_jax.knowledge import pool as pools
from fnas_jax.knowledge import pool_store as stores
from fnas_jax.knowledge.pool_store import Store
from fnas_jax.networks import elastic, flax_reference
from fnas_jax.networks.dense import Dense
from fnas_jax.objectives import segmentation
from fnas_jax.spaces import cell

CLASSES, SIDE = 3, 12
SPACE = {"blocks": 2, "strides": (2, 1), "width": 0.25, "stem": 8, "stem_stride": 1, "head": 16}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Bright boxes of two kinds on dark images: their pixels are classes 1 and 2."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 40, (90, SIDE, SIDE, 1)).astype(np.uint8)
    masks = np.zeros((90, SIDE, SIDE), np.uint8)
    for image, mask in zip(images, masks, strict=True):
        kind, (top, left) = draw.integers(1, 3), draw.integers(0, SIDE - 5, 2)
        box = np.s_[top : top + 5, left : left + 5]
        image[box], mask[box] = 100 * kind, kind
    masks[:, 0, 0] = IGNORE
    path = tmp_path_factory.mktemp("masks") / "boxes.npz"
    np.savez(path, images=images, masks=masks)
    return path


def config_of(file, space="mnas", **settings):
    config = config_lib.default()
    config.task.name, config.task.objective = f"images/{file}", "segmentation"
    config.space.name = space
    for name, value in (SPACE if space == "mnas" else {"cell_channels": 4}).items():
        config.space[name] = value
    config.children.batch_size, config.children.steps = 16, 60
    config.winner.steps, config.winner.reference = 60, False
    config.jax.cache_dir = ""
    with config.unlocked():
        for name, value in settings.items():
            section, key = name.split("__")
            config[section][key] = value
    return config_lib.validate(config)


@pytest.fixture(scope="module")
def task(file):
    return registry.build_task(config_of(file, akp__enabled=False))


def test_a_winner_learns_the_boxes_and_its_flax_network_says_the_same(task):
    """Mean IoU of background alone is below a third."""
    arch = np.asarray(task.space.sample(jax.random.key(2), 1))[0]
    judged = task.final(jax.numpy.asarray(arch), jax.random.key(0))
    assert task.measure.name == "mean_iou" and judged.facts["accuracy"] > 0.7
    dataset, network = task.dataset, judged.network
    module = flax_reference.build(task.space, network.arch, dataset.outputs, fast=False)
    normal = (dataset.test_images - dataset.mean) / dataset.std
    apply = jax.jit(functools.partial(module.apply, train=False))
    logits = apply(network.variables, normal.astype(np.float32))
    state = segmentation.empty(CLASSES, len(logits))
    every = np.ones(len(logits), bool)
    rows = np.arange(len(every))
    state = jax.jit(segmentation.collect)(state, logits, dataset.test_labels, rows, every)
    found = float(segmentation.figures(state)["mean_iou"])
    assert found == pytest.approx(judged.facts["accuracy"], abs=2e-3)


def test_costs_are_those_of_networks_for_pixels(file):
    """Of the winner, which nothing trains here."""
    task = registry.build_task(config_of(file, akp__enabled=False, winner__steps=0))
    arch = task.space.sample(jax.random.key(2), 1)[0]
    facts = task.final(arch, jax.random.key(0)).facts
    form = np.asarray(task.space.canonical(arch[None]))[0]
    module = flax_reference.build(task.space, form, Dense(3))
    shapes = jax.eval_shape(
        lambda: module.init(jax.random.key(0), np.zeros((1, SIDE, SIDE, 1)), train=False)
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert facts["params_m"] == pytest.approx(count / 1e6, rel=1e-6) and facts["latency_ms"] > 0


def test_tables_of_latencies_are_refused(file, tmp_path):
    table = tmp_path / "table.json"
    table.write_text("{}")
    with pytest.raises(UserError, match="no row for answers of every pixel"):
        registry.build_task(config_of(file, latency__source=f"table:{table}"))


def fresh(layout, seed):
    return jax.jit(functools.partial(pools.init, layout, 4))(jax.random.key(seed))


def test_a_pool_for_pixels_is_found_again_with_its_head(tmp_path):
    space = cell.make(channels=2, cells_per_stage=1)
    store = Store(tmp_path / "pool", space, 1, Dense(3), 4, "a" * 32, objective="segmentation")
    layout = pools.make_layout(elastic.make(space, 1, Dense(3)), space)
    mine = fresh(layout, 0)
    stores.sync(store, layout, mine, 0)
    other = store._replace(run="b" * 32)
    found, seen = stores.load(other, fresh(layout, 1))
    assert seen == 1
    jax.tree.map(np.testing.assert_array_equal, found.shared, mine.shared)
    # A head for another number of classes is its own.
    four = pools.make_layout(elastic.make(space, 1, Dense(4)), space)
    new = fresh(four, 1)
    found, _ = stores.load(other._replace(classes=Dense(4)), new)
    np.testing.assert_array_equal(found.shared["stem"], mine.shared["stem"])
    heads = [pool.shared["classifier"] for pool in (found, new)]
    jax.tree.map(np.testing.assert_array_equal, *heads)


def test_a_pool_for_pixels_is_refused_for_images(tmp_path):
    space = cell.make(channels=2, cells_per_stage=1)
    store = Store(tmp_path / "pool", space, 1, Dense(3), 4, "a" * 32, objective="segmentation")
    layout = pools.make_layout(elastic.make(space, 1, Dense(3)), space)
    stores.sync(store, layout, fresh(layout, 0), 0)
    other = Store(tmp_path / "pool", space, 1, 5, 4, "b" * 32)
    with pytest.raises(UserError, match=r"networks for task\.objective=segmentation, and"):
        stores.check(other)
    of_images = pools.make_layout(elastic.make(space, 1, 5), space)
    with pytest.raises(UserError, match=r"networks for task\.objective=segmentation, and"):
        stores.load(other, fresh(of_images, 1))
