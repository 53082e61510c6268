"""A search for masks end to end: the winner is kept, predicts masks, is judged and exported."""

import numpy as np
import pytest

import fnas_jax
from fnas_jax import export
from fnas_jax.core.types import UserError
from tests.tasks.test_segmentation import SIDE, SPACE


def boxes(count, seed):
    """Bright boxes of two kinds on dark images: their pixels are classes 1 and 2."""
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 40, (count, SIDE, SIDE, 1)).astype(np.uint8)
    masks = np.zeros((count, SIDE, SIDE), np.uint8)
    for image, mask in zip(images, masks, strict=True):
        kind, (top, left) = draw.integers(1, 3), draw.integers(0, SIDE - 5, 2)
        box = np.s_[top : top + 5, left : left + 5]
        image[box], mask[box] = 100 * kind, kind
    return images, masks


def test_a_search_for_masks_from_arrays_to_exports(tmp_path, capsys):
    settings = {f"space.{name}": value for name, value in SPACE.items()} | {
        "task.objective": "segmentation",
        "children.steps": 20,
        "children.batch_size": 16,
        "akp.rounds": 1,
        "search.batch": 2,
        "winner.steps": 60,
        "winner.reference": False,
        "winner.cutmix": 0.5,
    }
    images, masks = boxes(90, 0)
    names = ["nothing", "dim", "bright"]
    found = fnas_jax.search(
        images,
        masks,
        workdir=tmp_path / "run",
        budget=4,
        method="fnas",
        class_names=names,
        **settings,
    )
    model = fnas_jax.load(tmp_path / "run")
    new, truth = boxes(7, 1)
    answers, probabilities = model.predict(new)
    assert answers.shape == (7, SIDE, SIDE) and answers.dtype == np.int32
    assert probabilities.shape == (7, SIDE, SIDE, 3)
    assert model.evaluate(new, truth) > 0.6 and model.class_names == tuple(names)
    assert set(model.figures(new, truth)) == {"mean_iou", "pixel_accuracy", "loss"}
    assert found.best["accuracy"] > 0.3
    assert export.export(tmp_path / "run", tmp_path / "out", ["flax", "jax"], new, truth)
    assert "differs" not in capsys.readouterr().out


def test_labels_of_another_kind_are_refused():
    images, _ = boxes(30, 0)
    with pytest.raises(UserError, match="needs the class of each pixel"):
        fnas_jax.search(images, np.zeros(30, int), budget=4, **{"task.objective": "segmentation"})
