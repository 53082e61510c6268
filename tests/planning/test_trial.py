"""Learning rates are compared by what they do to one child."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core import config as config_lib
from fnas_jax.planning import plan, speed, trial
from fnas_jax.planning.schedule import Facts, Size, Speed
from fnas_jax.tasks import images, trained
from fnas_jax.training import child
from fnas_jax.training.minibatches import Data, in_memory

FACTS = Facts(images=1000, judged=200, devices=2, batch=50)


def halves():
    """The context of images with one bright half, top or bottom."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 60, (400, 8, 8), np.uint8)
    labels = np.arange(400) % 2
    for image, label in zip(values, labels, strict=True):
        image[4 * label : 4 * label + 4] += 120
    arrays = {"x_train": values, "y_train": labels}
    flat = config_lib.flatten(config_lib.default())
    tiny = {"space.blocks": 1, "space.strides": (2,), "space.stem": 8, "space.width": 0.5}
    tiny |= {"space.head": 16, "space.stem_stride": 1, "jax.cache_dir": ""}
    name = f"images/{images.data.name_of(arrays)}"
    config = config_lib.validate(config_lib.nest(flat | tiny | {"task.name": name}))
    return plan.context(config, images.load(config, arrays))


def by_itself(ctx, rate, steps):
    """(loss, accuracy) on validation images of the child of a trial, trained alone."""
    archs, macs = speed.sampled(ctx)
    arch, d = archs[int(np.argsort(macs)[len(macs) // 2])], ctx.dataset
    settings = dataclasses.replace(ctx.settings, lr=rate)
    own = child.Context(trained.elastic_network(ctx), settings, ctx.pipeline, ctx.objective)
    data = in_memory(Data(d.train_images, d.train_labels, d.val_images, d.val_labels))
    data = jax.tree.map(jnp.asarray, data)

    def run(key, steps):
        params = child.train(own, data, arch, key, steps)
        return child.evaluate(own, data, arch, params, jnp.bool_(True))[1]

    found = jax.jit(run)(jax.random.key(0), jnp.int32(steps))
    return float(found.loss), float(found.accuracy)


@pytest.mark.parametrize("backend", ["auto", "regional"])
def test_each_rate_trains_the_same_child(backend):
    ctx = halves()
    ctx = ctx._replace(settings=dataclasses.replace(ctx.settings, backend=backend))
    found = trial.run(ctx, steps=20)
    np.testing.assert_allclose(found.rates, ctx.settings.lr * np.array(trial.FACTORS), rtol=1e-6)
    loss, accuracy = by_itself(ctx, found.rates[2], steps=20)
    assert found.loss[2] == pytest.approx(loss, rel=1e-3)
    assert found.accuracy[2] == pytest.approx(accuracy, abs=0.02)
    assert len(np.unique(found.loss)) == len(trial.FACTORS)


def test_a_trial_holds_no_more_images_than_it_looks_at(monkeypatch):
    monkeypatch.setattr(trial, "JUDGED", 30)
    dataset = halves().dataset
    some = trial.some_of(dataset, 40)
    assert [len(part) for part in some] == [40, 40, 30, 30]
    assert 0 < some.train_labels.mean() < 1  # of both classes, in whatever order they come
    bright = some.train_images[:, 4:].mean((1, 2, 3)) > some.train_images[:, :4].mean((1, 2, 3))
    np.testing.assert_array_equal(bright, some.train_labels == 1)
    assert len(trial.some_of(dataset, 10**6).train_labels) == len(dataset.train_labels)


def test_a_loss_that_is_no_number_is_the_worst():
    found = trial.Trial(10, np.array([0.1, 0.2, 0.4]), np.array([0.5, 0.4, np.inf]), np.zeros(3))
    assert found.best == 1


def test_a_trial_takes_its_share_of_the_time_or_none(monkeypatch):
    monkeypatch.setattr(trial.jax, "local_devices", lambda: [None, None])
    measured, size = Speed(macs=1e9, compilation=2.0), Size(mean=1e6, high=2e6)
    # 1000 images a second on each of two devices, which train two children each
    steps = trial.steps_within(FACTS, measured, size, seconds=500.0)
    assert steps == (0.04 * 500 - 2) / 2 * 1000 / 50
    assert trial.steps_within(FACTS, measured, size, seconds=1e6) == trial.MOST_STEPS
    assert trial.steps_within(FACTS, measured, size, seconds=100.0) == 0
