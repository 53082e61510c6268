"""What a final training adds: mixed images and averaged weights, each against numpy."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fnas_jax.core import devices
from fnas_jax.training import child, population, streaming
from fnas_jax.training import recipe as recipes
from fnas_jax.training.config import Recipe
from fnas_jax.training.minibatches import Data
from fnas_jax.training.recipe import Batch, Others
from tests.training.test_child import CONTEXT, toy_data

KEYS = jax.random.split(jax.random.key(0), 400)
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(6, 7, 5, 2)).astype(np.float32)
LABELS = np.array([0, 1, 2, 0, 1, 2], np.int32)
BEFORE = np.roll(IMAGES, 1, axis=0)
mix = jax.jit(recipes.mix, static_argnums=0)


def many(function, alpha, labels=LABELS):
    return jax.jit(jax.vmap(lambda key: function(key, alpha, IMAGES, labels)))(KEYS)


def test_mixup_is_a_weighted_mean_of_neighbours_with_shares_of_a_beta_distribution():
    mixed, _, share = jax.device_get(many(recipes.mixup, 0.4))
    for found, s in zip(mixed[:9], share[:9], strict=True):
        np.testing.assert_allclose(found, s * IMAGES + (1 - s) * BEFORE, atol=1e-6)
    assert ((share >= 0) & (share <= 1)).all()
    assert share.mean() == pytest.approx(0.5, abs=0.06)
    assert share.var() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.15)  # of Beta(0.4, 0.4)


def test_cutmix_puts_a_box_of_the_neighbour_and_counts_its_pixels():
    mixed, _, share = jax.device_get(many(recipes.cutmix, 1.0))
    boxes = (mixed == BEFORE).all(axis=(1, 4))  # [keys, H, W], the same box in all images
    for found, box, s in zip(mixed, boxes, share, strict=True):
        np.testing.assert_array_equal(found, np.where(box[..., None], BEFORE, IMAGES))
        assert s == pytest.approx(1 - box.mean())
        rows, columns = box.any(axis=1), box.any(axis=0)
        np.testing.assert_array_equal(box, rows[:, None] & columns[None, :])
        for line in (rows, columns):  # without a gap
            assert np.abs(np.diff(np.pad(line.astype(int), 1))).sum() in (0, 2)
    assert (boxes.mean(axis=0) > 0).all() and 0.6 < share.mean() < 1


def test_cutmix_pastes_masks_as_it_pastes_images_and_mixes_no_losses():
    """Masks that are a channel of the images move exactly with it."""
    masks = (100 * IMAGES[..., 0]).astype(np.int8).astype(np.uint8)
    before = np.roll(masks, 1, axis=0)
    mixed, found, share = jax.device_get(many(recipes.cutmix, 1.0, masks))
    boxes = (mixed == BEFORE).all(axis=(1, 4))
    for own, box in zip(found, boxes, strict=True):
        np.testing.assert_array_equal(own, np.where(box, before, masks))
    np.testing.assert_array_equal(share, np.ones(len(KEYS)))
    batch = mix(Recipe(cutmix=1.0), KEYS[0], jnp.int32(1), IMAGES, masks)
    assert batch.labels.dtype == np.uint8 and float(batch.others.share) == 0


def test_mixup_of_masks_mixes_losses():
    masks = np.arange(6 * 7 * 5, dtype=np.uint8).reshape(6, 7, 5)
    batch = mix(Recipe(mixup=0.5), KEYS[0], jnp.int32(1), IMAGES, masks)
    np.testing.assert_array_equal(batch.labels, masks)
    np.testing.assert_array_equal(batch.others.labels, np.roll(masks, 1, axis=0))
    assert 0 < float(batch.others.share) < 1


def test_both_take_turns():
    recipe = Recipe(mixup=0.5, cutmix=1.0)
    found = [mix(recipe, KEYS[0], jnp.int32(i), IMAGES, LABELS) for i in range(40)]
    old = np.stack([IMAGES, BEFORE])
    cut = [bool((np.asarray(f.images) == old).any(axis=0).all()) for f in found]
    assert 8 < sum(cut) < 32
    assert all(f.others is not None for f in found)
    again = mix(recipe, KEYS[0], jnp.int32(3), IMAGES, LABELS)
    chex.assert_trees_all_equal(again, found[3])


def test_nothing_is_mixed_nor_averaged_by_default():
    images = jnp.asarray(IMAGES)
    batch = recipes.mix(Recipe(), KEYS[0], jnp.int32(0), images, LABELS)
    assert batch.images is images and batch.labels is LABELS and batch.others is None
    assert child.begin(CONTEXT, jnp.zeros(1), KEYS[0]).average is None


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_cross_entropy_with_mixed_targets(smoothing):
    data = toy_data(15)
    images, labels = data.train_images, data.train_labels
    ctx = CONTEXT._replace(settings=CONTEXT.settings.__class__(label_smoothing=smoothing))
    arch, key = jnp.zeros(1), jax.random.key(1)
    params = jax.jit(ctx.network.init)(key, arch)
    found = mix(Recipe(mixup=1.0), key, jnp.int32(3), images, labels)
    share = float(found.others.share)
    assert 0.01 < share < 0.99
    one_hot = np.eye(3)[np.asarray(labels)]
    targets = (1 - share) * one_hot + share * np.roll(one_hot, 1, axis=0)
    targets = (1 - smoothing) * targets + smoothing / 3
    expected = optax.softmax_cross_entropy(ctx.network.apply(params, arch, found.images), targets)
    assert child.loss(ctx, params, arch, found) == pytest.approx(float(expected.mean()), rel=1e-5)
    alone = Batch(found.images, labels, Others(jnp.roll(labels, 1), jnp.float32(0)))
    plain = Batch(found.images, labels)
    assert child.loss(ctx, params, arch, alone) == child.loss(ctx, params, arch, plain)


def test_what_is_kept_is_the_moving_average_of_all_steps():
    """Written out over the parameters after 0, 1, .. steps of one training."""
    data, arch, key, steps = toy_data(), jnp.zeros(1), jax.random.key(0), 12
    ctx = CONTEXT._replace(recipe=Recipe(ema=0.6))
    progress = child.begin(ctx, arch, key)
    average = np.asarray(progress.vector)
    to = jax.jit(lambda last: child.advance(ctx, data, arch, key, progress, 0, last, steps))
    for last in range(1, steps + 1):
        after = to(jnp.int32(last))
        decay = min(0.6, last / (9 + last))  # at step last - 1, from 0
        average = decay * average + (1 - decay) * np.asarray(after.vector)
    np.testing.assert_allclose(after.average, average, rtol=1e-4, atol=1e-6)
    kept = child.train(ctx, data, arch, key, steps)
    chex.assert_trees_all_close(kept, child.params_of(ctx, arch, after), rtol=1e-4)
    plain = child.train(CONTEXT, data, arch, key, steps)
    assert np.abs(kept["w"] - plain["w"]).max() > 1e-3
    unaveraged = after._replace(average=None)
    chex.assert_trees_all_close(plain, child.params_of(ctx, arch, unaveraged), rtol=1e-4)


@pytest.mark.slow
def test_images_in_chunks_give_the_same_weights():
    ctx = CONTEXT._replace(recipe=Recipe(mixup=0.3, cutmix=1.0, ema=0.9))
    trained = population.Context(ctx, devices.children_mesh(jax.devices()[:1]), keep=True)
    given = (jnp.zeros((1, 1)), jnp.ones(1, bool), jax.random.key(3)[None], jnp.int32(25))
    resident = population.make(trained)(toy_data(), *given)
    chunks = streaming.make(trained, 1000)(Data(*map(np.asarray, toy_data())), *given)
    chex.assert_trees_all_close(resident, chunks, rtol=1e-5)
    plain = population.make(trained._replace(child=CONTEXT))(toy_data(), *given)
    assert np.abs(plain.params["w"] - resident.params["w"]).max() > 1e-3
