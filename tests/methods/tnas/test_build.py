"""TNAS from a configuration and a knowledge store."""

import contextlib

import jax
import numpy as np
import pytest

from fnas_jax.core import config as config_lib
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import history as store
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.methods.tnas import build
from fnas_jax.tasks.base import Task
from tests.methods import toy
from tests.methods.tnas import small

SETTINGS = {
    "tnas.hidden": 8,
    "tnas.code": 4,
    "tnas.fusion": (16, 8),
    "tnas.iterations": 4,
    "tnas.tasks": 2,
    "tnas.batch": 16,
    "search.budget": 20,
    "search.batch": 2,
}


def configuration(**changes):
    flat = config_lib.flatten(config_lib.default()) | SETTINGS
    return config_lib.validate(config_lib.nest(flat | changes))


def task(name="tabular/new", images=None):
    return Task(name, toy.SPACE, "evaluator", None, {}, None, images)


@pytest.fixture
def knowledge(tmp_path):
    """A store with 30 rows of each of two tasks."""
    with contextlib.closing(store.open_(tmp_path)) as connection:
        archs = np.random.default_rng(0).permutation(small.ARCHS)
        for number, name in enumerate(("tabular/a", "tabular/b")):
            run = store.Run(name, toy.SPACE.name, name, 0, 0, {})
            rows = [
                store.Row(i, arch, True, True, reward, reward, *[np.nan] * 4)
                for i, arch in enumerate(archs[30 * number : 30 * number + 30])
                for reward in [float(toy.accuracy(arch))]
            ]
            store.record(connection, run, 0, rows)
        yield Knowledge(connection, pool=tmp_path / "pool")


def test_numbers_come_from_the_configuration():
    config = configuration(**{"tnas.meta": "joint", "tnas.film": True, "tnas.graph_encoder": False})
    got = build.configure(config)
    assert got.meta.method == "joint" and got.meta.iterations == 4
    assert got.net.film and not got.net.graph and got.net.hidden == 8
    assert got.batch == 2 and got.capacity == 22
    with pytest.raises(UserError, match=r"tnas.hidden is 6; it must be a multiple of 4"):
        build.configure(configuration(**{"tnas.hidden": 6}))
    with pytest.raises(UserError, match=r"tnas.fusion is \(\)"):
        build.configure(configuration(**{"tnas.fusion": ()}))


def test_other_tasks_of_the_store_are_the_history(knowledge, caplog):
    found = build.foreign(configuration(), toy.SPACE, task(), knowledge)
    assert found.names == ["tabular/a", "tabular/b"] and found.history.mask.sum() == 60
    assert "no images of tabular/new" in caplog.text
    own = build.foreign(configuration(), toy.SPACE, task("tabular/a"), knowledge)
    assert own.names == ["tabular/b"]
    few = build.foreign(configuration(), toy.SPACE, task(), knowledge._replace(until=0.0))
    assert few is None


def test_what_is_learnt_once_is_found_by_the_next_search(knowledge):
    config = configuration()
    method, evaluator = build.build(config, toy.SPACE, task(), knowledge)
    assert evaluator == "evaluator"
    state = jax.jit(method.init)(jax.random.key(0))
    states = [state for state, _ in method.prepare(state, jax.random.key(1))]
    assert int(states[-1].meta.iteration) == 4
    again, _ = build.build(config, toy.SPACE, task(), knowledge)
    ready = jax.jit(again.init)(jax.random.key(0))
    assert not list(again.prepare(ready, jax.random.key(1)))
    learnt, stored = states[-1].warm.surrogate.weights, ready.warm.surrogate.weights
    jax.tree.map(np.testing.assert_array_equal, learnt, stored)
    # Other settings or other rows are another surrogate.
    other = configuration(**{"tnas.code": 6})
    found = build.foreign(other, toy.SPACE, task(), knowledge)
    assert build.stored(other, toy.SPACE, found, knowledge) is None
    found = build.foreign(config, toy.SPACE, task("tabular/a"), knowledge)
    assert build.stored(config, toy.SPACE, found, knowledge) is None


def test_data_sets_are_told_apart_by_images_or_by_vectors(knowledge):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (2, 5, 8, 8, 1)).astype(np.uint8) for _ in range(3)]
    config = configuration(**{"tnas.images": 4})
    for name, sample in zip("ab", images, strict=False):
        store.record_images(knowledge.history, f"tabular/{name}", sample)
    found = build.foreign(config, toy.SPACE, task(images=images[2]), knowledge)
    assert found.history.sample.features.shape == (3, 2, 4, 128) and found.features == 128
    assert build.foreign(config, toy.SPACE, task(), knowledge).history.sample is None

    for name, vector in (("tabular/a", "1,0"), ("tabular/b", "0,1")):
        told = configuration(**{"tnas.task_vector": vector})
        build.foreign(told, toy.SPACE, task(name), knowledge)
    told = configuration(**{"tnas.task_vector": "0.5, 0.5"})
    found = build.foreign(told, toy.SPACE, task(), knowledge)
    np.testing.assert_allclose(found.history.vectors, [[1, 0], [0, 1], [0.5, 0.5]])
    with pytest.raises(UserError, match=r"tnas\.task_vector is 'x'; it must be numbers"):
        wrong = configuration(**{"tnas.task_vector": "x"})
        build.foreign(wrong, toy.SPACE, task(), knowledge)


def test_without_transfer_the_store_is_not_read(knowledge):
    config = configuration(**{"tnas.transfer": False})
    method, _ = build.build(config, toy.SPACE, task(), knowledge)
    assert method.prepare is None
    assert build.build(configuration(), toy.SPACE, task(), None)[0].prepare is None
