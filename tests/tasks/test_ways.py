"""Where children are trained: how many at once, and on how many images."""

import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core import devices
from fnas_jax.core.types import UserError
from fnas_jax.layers.choose import branched_in, exact_in, masked_in
from fnas_jax.networks import elastic
from fnas_jax.networks.dense import Dense
from fnas_jax.spaces import macro
from fnas_jax.tasks import data, images, inherited, trained, ways
from fnas_jax.training import autotune, population
from fnas_jax.training.autotune import Way
from tests.networks import agreement
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
    assert ways.images_at_once(0, dataset, mesh) is None
    assert ways.images_at_once(0, dataset, Mesh()) is None


def test_large_sets_come_in_chunks_that_leave_room_for_others(dataset):
    large = dataset._replace(
        train_images=np.zeros((1000, 32, 32, 1), np.uint8), train_labels=np.zeros(1000, np.int32)
    )
    assert ways.images_at_once(0, large, Mesh()) == 2**20 // 6 // 1024


def test_the_number_of_images_can_be_chosen(dataset):
    mesh = devices.children_mesh()
    assert ways.images_at_once(100, dataset, mesh) == 100
    assert ways.images_at_once(10**6, dataset, mesh) is None


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
    by = ways.children_by(ctx, network, mesh)
    assert (by.child.network, by.group, by.own) == (network, 1, None)
    ctx = context(dataset, tmp_path, group=7)
    assert ways.way_of(ctx, mesh).group == 4  # no more than there are


def test_a_program_for_each_child_reads_the_network_that_children_share(dataset, tmp_path):
    mesh = devices.children_mesh(jax.devices()[:1])
    ctx = context(dataset, tmp_path, backend="exact")
    network = elastic.make(SMALL, 1, 10, "exact")
    by = ways.children_by(ctx, network, mesh)
    assert (by.child.network, by.group) == (network, 1)
    arch = np.asarray(SMALL.largest)
    own = by.own(arch)
    assert own.apply.args[0].backend is exact_in(jnp.float32)
    key = jax.random.key(0)
    shapes = (jax.eval_shape(net.init, key, arch) for net in (network, own))
    chex.assert_trees_all_equal(*shapes)


def test_an_accelerator_trains_by_the_fastest_backend_and_group(dataset, tmp_path, monkeypatch):
    mesh = devices.children_mesh(jax.devices()[:1])
    network = elastic.make(SMALL, 1, 10, "reference")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    asked = []

    def seconds(ctx, own, most, count, way):
        asked.append((most, count, way))
        return {("masked", 4): 1e3, ("branched", 1): 2e3}.get(way, 3e3)  # too long for one way

    def chosen(ctx):
        by = ways.children_by(ctx, network, mesh)
        return backend_of(by.child.network), by.group, by.own is not None

    monkeypatch.setattr(ways, "seconds_of_a_step", seconds)
    ctx = context(dataset, tmp_path)
    assert chosen(ctx) == (masked_in(jnp.bfloat16), 4, False)
    each = [Way("regional", 1), Way("exact", 1)]
    tried = [*each, *(Way(b, group) for group in (4, 1) for b in ("masked", "branched"))]
    assert [way for *_, way in asked] == tried and {most for most, *_ in asked} == {4}
    kept = json.loads((tmp_path / autotune.FILE).read_text())
    assert list(kept.values()) == [{"backend": "masked", "group": 4, "steps": None}]
    asked.clear()
    assert chosen(ctx)[1] == 4 and not asked
    one = context(dataset, tmp_path, backend="branched")
    found = ways.children_by(one, elastic.make(SMALL, 1, 10, "branched"), mesh)
    assert (backend_of(found.child.network), found.group) == (branched_in(jnp.bfloat16), 1)
    asked.clear()
    given = context(dataset, tmp_path, backend="branched", group=2)
    assert chosen(given)[1:] == (2, False) and not asked
    given = context(dataset, tmp_path, backend="exact")
    assert chosen(given)[1:] == (1, True) and not asked
    by = ways.children_by(context(dataset, tmp_path, backend="regional"), network, mesh)
    assert by.by is not None and by.own is None and not asked


def test_a_short_search_on_an_accelerator_compiles_programs_of_layers_only(
    dataset, tmp_path, monkeypatch
):
    mesh = devices.children_mesh(jax.devices()[:1])
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    asked = []

    def seconds(ctx, own, most, count, way):
        asked.append(way)
        return 1e-3

    monkeypatch.setattr(ways, "seconds_of_a_step", seconds)
    ctx = context(dataset, tmp_path)
    assert ways.way_of(ctx, mesh) == Way("regional", 1) and asked == [Way("regional", 1)]
    ctx.config.search.budget = int(autotune.TRYING / 1e-3 / ctx.settings.steps) + 1
    ways.way_of(ctx, mesh)
    assert len(asked) == 1 + 6


@pytest.mark.parametrize("backend", ["exact", "regional"])
def test_children_that_share_no_program_have_no_group(dataset, tmp_path, backend):
    ctx = context(dataset, tmp_path, backend=backend, group=3)
    with pytest.raises(UserError, match=r"children.group is 3.*allowed are 0 and 1"):
        ways.way_of(ctx, devices.children_mesh(jax.devices()[:1]))


@pytest.mark.slow
@pytest.mark.parametrize("way", [Way("branched", 2), Way("exact", 1), Way("regional", 1)])
def test_a_way_is_timed_by_training_so(dataset, tmp_path, monkeypatch, way):
    """The backend and group that are trained are those of the way; a full memory is told."""
    ctx = context(dataset, tmp_path)
    own = devices.children_mesh(jax.devices()[:1])
    made, contexts = population.make, []
    monkeypatch.setattr(population, "make", lambda ctx: contexts.append(ctx) or made(ctx))
    assert ways.seconds_of_a_step(ctx, own, 4, None, way) > 0
    assert (contexts[0].group, contexts[0].own is not None) == (way.group, way.backend == "exact")
    assert (contexts[0].by is not None) == (way.backend == "regional")
    assert backend_of(contexts[0].child.network) is branched_in(jnp.float32)

    def full(ctx):
        def run(*_):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

        return run

    monkeypatch.setattr(population, "make", full)
    assert ways.seconds_of_a_step(ctx, own, 4, None, Way("branched", 2)) is None


@pytest.mark.slow
def test_a_search_trains_children_by_programs_of_layers(dataset):
    """From the pool, as by one program for all; settings and data are those of the search."""
    found = []
    for backend in ("branched", "regional"):
        config = settings(True)
        config.children.backend = backend
        trained_by = trained.evaluator(images.train_context(config, SMALL, dataset))
        state, _ = list(trained_by.hooks.prepare(trained_by.init(), KEY))[-1]
        archs = SMALL.canonical(SMALL.sample(jax.random.key(1), 3))
        state, metrics = trained_by.evaluate(state, archs, jnp.ones(3, bool), KEY)
        assert metrics.ok.all() and trained_by.stats(state)["pool/hits"] == 1
        found.append(metrics)
    np.testing.assert_allclose(found[0].accuracy, found[1].accuracy, atol=0.02)


def test_networks_that_are_no_chain_of_layers_are_trained_otherwise(monkeypatch):
    """Where an accelerator chooses, what it would have to refuse is not among its ways."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert elastic.backends(SMALL, "auto", 3)[:2] == ("regional", "exact")
    assert elastic.backends(SMALL, "auto", Dense(3)) == ("exact", "branched", "masked")
    assert "regional" not in elastic.backends(agreement.SPACES["cell"], "auto", 3)
    assert elastic.described(SMALL, "auto", Dense(3)) == "exact or branched or masked"
