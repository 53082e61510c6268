"""What does not fit into memory is refused before anything is trained, with what would fit."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax import loop, registry
from fnas_jax.core import config as config_lib
from fnas_jax.core import memory as memory_lib
from fnas_jax.core.types import UserError
from fnas_jax.layers import compile_kernels
from fnas_jax.methods.baselines import random
from fnas_jax.networks import regions
from fnas_jax.planning import dry_run
from fnas_jax.tasks import images, memory, trained
from fnas_jax.tasks.memory import Machine
from fnas_jax.training import layer_programs, regional

GIB = 2**30
SPACE = {"space.blocks": 3, "space.strides": (1, 2, 2), "space.stem": 16, "space.stem_stride": 1}
CPU = Machine("cpu", 2, 8 * GIB, True, True)
GPU = Machine("a GPU", 4, 8 * GIB, False, False)


def configured(**changes):
    values = {"task.name": "images/digits", "jax.cache_dir": "", "space.head": 64, **SPACE}
    flat = config_lib.flatten(config_lib.default())
    return config_lib.validate(config_lib.nest(flat | values | changes))


@pytest.fixture(scope="module")
def dataset():
    return images.load(configured())


def context(dataset, **changes):
    config = configured(**changes)
    return images.train_context(config, registry.build_space(config), dataset)


def sized(machine, wanted):
    """`machine` with memory for nearly all that is `wanted`."""
    return machine._replace(memory=0.99 * wanted)


def test_the_batch_or_the_number_of_cores_that_would_fit_is_told(dataset):
    ctx = context(dataset, **{"children.batch_size": 512})
    network = trained.elastic_network(ctx)
    own = memory.of_children(ctx, network, CPU)
    short = sized(CPU, memory.need(ctx, CPU, own).total)
    with pytest.raises(UserError) as error:
        memory.check(ctx, short)
    said = str(error.value)
    assert "children.batch_size is 512, of images of 8x8" in said and "each of 2 devices" in said
    batch = int(re.search(r"children.batch_size=(\d+) would fit", said)[1])
    assert batch < 512
    fitting = context(dataset, **{"children.batch_size": batch})
    memory.check(fitting, short)
    assert "JAX_NUM_CPU_DEVICES=1 (fewer children at a time) would fit" in said
    memory.check(ctx, short._replace(devices=1, memory=2 * short.memory))


def test_a_group_that_fits_is_told_first(dataset):
    ctx = context(dataset, **{"children.group": 8, "children.backend": "reference"})
    network = trained.elastic_network(ctx)
    own = memory.of_children(ctx, network, GPU)
    short = sized(GPU, memory.need(ctx, GPU, own).total)
    with pytest.raises(UserError, match=r"8 children at once may take .*: children.group=4 would"):
        memory.check(ctx, short)
    assert memory.need(ctx, GPU, own, group=4).total <= short.memory


def test_where_no_batch_fits_that_is_said(dataset):
    ctx = context(dataset)
    with pytest.raises(UserError, match=r"no batch would fit; smaller are task.image_size and"):
        memory.check(ctx, CPU._replace(memory=1000.0))


def test_small_networks_are_not_looked_at_any_closer(dataset, monkeypatch):
    ctx = context(dataset)
    monkeypatch.setattr(memory, "of_children", None)
    memory.check(ctx, CPU)


def test_needs_follow_their_causes(dataset):
    ctx = context(dataset)
    own = memory.of_children(ctx, trained.elastic_network(ctx), CPU)
    need = memory.need(ctx, CPU, own)
    more = memory.need(ctx, CPU, own, batch=10**6)  # of as many images as there are
    count = len(dataset.train_labels)
    assert more.activations == pytest.approx(count * sum(own.kept))
    assert need.activations < more.activations and need.parameters == more.parameters
    stored = dataset.train_images.nbytes + dataset.val_images.nbytes
    assert need.images > stored and memory.images_bytes(ctx, 100.0) == 50.0
    without = memory.need(context(dataset, **{"akp.enabled": False}), CPU, own)
    assert without.pool == without.trained == 0.0 < need.pool
    grouped = memory.need(ctx, GPU, own, group=3)
    assert grouped.parameters == 3 * need.parameters


def test_a_search_that_does_not_fit_does_not_begin(tmp_path, monkeypatch):
    """Neither with a method, nor is anything kept; its winner may be trained again."""
    monkeypatch.setattr(memory_lib, "available_bytes", lambda: 10**6)
    monkeypatch.setattr(random, "build", None)
    config = configured(**{"method.name": "random"})
    with pytest.raises(UserError, match=r"a child may take .* GiB of"):
        loop.run(config, tmp_path / "w")
    assert not list(tmp_path.rglob("history.sqlite")) and not list(tmp_path.rglob("run.json"))
    assert registry.build_task(config).trains


def test_this_machine(dataset):
    ctx = context(dataset)
    here = memory.here(ctx)
    assert here.devices == min(len(jax.local_devices()), ctx.config.search.batch)
    # One child has all the memory, however many cores there are.
    assert memory.here(context(dataset, **{"search.batch": 1})).devices == 1
    assert here.shared and 0 < here.memory * here.devices <= memory_lib.host_bytes()
    reference = context(dataset, **{"children.backend": "reference"})
    assert not memory.here(reference).kernels


@pytest.mark.skipif(not compile_kernels.available(), reason="no kernels for this CPU")
def test_what_kernels_keep_as_bfloat16_takes_half(dataset, monkeypatch):
    monkeypatch.setattr(compile_kernels, "short_products", lambda: True)  # nothing runs
    whole, half = (
        context(dataset, **{"children.backend": name}) for name in ("kernels", "kernels_bf16")
    )
    machines = [memory.here(ctx) for ctx in (whole, half)]
    assert [m.number_bytes for m in machines] == [4, 2]
    network = trained.elastic_network(whole)
    for found in (
        [memory.bound(whole, m).kept for m in machines],
        [memory.of_children(whole, network, m).kept for m in machines],
    ):
        assert 0.5 < sum(found[1]) / sum(found[0]) < 0.75  # results between layers are float32
    needs = [dry_run.of_winner(whole, None, m).activations for m in machines]
    assert 0.5 < needs[1] / needs[0] < 0.75


def test_judging_has_no_more_pixels_at_a_time_than_the_images_of_a_step(dataset):
    """256 photographs of 224x224, judged at once, took more memory than their training."""
    large = np.broadcast_to(np.zeros((1, 1, 1, 1), np.uint8), (600, 224, 224, 3))
    photographs = dataset._replace(
        train_images=large, val_images=large, train_labels=np.zeros(600), val_labels=np.zeros(600)
    )
    ctx = context(dataset)._replace(dataset=photographs)
    settings = dataclasses.replace(ctx.settings, batch_size=16)
    own = memory.of_children(ctx, trained.elastic_network(ctx), CPU)
    need = memory.need(ctx._replace(settings=settings), CPU, own)
    assert need.activations <= 2**20 / 224**2 * sum(own.kept)


ONE_BLOCK = {"space.blocks": 1, "space.strides": (2,)}


def test_what_goes_from_layer_to_layer_is_counted(dataset):
    """Of the largest child, in the type that accelerators have."""
    ctx = context(dataset, **{"children.backend": "regional", **ONE_BLOCK})
    own = memory.of_children(ctx, trained.elastic_network(ctx), GPU)
    shape, outputs = ctx.dataset.image_shape, ctx.dataset.outputs
    net = regions.make(ctx.space, shape[-1], outputs)._replace(dtype=jnp.bfloat16)
    chain, batch, found = regions.chain(net, np.asarray(ctx.space.largest)), 16, 0
    for placed, size in zip(chain, regional.sizes(chain, batch, *shape[:2]), strict=True):
        key = layer_programs.Key(placed.region, size, jax.devices()[0])
        y, kept = layer_programs.of_training(key).forward.out_info
        of_images = [y, *(leaf for leaf in kept if leaf.shape[:1] == (batch,))]
        found += sum(leaf.size * leaf.dtype.itemsize for leaf in of_images) / batch
    assert 0.8 * own.kept.layers < found < 1.05 * own.kept.layers
    whole = context(dataset, **{"children.backend": "branched", **ONE_BLOCK})
    assert memory.of_children(whole, trained.elastic_network(whole), GPU).kept != own.kept
