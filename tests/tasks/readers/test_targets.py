"""Labels by objective: what each takes, and which one would take what another refuses."""

import numpy as np
import pytest

from fnas_jax.core.types import UserError
from fnas_jax.tasks import data
from fnas_jax.tasks.readers import targets

IMAGES = np.random.default_rng(0).integers(0, 255, (40, 6, 6), np.uint8)
MASKS = np.zeros((40, 2, 2), np.uint8)
LABELS = (np.random.default_rng(1).random((40, 3)) < 0.4).astype(np.uint8)
VALUES = np.random.default_rng(2).normal(size=(40, 2))


def load(labels, objective, **more):
    arrays = {"x_train": IMAGES, "y_train": labels, **more}
    return data.load(data.name_of(arrays), arrays=arrays, objective=objective)


@pytest.mark.parametrize("dtype", [bool, np.float64, np.uint8])
def test_several_labels_keep_their_images_and_names(dtype):
    names = np.array(["cat", "dog", "owl"])
    found = load(LABELS.astype(dtype), "multilabel", class_names=names)
    assert found.class_names == tuple(names) and found.num_classes == 3
    assert found.objective == "multilabel" and found.train_labels.dtype == np.int32
    for part in ("train", "val", "test"):
        images, labels = (getattr(found, f"{part}_{kind}") for kind in ("images", "labels"))
        for image, own in zip(images[..., 0], labels, strict=True):
            row = int(np.flatnonzero((image == IMAGES).all((1, 2)))[0])
            np.testing.assert_array_equal(own, LABELS[row])
    groups = data.groups(found)
    assert all(found.train_labels[rows, i].all() for i, rows in enumerate(groups))


def test_values_of_one_column_or_several():
    assert load(VALUES[:, 0], "regression").train_labels.shape[1:] == (1,)
    found = load(VALUES, "regression", class_names=np.array(["x", "y"]))
    assert found.train_labels.dtype == np.float32 and found.class_names == ("x", "y")
    assert len(found.train_labels) + len(found.val_labels) + len(found.test_labels) == 40
    assert [len(rows) for rows in data.groups(found)] == [len(found.train_labels)]


def test_values_stay_what_they_are_and_what_float32_would_lose_is_refused():
    """Seconds since 1970 of 200 images: float32 has three of them."""
    seconds = 1.7e9 + np.arange(200)
    found, _ = targets.read("regression", [seconds], "x")
    np.testing.assert_array_equal(found[0][:, 0], seconds)
    images = np.random.default_rng(0).integers(0, 255, (200, 4, 4), np.uint8)
    both = np.stack([np.arange(200.0), seconds], 1)
    arrays = {"x_train": images, "y_train": both}
    told = r"Value 1 of .* has the mean 1\.7e\+09 and the deviation .* steps of 128 only: subtract"
    with pytest.raises(UserError, match=told):
        data.load(data.name_of(arrays), arrays=arrays, objective="regression")
    arrays = {"x_train": images, "y_train": both - [0, seconds.mean()]}
    data.load(data.name_of(arrays), arrays=arrays, objective="regression")


@pytest.mark.parametrize(
    ("values", "lost"),
    [
        (1e5 + np.arange(30.0), False),  # steps of 1/128, a deviation of 9
        (1e5 + np.arange(30.0) / 30, True),  # of 0.3
        (np.arange(30.0) * 1e-50, True),  # smaller than all of float32
        (np.arange(30.0) * 1e-30, False),
        (np.full(30, 1e9), False),  # the same in all: told by the objective
    ],
)
def test_values_need_a_thousand_steps_of_float32_in_a_deviation(values, lost):
    single = values.astype(np.float32).astype(np.float64)
    if lost:
        with pytest.raises(UserError, match=r"in steps of .* only"):
            targets.check_float32(values[:, None], "x")
        assert np.abs(single - values).max() > 1e-4 * values.std()
    else:
        targets.check_float32(values[:, None], "x")
        assert np.abs(single - values).max() <= 1e-3 * values.std()


@pytest.mark.parametrize(
    ("labels", "objective", "message"),
    [
        (VALUES[:, 0], "classification", r"fractions \(e.g. 0.189.*task.objective=regression"),
        (VALUES, "classification", r"shape \[40, 2\].*task.objective=regression takes several val"),
        (MASKS, "classification", r"shape \[40, 2, 2\].*task.objective=segmentation takes masks"),
        (LABELS, "classification", r"shape \[40, 3\].*=multilabel takes several labels"),
        (LABELS[:, 0], "multilabel", r"shape \[40\].*task.objective=classification takes one"),
        (VALUES, "multilabel", r"not all 0 or 1.*task.objective=regression takes values"),
        (np.full(40, np.nan), "regression", "row 0 .* is not finite"),
        (np.array([1.0, -1e39]), "regression", r"row 1 of x is -1e\+39, and float32.*larger unit"),
        (np.array(["a"] * 40), "regression", "needs numbers"),
        (LABELS, "segmentation", r"shape \[40, 3\].*segmentation needs the class of each pixel"),
    ],
)
def test_labels_of_another_objective_are_refused_with_its_name(labels, objective, message):
    with pytest.raises(UserError, match=message):
        targets.read(objective, [labels], "x")


def test_names_have_to_be_one_a_column():
    with pytest.raises(UserError, match="must be 3 texts, one per column"):
        load(LABELS, "multilabel", class_names=np.array(["a", "b", "c", "d"]))


def test_a_set_whose_labels_are_classes_is_refused_for_another_objective():
    message = "digits has labels for task.objective=classification, and task.objective is 'regr"
    with pytest.raises(UserError, match=message):
        data.load("digits", objective="regression")
