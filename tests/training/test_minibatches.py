"""Minibatches: every image once in an epoch, and the same ones wherever a training is cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.training import minibatches
from fnas_jax.training.minibatches import Data, Pipeline

COUNT, SIZE = 11, 3
IDENTITY = Pipeline(lambda images: images, minibatches.unchanged)


def batches(pipeline=IDENTITY, size=SIZE):
    """Images that are their own numbers; their labels are ten times as much."""
    images = jnp.arange(COUNT, dtype=jnp.float32).reshape(COUNT, 1, 1, 1)
    labels = 10 * jnp.arange(COUNT, dtype=jnp.int32)
    data = Data(images, labels, images, labels)
    keys = jax.random.split(jax.random.key(0))
    return minibatches.make(data, pipeline, size, *keys)


def seen(found, first, last, epoch_start=0, order=None):
    """[steps, SIZE] images of the steps; checks that labels belong to them."""

    def train_step(step, state, images, labels):
        images = images.reshape(-1)
        return state.at[step].set(jnp.stack([images, labels / 10]))

    blank = jnp.full((12, 2, found.size), -1.0)
    state = minibatches.over_steps(found, train_step, blank, first, last, epoch_start, order)
    images, labels = np.asarray(state[first:last, 0]), np.asarray(state[first:last, 1])
    np.testing.assert_array_equal(images, labels)
    return images


def test_no_image_comes_twice_in_an_epoch_and_epochs_differ():
    found = batches()
    assert found.per_epoch == 3
    epochs = seen(found, 0, 12).reshape(4, 9)
    assert all(len(set(epoch)) == 9 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


@pytest.mark.parametrize("cut", [1, 3, 5, 11])
def test_a_training_that_is_cut_goes_on_as_if_it_had_not_been(cut):
    found = batches()
    order = minibatches.order_of(found, cut // found.per_epoch)
    parts = [seen(found, 0, cut), seen(found, cut, 12, order=order)]
    np.testing.assert_array_equal(np.concatenate(parts), seen(found, 0, 12))


def test_an_epoch_may_begin_at_any_step():
    images = seen(batches(), 4, 10, epoch_start=4)
    assert len(set(images[:3].ravel())) == len(set(images[3:].ravel())) == 9


def test_augmentation_is_other_in_every_step():
    noisy = Pipeline(
        lambda x: 2 * x, lambda key, x, masks=None: (x + jax.random.uniform(key), masks)
    )
    found = batches(noisy)
    order = jnp.arange(COUNT)
    draws = [minibatches.load(found, order, jnp.int32(0), jnp.int32(i))[0] for i in (4, 5, 4)]
    assert (draws[0] != draws[1]).all()
    np.testing.assert_array_equal(draws[0], draws[2])
    noise = draws[0].ravel() - 2 * np.arange(SIZE)
    np.testing.assert_allclose(noise, noise[0], rtol=1e-5)


def test_fewer_images_than_a_batch_are_one():
    found = batches(size=64)
    assert found.size == COUNT and found.per_epoch == 1
    assert sorted(seen(found, 0, 1)[0]) == list(range(COUNT))


def test_labels_that_are_masks_are_augmented_with_their_images():
    def moved(key, images, masks=None):
        return images, None if masks is None else masks + 1

    images = jnp.zeros((COUNT, 2, 3, 1))
    keys = jax.random.split(jax.random.key(0))
    order, zero = jnp.arange(COUNT), jnp.int32(0)
    for labels, added in ((jnp.zeros((COUNT, 2, 3)), 1), (jnp.zeros(COUNT), 0)):
        data = Data(images, labels, images, labels)
        found = minibatches.make(data, Pipeline(lambda x: x, moved), SIZE, *keys)
        batch = minibatches.load(found, order, zero, zero)
        np.testing.assert_array_equal(batch[1], labels[:SIZE] + added)
