"""Figures of a kept network: how sure the metric of the search is, and where that is not said."""

import numpy as np
import pytest
from sklearn import metrics

from fnas_jax.objectives import base, classification
from fnas_jax.ship import figures


def answers(count, classes=3, seed=0):
    """(outputs [n, C], targets [n]) of which about half are answered rightly."""
    draw = np.random.default_rng(seed)
    targets = draw.integers(0, classes, count)
    outputs = draw.normal(size=(count, classes)).astype(np.float32)
    outputs[np.arange(count), targets] += 0.7
    return outputs, targets


def wilson(share, n, z=1.959964):
    """Wilson 1927, as in every textbook."""
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return middle - half, middle + half


@pytest.mark.parametrize("count", [1, 50, figures.MOST + 1])
def test_a_share_of_images_has_its_interval_whatever_their_number(count):
    found = figures.of(classification.of(3), *answers(count))
    ends = found.interval["low"], found.interval["high"]
    assert ends == pytest.approx(wilson(found.metrics["accuracy"], count), abs=1e-6)
    assert found.interval["method"] == "wilson" and found.no_interval == ""


@pytest.mark.parametrize(
    ("count", "largest", "why"),
    [
        (figures.MOST + 1, figures.LARGEST, "10,001 images, which are more than the 10,000"),
        (40, 119, "120 outputs, which are more than the 119"),
        (1, figures.LARGEST, "one image"),
    ],
)
def test_where_nothing_is_resampled_it_is_said_why(monkeypatch, count, largest, why):
    monkeypatch.setattr(figures, "LARGEST", largest)
    found = figures.of(classification.of(3, "macro_f1"), *answers(count))
    assert found.interval is None and why in found.no_interval


def test_what_is_resampled_has_an_interval_and_no_excuse():
    outputs, targets = answers(60)
    found = figures.of(classification.of(3, "macro_f1"), outputs, targets)
    wanted = metrics.f1_score(targets, outputs.argmax(1), average="macro")
    assert found.metrics["macro_f1"] == pytest.approx(wanted, abs=1e-6)
    assert found.interval["low"] < wanted < found.interval["high"]
    assert found.interval["method"] == "bootstrap of 500" and found.no_interval == ""


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_parts_come_to_the_figures_of_the_whole(metric):
    objective, (outputs, targets) = classification.of(3, metric), answers(50)
    whole = figures.of(objective, outputs, targets)
    cut = [slice(0, 20), slice(20, 40), slice(40, 50)]
    found = figures.in_parts(objective, ((outputs[c], targets[c]) for c in cut), 50)
    assert found.metrics == pytest.approx(whole.metrics, abs=1e-6) and found.table == whole.table
    if metric == "accuracy":
        assert found.interval == whole.interval and found.no_interval == ""
    else:
        assert found.interval is None and "one part at a time" in found.no_interval


@pytest.mark.parametrize("name", ["multilabel", "segmentation", "classification", "regression"])
def test_outputs_come_back_from_scores(name):
    draw = np.random.default_rng(1)
    outputs = draw.normal(0, 2, (6, 4, 4, 3) if name == "segmentation" else (6, 3))
    known = base.Known(3, {"loss": 1.0}, (5.0, -2e6, 0.0), (0.1, 3e5, 1e-6))
    objective = base.module(name).make(
        known._replace(trivial=dict.fromkeys(base.module(name).METRICS, 1.0)),
        base.checked(name, ""),
    )
    again = objective.answer(objective.undo(objective.answer(outputs.astype(np.float32))[1]))
    for found, wanted in zip(again, objective.answer(outputs.astype(np.float32)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
