"""What the benchmarks that train children make of their measurements: records over seeds."""

import numpy as np
import pytest

from experiments.benchmarks import children_throughput, image_search, pool_convergence


def test_image_searches_are_summed_up_over_seeds():
    search = image_search.Search(
        method="fnas",
        seed=0,
        arch=np.zeros(3, int),
        found=0.9,
        proposals=20,
        trained=5,
        steps=50,
        coverage=np.nan,
        tau=0.5,
        seconds=3.0,
    )
    searches = [search, search._replace(seed=1, trained=10, steps=100)]
    found = image_search.figures("images/digits", "fnas", searches, [0.8, 0.9])
    by = {r["metric"]: r for r in found}
    assert by["test_accuracy"]["value"] == pytest.approx(0.85)
    assert (by["test_accuracy"]["low"], by["test_accuracy"]["high"]) == (0.8, 0.9)
    assert by["trained_share"]["value"] == pytest.approx(0.375)
    assert by["steps"]["n"] == 2
    assert "coverage" not in by  # no search had a critic


def curves(gain):
    scratch = np.array([0.5, 0.6, 0.7])
    inherited = np.stack([scratch + gain * np.array([1, 1, -1])] * 4)
    return pool_convergence.Curves(scratch, inherited, scratch - 0.1, scratch, 0.75)


def test_the_pool_is_judged_by_all_architectures_and_its_span_is_that_of_the_seeds():
    found = pool_convergence.figures("mnist5k", [curves(0.1), curves(-0.1)])
    by = {(r["method"], r["metric"]): r for r in found}
    ratio = by["inherited", "steps_ratio"]
    # Two, then one of three architectures are as good after a quarter of the steps.
    assert (ratio["value"], ratio["low"], ratio["high"], ratio["n"]) == (0.25, 0.25, None, 2)
    gain = by["inherited", "points_after_quarter"]
    assert gain["value"] == pytest.approx(0.0, abs=1e-9)
    assert (gain["low"], gain["high"]) == pytest.approx((-10 / 3, 10 / 3))
    assert by["scratch", "kendall_tau"]["value"] == pytest.approx(1.0)
    assert by["inherited", "hit_ratio"]["value"] == 0.75


def test_without_long_training_there_is_no_ranking_to_compare_with():
    found = pool_convergence.figures("transfer", [curves(0.1)._replace(long=np.full(3, np.nan))])
    assert "kendall_tau" not in {r["metric"] for r in found}


def test_throughput_is_of_all_children_and_its_spans_are_those_of_the_children():
    answer = {
        "seconds": 30.0,
        "compile_s": 10.0,
        "accuracy": [0.8, 0.9],
        "step_ms": [5.0, 7.0],
        "peak_mib": 100.0,
    }
    found = children_throughput.summary({"ours": [answer, answer], "warm": [answer], "torch": []})
    by = {(r["method"], r["metric"]): r for r in found}
    assert by["ours", "children_per_minute"]["value"] == 4
    assert by["ours", "children_per_minute_warm"]["value"] == 4
    assert by["ours", "children_per_minute"]["low"] is None
    step = by["ours", "step_ms"]
    assert (step["value"], step["low"], step["high"], step["n"]) == (6, 5, 7, 4)
    assert "torch" not in {r["method"] for r in found}
