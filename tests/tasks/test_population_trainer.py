"""Where children are trained: how many at once, and on how many images."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core import devices
from fnas_jax.core.types import UserError
from fnas_jax.networks import elastic
from fnas_jax.spaces import cell
from fnas_jax.tasks import data, images, inherited, population_trainer
from fnas_jax.training import autotune
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


@pytest.mark.slow
def test_on_an_accelerator_all_that_fit_are_trained_at_once(dataset, tmp_path, monkeypatch):
    config = settings(False)
    config.search.batch = 2
    config.jax.cache_dir = str(tmp_path)
    space = cell.make(channels=4, cells_per_stage=1)
    ctx = images.train_context(config, space, dataset)
    network = elastic.make(space, 1, 10)
    mesh = devices.children_mesh(jax.devices()[:1])
    assert population_trainer.children_at_once(ctx, network, mesh) == 1  # a CPU
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    chosen = population_trainer.children_at_once(ctx, network, mesh)
    assert chosen == 2
    assert list(json.loads((tmp_path / autotune.FILE).read_text()).values()) == [chosen]
    again = lambda *given: pytest.fail("tried again")  # noqa: E731
    monkeypatch.setattr(population_trainer, "fits_into_memory", again)
    assert population_trainer.children_at_once(ctx, network, mesh) == chosen
    ctx = ctx._replace(settings=dataclasses.replace(ctx.settings, group=7))
    assert population_trainer.children_at_once(ctx, network, mesh) == 2  # no more than there are
