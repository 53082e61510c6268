"""Searches for several labels and for values, from arrays to a network that is used elsewhere."""

import csv
import json
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics

import fnas_jax
from fnas_jax import predict, report

SMALL = {
    "space.blocks": 1,
    "space.strides": (2,),
    "space.stem": 16,
    "space.stem_stride": 1,
    "space.head": 32,
    "children.steps": 10,
    "children.batch_size": 16,
    "search.batch": 2,
    "winner.steps": 10,
    "winner.reference": False,
    "winner.finalists": 2,
    "jax.cache_dir": "",
    "log.tensorboard": False,
}
RNG = np.random.default_rng(0)
LABELS = (RNG.random((120, 2)) < 0.4).astype(np.uint8)
# Two bars, each bright where its label is there; values are how bright they are.
BRIGHT = RNG.uniform(0, 150, (120, 2)) * LABELS
IMAGES = RNG.integers(0, 60, (120, 8, 8))
IMAGES[:, :3] += BRIGHT[:, :1, None].astype(int)
IMAGES[:, 5:] += BRIGHT[:, 1:, None].astype(int)
IMAGES = IMAGES.astype(np.uint8)
VALUES = 1000 + 3 * BRIGHT
SCALES = {"mAP": 1, "r2": 1, "mae": 1e-5}


def searched(folder, objective, targets, names, metric="", method="random"):
    return fnas_jax.search(
        *(IMAGES[:90], targets[:90], IMAGES[90:], targets[90:]),
        class_names=names,
        budget=2,
        workdir=folder,
        method=method,
        **{"task.objective": objective, "task.metric": metric},
        **SMALL,
    )


@pytest.mark.parametrize(
    ("method", "objective", "targets", "metric"),
    [
        ("random", "multilabel", LABELS, "mAP"),
        pytest.param("fnas", "regression", VALUES, "r2", marks=pytest.mark.slow),
        pytest.param("fnas", "regression", VALUES * 1e-7, "mae", marks=pytest.mark.slow),
    ],
)
def test_a_search_whose_winner_is_kept_used_exported_and_reported(
    tmp_path, capsys, method, objective, targets, metric
):
    chosen = metric if metric == "mae" else ""  # the others are defaults
    found = searched(tmp_path / "run", objective, targets, ["top", "bottom"], chosen, method)
    test_images, test_targets = IMAGES[90:], targets[90:]
    assert found.content["metric"]["name"] == metric
    assert len(found.content["finalists"]) == 2
    assert all(metric in entry["metrics"] for entry in found.content["finalists"])
    answers, scores = found.model.predict(test_images)
    wanted = (
        metrics.average_precision_score(test_targets, scores)
        if objective == "multilabel"
        else {"r2": metrics.r2_score, "mae": metrics.mean_absolute_error}[metric](
            test_targets, answers
        )
    )
    sign = -1 if metric == "mae" else 1
    for facts in (found.best, found.winner, found.winner["kept"], *found.content["finalists"]):
        assert facts["value"] == sign * facts["accuracy"]
    assert found.winner["kept"]["value"] == pytest.approx(wanted, abs=1e-4 * SCALES[metric])
    kept = found.winner["kept"]
    assert kept["metrics"][metric] == pytest.approx(wanted, abs=1e-4)
    assert found.model.evaluate(test_images, test_targets) == pytest.approx(wanted, abs=1e-4)
    assert found.winner["metrics"][metric] == pytest.approx(wanted, abs=1e-2)
    assert kept["interval"]["low"] <= wanted <= kept["interval"]["high"]
    assert f"final {metric}" in repr(found) and "95% between" in repr(found)
    names = kept["table"]["names"]
    assert names == ["top", "bottom"]

    formats = ["safetensors", "flax", "jax", *["onnx"] * (find_spec("jax2onnx") is not None)]
    found.export(tmp_path / "out", formats, test_images, test_targets)
    card = (tmp_path / "run" / "best" / "README.md").read_text()
    assert f"| {metric} on test images |" in card
    page = report.write(str(tmp_path / "run")).read_text()
    assert "On test images" in page and "bottom" in page

    Image.fromarray(IMAGES[95]).save(tmp_path / "one.png")
    capsys.readouterr()
    code = predict.command([f"--workdir={tmp_path / 'run'}", f"--images={tmp_path / 'one.png'}"])
    assert code == 0
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    digits = {"rtol": 1e-6} if objective == "regression" else {"atol": 1e-6}
    np.testing.assert_allclose([float(row[n]) for n in names], scores[5], **digits)
    record = json.loads((tmp_path / "run" / "best" / "architecture.json").read_text())
    assert record["objective"]["name"] == objective


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "objective", "targets"),
    [
        ("spos", "regression", VALUES),
        ("pgnas", "multilabel", LABELS),
    ],
)
def test_one_network_for_all_architectures_learns_every_kind_of_target(
    tmp_path, method, objective, targets
):
    found = fnas_jax.search(
        *(IMAGES[:90], targets[:90], IMAGES[90:], targets[90:]),
        budget=2,
        workdir=tmp_path,
        method=method,
        **{"task.objective": objective, "oneshot.steps": 40, "oneshot.every": 20},
        **{"oneshot.finetune": 10},
        **SMALL,
    )
    lines = map(json.loads, (tmp_path / "metrics.jsonl").open())
    training = [line for line in lines if line.get("stage") == "prepare"]
    assert training[-1]["nll"] < training[0]["nll"]
    assert found.counts["failed"] == 0
    metric = "mAP" if objective == "multilabel" else "r2"
    wanted = found.model.evaluate(IMAGES[90:], targets[90:])
    assert found.winner["kept"]["metrics"][metric] == pytest.approx(wanted, abs=1e-4)
    tuned = found.winner["finetuned"]
    assert tuned["accuracy"] is not None and tuned["measures"].startswith(f"{metric} on test")


def test_labels_without_their_objective_are_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(fnas_jax.UserError, match=r"task.objective=multilabel"):
        searched(tmp_path / "a", "classification", LABELS, None)
    with pytest.raises(fnas_jax.UserError, match=r"'f1'.*regression it may be r2, mae, rmse, loss"):
        fnas_jax.search(
            *(IMAGES, VALUES),
            workdir=tmp_path / "b",
            **{"task.objective": "regression", "task.metric": "f1"},
        )
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()
