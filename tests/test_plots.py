"""Plots show what the search knows, by numbers that matplotlib was given."""

import importlib.util

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt

import fnas_jax
from fnas_jax import plots
from fnas_jax.core.measure import Measure

matplotlib.use("Agg")  # no windows
SPACE = fnas_jax.categorical({"depth": [1, 2, 3, 4], "wide": [1, 2, 3]})


def loss(decisions):
    if decisions["depth"] == 4:
        raise ValueError("too deep")
    return {"loss": 1 / decisions["depth"], "mflops": decisions["depth"] * decisions["wide"]}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    task = fnas_jax.from_function(SPACE, loss, metric="loss", direction="minimize")
    folder = tmp_path_factory.mktemp("plots")
    options = {"log.tensorboard": False, "search.batch": 4}
    return fnas_jax.search(task=task, method="random", budget=12, workdir=folder, **options)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_the_history_has_every_trained_network_and_the_best_so_far(found):
    ax = found.plot_history()
    points, best = ax.lines
    values = [t["value"] for t in plots_of(found)]
    numbers = np.flatnonzero(np.isfinite(values)) + 1
    np.testing.assert_array_equal(points.get_xdata(), numbers)
    np.testing.assert_array_equal(points.get_ydata(), np.array(values)[numbers - 1])
    expected = np.minimum.accumulate(np.array(values)[numbers - 1])
    np.testing.assert_array_equal(best.get_ydata(), expected)
    assert ax.get_ylabel() == "loss" and ax.get_xlabel() == "trained networks"
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["trained network (3 failed: no point)", "best so far"]


def plots_of(found):
    records = [t for t in found._records if t["trained"]]
    return [t | {"value": t["value"] if t["ok"] else np.nan} for t in records]


def test_the_front_is_what_no_other_beats_at_its_cost(found):
    _, axes = plt.subplots(1, 2)
    ax = found.plot_pareto("mflops", ax=axes[1])
    assert ax is axes[1] and len(plt.get_fignums()) == 1
    points, front = ax.lines
    assert len(points.get_xdata()) == 9
    # Of the depth d and width w, the loss is 1 / d at d w: w of 1 is best.
    np.testing.assert_array_equal(front.get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(front.get_ydata(), [1, 1 / 2, 1 / 3])
    assert ax.get_xlabel() == "mflops (million multiply-adds)"


def test_the_best_of_a_reward_with_a_cost_is_the_search_s(found):
    trial = {"trained": True, "ok": True}
    records = [trial | {"value": v, "reward": r} for v, r in ((0.5, 0.5), (0.9, 0.2), (0.6, 0.55))]
    ax = plots.history([*records, {"trained": False}], Measure())
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), [0.5, 0.5, 0.6])
    assert ax.get_ylabel() == "validation accuracy"


def test_networks_of_unknown_cost_are_counted():
    known = {"trained": True, "ok": True, "value": 0.5, "reward": 0.5, "latency_ms": None}
    ax = plots.front([known, known, known | {"latency_ms": 2.0}], Measure(), "latency_ms")
    assert len(ax.lines[0].get_xdata()) == 1
    label = ax.get_legend().get_texts()[0].get_text()
    assert label == "trained network (2 of unknown latency_ms: no point)"


def test_wrong_costs_and_a_missing_package_are_one_sentence(found, monkeypatch):
    for cost, message in {
        "mflop": "allowed are latency_ms, mflops, params_m; did you mean 'mflops'",
        "latency_ms": "does not know latency_ms of its networks; it knows mflops",
    }.items():
        with pytest.raises(fnas_jax.UserError, match=message):
            found.plot_pareto(cost)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for plot in (found.plot_history, found.plot_pareto):
        with pytest.raises(fnas_jax.UserError, match=r"pip install fnas-jax\[plot\]"):
            plot()


def test_a_search_without_any_result_has_an_empty_plot(tmp_path):
    task = fnas_jax.from_function(SPACE, lambda d: float("nan"), name="nothing")
    options = {"log.tensorboard": False, "search.batch": 4}
    found = fnas_jax.search(task=task, method="random", budget=4, workdir=tmp_path, **options)
    assert len(found.plot_history().lines) == 1
    with pytest.raises(fnas_jax.UserError, match=r"does not know mflops of its networks$"):
        found.plot_pareto()
