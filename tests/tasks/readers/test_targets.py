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
