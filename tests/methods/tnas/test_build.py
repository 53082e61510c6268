"""TNAS from a configuration and a knowledge store."""

import contextlib

import jax
import numpy as np
import pytest

from fnas_jax.core import config as config_lib
from fnas_jax.core import identity
from fnas_jax.core.types import Features, UserError
from fnas_jax.knowledge import history as store
from fnas_jax.knowledge import task_data
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.methods.tnas import build, stored
from fnas_jax.methods.tnas.config import Tnas
from fnas_jax.tasks.base import Evaluator, Task
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


EVALUATOR = Evaluator(lambda: None, lambda *given: None, jittable=True)


def configuration(**changes):
    flat = config_lib.flatten(config_lib.default()) | SETTINGS
    return config_lib.validate(config_lib.nest(flat | changes))


def task(name="tabular/new", images=None):
    return Task(name, toy.SPACE, EVALUATOR, None, sample_images=images)


def load(config, task, knowledge):
    return build.load(config, toy.SPACE, task, knowledge)


def place(config, found, knowledge):
    return stored.place(build.configure(config), config.seed, toy.SPACE, found, knowledge)


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
    assert got.meta == "joint" and got.iterations == 4 and got.batch == 16
    assert got.film and not got.graph_encoder and got.hidden == 8
    method, _ = build.build(config, toy.SPACE, task(), None)
    state = jax.eval_shape(method.init, jax.random.key(0))
    assert state.asked.shape == (2,) and state.rewards.shape == (22,)
    with pytest.raises(UserError, match=r"tnas.hidden is 6; it must be a multiple of 4"):
        build.configure(configuration(**{"tnas.hidden": 6}))
    with pytest.raises(UserError, match=r"tnas.fusion is \(\)"):
        build.configure(configuration(**{"tnas.fusion": ()}))


def test_other_tasks_of_the_store_are_the_source_tasks(knowledge, caplog):
    found = load(configuration(), task(), knowledge)
    unknown = "(unknown, 0 steps)"
    assert found.labels == [f"tabular/a {unknown}", f"tabular/b {unknown}"]
    assert found.source.mask.sum() == 60
    assert "no images of tabular/new" in caplog.text
    own = load(configuration(), task("tabular/a"), knowledge)
    assert own.labels == [f"tabular/b {unknown}"]
    few = load(configuration(), task(), knowledge._replace(until=0.0))
    assert few is None


@pytest.mark.slow  # tests/test_meta_train.py stands on the same ground, by the commands
def test_what_is_learnt_once_is_found_by_the_next_search(knowledge):
    config = configuration()
    method, evaluator = build.build(config, toy.SPACE, task(), knowledge)
    assert evaluator is EVALUATOR
    state = jax.jit(method.init)(jax.random.key(0))
    states = [state for state, _ in method.prepare(state, jax.random.key(1))]
    assert int(states[-1].meta.iteration) == 4
    again, _ = build.build(config, toy.SPACE, task(), knowledge)
    ready = jax.jit(again.init)(jax.random.key(0))
    assert not list(again.prepare(ready, jax.random.key(1)))
    learnt, ours = states[-1].warm.surrogate.weights, ready.warm.surrogate.weights
    jax.tree.map(np.testing.assert_array_equal, learnt, ours)
    # Other settings or other rows are another surrogate.
    other = configuration(**{"tnas.code": 6})
    found = load(other, task(), knowledge)
    assert stored.load(place(other, found, knowledge)) is None
    found = load(config, task("tabular/a"), knowledge)
    assert stored.load(place(config, found, knowledge)) is None


def test_data_sets_are_told_apart_by_images_or_by_vectors(knowledge):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (2, 5, 8, 8, 1)).astype(np.uint8) for _ in range(3)]
    config = configuration(**{"tnas.images": 4})
    for name, sample in zip("ab", images, strict=False):
        task_data.record_images(knowledge.history, f"tabular/{name}", sample)
    found = load(config, task(images=images[2]), knowledge)
    assert found.source.sample.features.shape == (3, 2, 4, 128) and found.features == 128
    assert load(config, task(), knowledge).source.sample is None

    for name, vector in (("tabular/a", "1,0"), ("tabular/b", "0,1")):
        told = configuration(**{"tnas.task_vector": vector})
        load(told, task(name), knowledge)
    told = configuration(**{"tnas.task_vector": "0.5, 0.5"})
    found = load(told, task(), knowledge)
    np.testing.assert_allclose(found.source.vectors, [[1, 0], [0, 1], [0.5, 0.5]])
    with pytest.raises(UserError, match=r"tnas\.task_vector is 'x'; it must be numbers"):
        wrong = configuration(**{"tnas.task_vector": "x"})
        load(wrong, task(), knowledge)


def test_a_resumed_search_sees_the_data_that_its_first_start_saw(knowledge):
    """A source task may have the search's own name, and be of images of another size."""
    connection, rng = knowledge.history, np.random.default_rng(0)
    small, large = (rng.integers(0, 255, (2, 5, n, n, 1)).astype(np.uint8) for n in (4, 8))
    old, new = (identity.text({"image": [n, n, 1]}) for n in (4, 8))
    connection.execute("DELETE FROM evaluations WHERE task = 'tabular/b'")
    connection.execute("UPDATE evaluations SET protocol = ?", (identity.digest(old),))
    task_data.record_images(connection, "tabular/a", small, old)
    config = configuration(**{"tnas.images": 4})
    own = task("tabular/a", large)._replace(evaluator=EVALUATOR._replace(protocol=new))
    first = load(config, own, knowledge)
    assert first.labels == [f"tabular/a ({identity.digest(old)})"]
    task_data.record_images(connection, own.name, own.sample_images, new)  # as a search does
    again = load(config, own, knowledge)
    np.testing.assert_array_equal(again.source.sample.features, first.source.sample.features)
    assert np.abs(np.diff(np.asarray(first.source.sample.features), axis=0)).max() > 0


def test_without_transfer_the_store_is_not_read(knowledge):
    config = configuration(**{"tnas.transfer": False})
    method, _ = build.build(config, toy.SPACE, task(), knowledge)
    assert method.prepare is None
    assert build.build(configuration(), toy.SPACE, task(), None)[0].prepare is None


def test_stored_weights_keep_the_names_that_they_always_had():
    """The text that the names of stored surrogates come from, as stores hold it."""
    assert stored.settings(Tnas(hidden=64, iterations=200, tasks=4), 3) == (
        "(Config(hidden=64, code=16, fusion=(128, 128, 64), film=False, graph=True, data=True,"
        " deep=True), Config(method='reptile', iterations=200, tasks=4, inner=5, batch=48,"
        " outer=0.5, lr=0.001, lr_hyper=0.01, checks=10), 'random_conv', 20, 3)"
    )
    names = {stored.settings(Tnas(**{name: value}), 0) for name, value in OTHER.items()}
    assert len(names) == len(OTHER) and stored.settings(Tnas(), 0) not in names
    assert stored.settings(Tnas(trust=0.5, acquisition="ucb"), 0) == stored.settings(Tnas(), 0)


def test_weights_that_went_by_features_have_a_name_of_their_own(knowledge):
    found = load(configuration(), task(), knowledge)
    plain = stored.digest(Tnas(), 0, found)
    known = [Features(("a",), lambda archs: archs, text) for text in ("1", "2")]
    assert stored.digest(Tnas(), 0, found, None) == plain
    names = {plain, *(stored.digest(Tnas(), 0, found, features) for features in known)}
    assert len(names) == 3
    numbers = build.configure(configuration())
    spaces = (toy.SPACE, *(toy.SPACE._replace(features=features) for features in known))
    places = {stored.place(numbers, 0, space, found, knowledge).path for space in spaces}
    assert len(places) == 3


# Another value of each number that the weights depend on.
OTHER = {
    "hidden": 8,
    "code": 4,
    "fusion": (8,),
    "film": True,
    "deep": False,
    "lr": 0.1,
    "graph_encoder": False,
    "data_encoder": False,
    "meta": "joint",
    "iterations": 7,
    "tasks": 3,
    "inner": 2,
    "batch": 8,
    "outer": 0.1,
    "lr_hyper": 0.1,
    "images": 3,
    "features": "pixels",
}
