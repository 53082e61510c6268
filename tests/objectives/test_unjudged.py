"""Held-out targets of which a metric says the same whatever the network, by objective."""

import numpy as np
import pytest

import fnas_jax
from fnas_jax.core.types import UserError
from fnas_jax.objectives import base

NONE, SOME = np.zeros((4, 3), np.int32), np.eye(4, 3, dtype=np.int32)
SAME, OTHER = np.full((4, 2), 7.5, np.float32), np.arange(8, dtype=np.float32).reshape(4, 2)
EMPTY = np.full((4, 2, 2), 255, np.uint8)
MASKS = np.array([EMPTY[0]] * 3 + [[[0, 1], [255, 255]]], np.uint8)


@pytest.mark.parametrize(
    ("name", "metric", "training", "nothing", "something"),
    [
        *(("multilabel", metric, SOME, NONE, SOME) for metric in ("mAP", "micro_f1", "macro_f1")),
        ("regression", "r2", OTHER, SAME, np.concatenate([SAME, OTHER])),
        *(
            ("segmentation", metric, MASKS, EMPTY, MASKS)
            for metric in ("mean_iou", "pixel_accuracy", "loss")
        ),
    ],
)
def test_a_part_that_judges_nothing_is_refused(name, metric, training, nothing, something):
    objective = base.of(name, metric, training, 2 if name != "multilabel" else 3, False)
    base.check_judged(objective, {"validation": something, "test": something})
    for part in ("validation", "test"):
        with pytest.raises(UserError, match=rf"of the 4 {part} images, so {metric} says nothing"):
            base.check_judged(
                objective, {"validation": something, "test": something, part: nothing}
            )


@pytest.mark.parametrize(
    ("name", "metric", "training", "held_out"),
    [
        ("multilabel", "loss", SOME, NONE),
        ("regression", "mae", OTHER, SAME),
        ("regression", "rmse", OTHER, SAME),
        ("regression", "loss", OTHER, SAME),
        ("classification", "accuracy", np.arange(4) % 2, np.zeros(4, np.int32)),
    ],
)
def test_metrics_that_such_targets_do_judge_are_taken(name, metric, training, held_out):
    outputs = 3 if name == "multilabel" else 2
    base.check_judged(base.of(name, metric, training, outputs, False), {"validation": held_out})


@pytest.mark.parametrize(
    ("name", "metric", "training", "held_out", "shape"),
    [
        ("multilabel", "mAP", SOME, NONE, (4, 3)),
        ("regression", "r2", OTHER, SAME, (4, 2)),
        ("segmentation", "mean_iou", MASKS, EMPTY, (4, 2, 2, 2)),
    ],
)
def test_figures_of_such_targets_are_the_same_of_all_networks(
    name, metric, training, held_out, shape
):
    """Why they are refused: two networks that answer otherwise are told apart by no metric."""
    objective = base.of(name, metric, training, shape[-1], False)
    rng, rows = np.random.default_rng(0), np.arange(4)
    found = set()
    for _ in range(2):
        outputs = rng.normal(size=shape).astype(np.float32)
        state = objective.collect(objective.empty(4), outputs, held_out, rows, np.ones(4, bool))
        found.add(float(objective.figures(state)[metric]))
    assert len(found) == 1


def test_a_search_by_images_without_any_label_is_refused_before_it_begins(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 8), np.uint8)
    labels = np.tile(SOME, (10, 1))
    for part, held_out in {"validation": "val", "test": "test"}.items():
        arrays = {"x_val": images[20:30], "y_val": labels[20:30], "x_test": images[30:]}
        arrays |= {"y_test": labels[30:], f"y_{held_out}": np.zeros((10, 3), np.int32)}
        with pytest.raises(UserError, match=f"no label is there in any of the 10 {part} images"):
            fnas_jax.search(
                *(images[:20], labels[:20]),
                workdir=tmp_path / "run",
                **arrays,
                **{"task.objective": "multilabel"},
            )
    assert not (tmp_path / "run").exists()
