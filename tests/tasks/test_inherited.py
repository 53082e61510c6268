"""Judging with inherited weights, on a linear classifier in place of a convolutional network."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core import devices
from fnas_jax.core import keep as keeping
from fnas_jax.core.config import default
from fnas_jax.networks.base import Network
from fnas_jax.spaces import mnas
from fnas_jax.tasks import data, entrants, images, inherited
from fnas_jax.training.minibatches import Data

SPACE = mnas.make(blocks=1, strides=(2,), stem=16, stem_stride=1, head=64)
ARCHS = jnp.asarray(
    [SPACE.parse(f"{op}-e3-k3-se0-none-f1-l+0") for op in ("conv", "sepconv", "mbconv", "sepconv")]
)


def logits(params, arch, images):
    """The classifier of the block's operation."""
    return images.reshape(len(images), -1) @ params["w"][arch[0]]


NETWORK = Network(
    init=lambda key, arch: {"w": jax.random.normal(key, (3, 64, 10))},
    init_stats=dict,
    apply=logits,
    apply_eval=lambda params, stats, arch, images, collect: (logits(params, arch, images), stats),
)


@pytest.fixture(scope="module")
def context():
    config = default()
    config.reward.cost = "mflops"
    config.reward.target = 0.05
    return images.train_context(config, SPACE, data.load("digits"))


@pytest.fixture(scope="module")
def evaluator(context):
    d = context.dataset
    parts = (d.train_images, d.train_labels, d.val_images, d.val_labels)
    return inherited.evaluator(context, NETWORK, Data(*map(jnp.asarray, parts)))


def test_accuracies_are_those_of_the_loaded_weights(context, evaluator):
    params = jax.jit(NETWORK.init)(jax.random.key(0), ARCHS[0])
    state = evaluator.hooks.load_weights(evaluator.init(), params)
    everyone = jnp.ones(4, bool)
    state, first = evaluator.evaluate(state, ARCHS, everyone, jax.random.key(0))
    pixels = np.asarray(context.pipeline.normalise(context.dataset.val_images), np.float64)
    for i in range(3):
        scores = pixels.reshape(len(pixels), -1) @ np.asarray(params["w"][i], np.float64)
        hits = scores.argmax(-1) == context.dataset.val_labels
        np.testing.assert_allclose(first.accuracy[i], hits.mean(), atol=1e-6)
    assert first.accuracy[3] == first.accuracy[1]
    assert first.fresh.tolist() == [True, True, True, False]
    assert first.ok.all()
    ratio = np.asarray(first.mflops) / 0.05
    np.testing.assert_allclose(first.reward, first.accuracy * ratio**-0.07, rtol=1e-5)

    # What is known keeps its first reading, whatever the weights have become.
    state = evaluator.hooks.load_weights(state, {"w": jnp.zeros_like(params["w"])})
    _, again = evaluator.evaluate(state, ARCHS, everyone, jax.random.key(1))
    np.testing.assert_array_equal(again.accuracy, first.accuracy)
    assert not again.fresh.any()


def test_weights_that_are_no_numbers_are_failed_children(evaluator):
    params = {"w": jnp.full((3, 64, 10), jnp.nan).at[1].set(0.5)}
    state = evaluator.hooks.load_weights(evaluator.init(), params)
    _, found = evaluator.evaluate(state, ARCHS, jnp.ones(4, bool), jax.random.key(0))
    assert found.ok.tolist() == [False, True, False, True]
    assert found.reward[0] == 0 and found.fresh[0]


def test_children_are_judged_where_they_were_asked_for_and_named_by_their_canonical_form(context):
    """The expansion of a convolution has no effect, but here it says where the weights stand."""
    by_expansion = NETWORK._replace(
        apply_eval=lambda params, stats, arch, images, collect: (
            logits(params, arch[1:], images),
            stats,
        )
    )
    d = context.dataset
    parts = (d.train_images, d.train_labels, d.val_images, d.val_labels)
    found = inherited.evaluator(context, by_expansion, Data(*map(jnp.asarray, parts)))
    twin = ARCHS[:1].at[0, 1].set(1)
    np.testing.assert_array_equal(found.form(twin), SPACE.canonical(ARCHS[:1]))
    params = jax.jit(NETWORK.init)(jax.random.key(0), ARCHS[0])
    start = found.hooks.load_weights(found.init(), params)
    one = jnp.ones(1, bool)
    _, first = found.evaluate(start, ARCHS[:1], one, jax.random.key(0))
    _, second = found.evaluate(start, twin, one, jax.random.key(0))
    assert first.accuracy[0] != second.accuracy[0]
    assert (first.mflops[0], first.params_m[0]) == (second.mflops[0], second.params_m[0])


def test_masked_architectures_are_not_judged(evaluator):
    state = evaluator.hooks.load_weights(
        evaluator.init(), jax.jit(NETWORK.init)(jax.random.key(0), ARCHS[0])
    )
    mask = jnp.asarray([False, True, False, False])
    _, found = evaluator.evaluate(state, ARCHS, mask, jax.random.key(0))
    assert found.fresh.tolist() == mask.tolist()
    assert found.accuracy[0] == 0 < found.accuracy[1]


def test_the_supernet_is_judged_on_validation_images(context):
    d, found = context.dataset, inherited.oneshot(context).data
    for got, expected in zip(
        found, (d.train_images, d.train_labels, d.val_images, d.val_labels), strict=True
    ):
        np.testing.assert_array_equal(got, expected)


def test_the_winner_is_trained_on_with_all_images_but_those_that_it_is_tested_on(
    context, monkeypatch
):
    """From its inherited weights, at the place that it was asked for, and kept on the way."""
    d, params = context.dataset, jax.jit(NETWORK.init)(jax.random.key(0), ARCHS[0])
    given, real = [], entrants.tested

    def tested(run, name, of, keep):
        given.append((run, name, of, keep))
        return real(run._replace(steps=0), name, of, keeping.NOWHERE)

    monkeypatch.setattr(inherited.entrants, "tested", tested)
    monkeypatch.setattr(inherited.subnet_weights, "get", lambda space, *parts: parts)
    keep = keeping.Keep(seconds=7.0)
    tune = functools.partial(inherited.finetune, context._replace(keep=keep), NETWORK)
    found, network = tune(params, ARCHS[0], jax.random.key(0))
    run, name, of, kept = given[0]
    assert (name, kept, run.steps) == ("fine-tuned winner", keep, context.config.oneshot.finetune)
    asked, tuned, _ = network.variables
    assert asked.tolist() == network.arch.tolist() == ARCHS[0].tolist()
    np.testing.assert_array_equal(tuned["w"], params["w"])
    assert network.accuracy == found["accuracy"]
    lr = context.settings.lr / inherited.FINETUNE_DIVISOR
    assert (network.recipe["weights"], network.recipe["lr"]) == ("inherited", lr)
    assert run.context.child.settings.lr == lr
    np.testing.assert_array_equal(
        run.data.train_images, np.concatenate([d.train_images, d.val_images])
    )
    np.testing.assert_array_equal(
        run.data.train_labels, np.concatenate([d.train_labels, d.val_labels])
    )
    pixels = np.asarray(context.pipeline.normalise(d.test_images), np.float64)
    scores = pixels.reshape(len(pixels), -1) @ np.asarray(params["w"][0], np.float64)
    hits = scores.argmax(-1) == d.test_labels
    np.testing.assert_allclose(found["accuracy"], hits.mean(), atol=1e-6)
    # What is kept is of these weights, this form and this key only.
    tune({"w": params["w"] + 1}, ARCHS[0], jax.random.key(0))
    tune(params, ARCHS[1], jax.random.key(0))
    tune(params, ARCHS[0], jax.random.key(1))
    tune(params, ARCHS[0], jax.random.key(0))
    assert len({of for _, _, of, _ in given}) == 4 and given[-1][2] == of


def test_the_devices_that_share_a_minibatch_train_the_supernet(context, monkeypatch, caplog):
    two = jax.devices()[:1] * 2
    monkeypatch.setattr(jax, "local_devices", lambda: two)
    monkeypatch.setattr(devices, "Mesh", lambda own, axes: types.SimpleNamespace(size=len(own)))
    monkeypatch.setattr(inherited, "images_at_once", lambda *given: None)
    assert inherited.supernet_mesh(context).size == 2 and not caplog.records
    odd = dataclasses.replace(context.settings, batch_size=31)
    assert inherited.supernet_mesh(context._replace(settings=odd)).size == 1
    assert "1 of 2 devices train each network: a minibatch of 31 images" in caplog.text
    monkeypatch.setattr(inherited, "images_at_once", lambda *given: 100)
    assert inherited.supernet_mesh(context).size == 1
    assert "1 of 2 devices trains: the images do not fit on each" in caplog.text
