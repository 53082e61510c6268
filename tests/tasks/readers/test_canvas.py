"""Canvases of digits: what their targets say is on them."""

import numpy as np
import pytest

from fnas_jax.core.types import UserError
from fnas_jax.tasks import data
from fnas_jax.tasks.readers import canvas

pytest.importorskip("mlxtend")


@pytest.fixture(scope="module")
def masks():
    return canvas.read_masks(0)


@pytest.fixture(scope="module")
def position():
    return canvas.read_position(0)


def test_labels_and_masks_are_of_the_same_canvases_and_agree(masks):
    labels = canvas.read_labels(0)
    assert labels.objective == "multilabel" and masks.objective == "segmentation"
    assert masks.class_names == ("background", *"0123456789")
    for part in ("train", "val", "test"):
        of_labels, of_masks = getattr(labels, part), getattr(masks, part)
        np.testing.assert_array_equal(of_labels.images, of_masks.images)
        assert of_masks.labels.dtype == np.uint8 and of_labels.labels.dtype == np.int32
        there = [np.isin(np.arange(1, 11), mask) for mask in of_masks.labels]
        np.testing.assert_array_equal(of_labels.labels, there)
        assert of_labels.labels.any(1).all()
        ink = of_masks.images[..., 0] >= 64
        np.testing.assert_array_equal(of_masks.labels > 0, ink)
    counts = labels.train.labels.mean(0)
    assert ((counts > 0.15) & (counts < 0.35)).all()
    assert len(labels.train.images) + len(labels.val.images) + len(labels.test.images) == 3000


def test_no_digit_is_in_two_parts(position):
    """Crops of the digits themselves, by the cells that they stand in."""
    seen = {}
    for part in ("train", "val", "test"):
        low, high = canvas._BOUNDS[part]
        seen[part] = set(range(low, high))
        assert len(set(getattr(position, part).ids)) == canvas.COUNTS[part]
    assert not seen["train"] & seen["val"] and not (seen["train"] | seen["val"]) & seen["test"]
    assert seen["train"] | seen["val"] | seen["test"] == set(range(500))


def test_positions_are_where_the_ink_is(position):
    part = position.train
    assert part.labels.shape == (2000, 3) and part.labels.dtype == np.float32
    weight = part.images[..., 0] / part.images.sum((1, 2, 3), dtype=np.float64)[:, None, None]
    places = np.arange(canvas.SIDE)
    middle = np.stack([(weight.sum(1) * places).sum(1), (weight.sum(2) * places).sum(1)], -1)
    # MNIST's digits have their centre of mass in the middle.
    np.testing.assert_allclose(middle, part.labels[:, :2], atol=1.1)
    assert np.abs(part.labels[:, 2]).max() <= 45 and part.labels[:, 2].std() > 20


def test_they_are_always_the_same_and_masks_are_resized_by_the_nearest_pixel(masks):
    first, again = masks.test, canvas.read_masks(0).test
    np.testing.assert_array_equal(first.labels, again.labels)
    half = canvas.read_masks(20).test
    assert half.images.shape[1:] == (20, 20, 1) and half.ids == first.ids
    np.testing.assert_array_equal(half.labels, first.labels[:, 1::2, 1::2])


def test_they_are_image_sets_by_name():
    found = data.load("canvas_position", objective="regression")
    assert found.class_names == ("x", "y", "angle") and len(found.test_labels) == 500
    with pytest.raises(UserError, match=r"canvas_labels has labels for task.objective=multilabel"):
        data.load("canvas_labels")
