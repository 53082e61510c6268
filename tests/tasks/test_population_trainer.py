"""Where children are trained: how many at once, and on how many images."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core import devices
from fnas_jax.core.types import UserError
from fnas_jax.layers.choose import branched_in, masked_in
from fnas_jax.networks import elastic
from fnas_jax.spaces import macro
from fnas_jax.tasks import data, images, inherited, population_trainer
from fnas_jax.training import autotune, population
from fnas_jax.training.autotune import Way
from tests.tasks.test_children_evaluator import KEY, SPACE, evaluator, settings


@pytest.fixture(scope="module")
def dataset():
    return data.load("digits")


class Device:
    """One that has 1 MiB."""

    def memory_stats(self):
        return {"bytes_limit": 2**20}


class Mesh:
    local_devices = (Device(),)


def test_small_sets_are_on_the_device_whole(dataset):
    mesh = devices.children_mesh()
    assert population_trainer.images_at_once(0, dataset, mesh) is None
    assert population_trainer.images_at_once(0, dataset, Mesh()) is None


def test_large_sets_come_in_chunks_that_leave_room_for_others(dataset):
    large = dataset._replace(
        train_images=np.zeros((1000, 32, 32, 1), np.uint8), train_labels=np.zeros(1000, np.int32)
    )
    assert population_trainer.images_at_once(0, large, Mesh()) == 2**20 // 6 // 1024


def test_the_number_of_images_can_be_chosen(dataset):
    mesh = devices.children_mesh()
    assert population_trainer.images_at_once(100, dataset, mesh) == 100
    assert population_trainer.images_at_once(10**6, dataset, mesh) is None


def test_one_shot_methods_need_all_images_at_once(dataset):
    config = settings(False)
    config.method.name = "spos"
    config.children.device_images = 64
    ctx = images.train_context(config, SPACE, dataset)
    with pytest.raises(UserError, match="'spos', which needs all images on the device"):
        inherited.oneshot(ctx)


@pytest.mark.slow
def test_children_of_a_search_learn_from_chunks():
    config = settings(True)
    config.children.device_images = 64
    found = evaluator(config)
    state = found.init()
    archs = SPACE.canonical(SPACE.sample(jax.random.key(1), 3))
    state, metrics = found.evaluate(state, archs, jnp.ones(3, bool), KEY)
    assert metrics.ok.all() and (metrics.accuracy > 0.12).all()
    assert found.stats(state)["pool/hits"] == 1


SMALL = macro.make(macro.MacroSpec(strides=(2, 1, 1), channels=(8,) * 3, stem=8, head=8))


def context(dataset, cache_dir, **keys):
    config = settings(False)
    config.search.batch = 4
    config.jax.cache_dir = str(cache_dir)
    ctx = images.train_context(config, SMALL, dataset)
    return ctx._replace(settings=dataclasses.replace(ctx.settings, **keys))


def backend_of(network):
    return network.apply.args[0].backend


def test_a_cpu_trains_one_child_at_a_time_by_the_network_that_it_has(dataset, tmp_path):
    mesh = devices.children_mesh(jax.devices()[:1])
    network = elastic.make(SMALL, 1, 10, "reference")
    ctx = context(dataset, tmp_path)
    assert population_trainer.children_at_once(ctx, network, mesh) == (network, 1)
    ctx = context(dataset, tmp_path, group=7)
    assert population_trainer.children_at_once(ctx, network, mesh)[1] == 4  # no more than there are


def test_an_accelerator_trains_by_the_fastest_backend_and_group(dataset, tmp_path, monkeypatch):
    mesh = devices.children_mesh(jax.devices()[:1])
    network = elastic.make(SMALL, 1, 10, "reference")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    asked = []

    def seconds(ctx, own, most, count, way):
        asked.append((most, count, way))
        return {("masked", 4): 1.0, ("branched", 1): 2.0}.get(way, 3.0)

    monkeypatch.setattr(population_trainer, "seconds_of_a_step", seconds)
    ctx = context(dataset, tmp_path)
    found, group = population_trainer.children_at_once(ctx, network, mesh)
    assert (backend_of(found), group) == (masked_in(jnp.bfloat16), 4)
    ways = {Way(backend, group) for backend in ("masked", "branched") for group in (4, 1)}
    assert {way for *_, way in asked} == ways and {most for most, *_ in asked} == {4}
    kept = json.loads((tmp_path / autotune.FILE).read_text())
    assert list(kept.values()) == [{"backend": "masked", "group": 4}]
    asked.clear()
    assert population_trainer.children_at_once(ctx, network, mesh)[1] == 4 and not asked
    one = context(dataset, tmp_path, backend="branched")
    found, group = population_trainer.children_at_once(one, network, mesh)
    assert (backend_of(found), group) == (branched_in(jnp.bfloat16), 1)
    asked.clear()
    given = context(dataset, tmp_path, backend="branched", group=2)
    assert population_trainer.children_at_once(given, network, mesh) == (network, 2) and not asked


@pytest.mark.slow
def test_a_way_is_timed_by_training_so(dataset, tmp_path, monkeypatch):
    """The backend and group that are trained are those of the way; a full memory is told."""
    ctx = context(dataset, tmp_path)
    own = devices.children_mesh(jax.devices()[:1])
    made, contexts = population.make, []
    monkeypatch.setattr(population, "make", lambda ctx: contexts.append(ctx) or made(ctx))
    assert population_trainer.seconds_of_a_step(ctx, own, 4, None, Way("branched", 2)) > 0
    assert contexts[0].group == 2
    assert backend_of(contexts[0].child.network) is branched_in(jnp.float32)

    def full(ctx):
        def run(*_):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

        return run

    monkeypatch.setattr(population, "make", full)
    assert population_trainer.seconds_of_a_step(ctx, own, 4, None, Way("branched", 2)) is None
