"""Training times of a table: a search adds them up, ends by them, and its figures show them."""

import itertools
import json
import types

import numpy as np
import pytest

import fnas_jax
from fnas_jax import plots, report, simulated, summary
from fnas_jax.core.config import default
from fnas_jax.knowledge.history import Row
from fnas_jax.spaces import macro
from fnas_jax.tasks.base import Task
from tests.test_end_to_end import timeless
from tests.test_more_budget import interrupted, search

BLANK = dict.fromkeys(("accuracy", "reward", "latency_ms", "mflops", "params_m"), np.nan)
TIMES = {"task.time": "gpu_s"}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """64 networks, each of other seconds; the training of every ninth failed."""
    path = tmp_path_factory.mktemp("table") / "table.csv"
    rng = np.random.default_rng(0)
    rows = [
        f"{a},{b},{c},{'nan' if i % 9 == 4 else rng.random():.4},{100 + i}.5"
        for i, (a, b, c) in enumerate(itertools.product(range(4), repeat=3))
    ]
    path.write_text("\n".join(["decision_0,decision_1,decision_2,acc,gpu_s", *rows]))
    return path


def seconds_of(trial):
    a, b, c = trial["arch"]
    return 100.5 + 16 * a + 4 * b + c


def records(found):
    return json.loads(found.trials.to_json(orient="records"))


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(table, tmp_path_factory):
    return search(tmp_path_factory.mktemp("run") / "a", table, 20, "random", **TIMES)


def test_history_metrics_and_result_have_the_seconds(finished, capsys):
    trials = records(finished)
    assert [trial["seconds"] for trial in trials] == list(map(seconds_of, trials))
    assert any(not trial["ok"] for trial in trials)  # which counts, too
    spent = np.cumsum([trial["seconds"] for trial in trials])
    logged = [(line["trained"], line["simulated_seconds"]) for line in lines(finished.workdir)]
    assert logged == [(n, spent[n - 1]) for n, _ in logged] and len(logged) > 3
    best = next(i for i, t in enumerate(trials) if t["arch"] == finished.best["arch"])
    assert finished.simulated_seconds == {"total": spent[-1], "to_best": spent[best]}
    assert f"training took {spent[-1]:,.0f} s by the table, {spent[best]:,.0f} s" in repr(finished)


def test_figures_are_by_simulated_time(finished):
    spent = np.cumsum([trial["seconds"] for trial in records(finished)])
    figure = plots.incumbent(finished, x="simulated_seconds")
    assert figure.layout.xaxis.title.text == (
        "minutes of simulated training, one network after another"
    )
    (star,) = (trace for trace in figure.data if trace.name == "best")
    assert star.x[0] * 60 == pytest.approx(finished.simulated_seconds["to_best"])
    every = finished.plot_history(x="simulated_seconds")
    shown = np.concatenate([t.x for t in every.data if t.name in ("measured", "failed")])
    np.testing.assert_allclose(np.sort(shown) * 60, spent)
    page = report.write(str(finished.workdir)).read_text()
    assert "The best so far, by simulated time" in page and "Simulated training" in page
    assert "simulated total, s" in page


def test_without_times_nothing_is_told_and_the_figure_says_how_there_could_be(table, tmp_path):
    found = search(tmp_path / "a", table, 6, "random", **{"task.metric": "acc"})
    assert found.simulated_seconds is None and "training took" not in repr(found)
    assert not any("simulated_seconds" in line for line in lines(found.workdir))
    for figure in (plots.incumbent, plots.evaluations):
        with pytest.raises(fnas_jax.UserError, match=r"no training times.*task.time=COLUMN"):
            figure(found, x="simulated_seconds")
    with pytest.raises(fnas_jax.UserError, match="no training times"):
        plots.incumbent([found, found], x="simulated_seconds")
    page = report.write(str(found.workdir)).read_text()
    assert "simulated" not in page.replace("search.simulated_seconds", "")
    with pytest.raises(
        fnas_jax.UserError, match="simulated_seconds is 5, and tabular/table has no"
    ):
        search(
            tmp_path / "b", table, 6, "random", **{"task.metric": "acc"},
            **{"search.simulated_seconds": 5.0},
        )  # fmt: skip
    assert not (tmp_path / "b").exists()


def test_an_interrupted_search_goes_on_counting(finished, table, tmp_path, monkeypatch):
    folder = tmp_path / "a"
    interrupted(monkeypatch, 3, folder, table, 20, "random", **TIMES)
    unfinished = plots.incumbent(folder, x="simulated_seconds")
    assert len(unfinished.data) and "Simulated training" in report.write(str(folder)).read_text()
    found = search(folder, table, 20, "random", **TIMES)
    assert timeless(found.content) == timeless(finished.content)
    told = [[line["simulated_seconds"] for line in lines(w)] for w in (folder, finished.workdir)]
    assert told[0] == told[1]


def test_a_search_does_not_go_on_by_other_times(table, tmp_path, monkeypatch):
    """Of which its sums would be made, beside those that it began with."""
    folder, own = tmp_path / "a", tmp_path / "table.csv"
    lines = table.read_text().splitlines()
    header = lines[0].replace("gpu_s", "train_seconds")

    def write(head, change=lambda text: text):
        own.write_text("\n".join([head, *map(change, lines[1:])]))

    def given(**keys):
        return search(folder, own, 20, "random", **{"task.metric": "acc"}, **keys)

    write(header)
    interrupted(monkeypatch, 3, folder, own, 20, "random", **{"task.metric": "acc"})
    refused = r"was begun on other training times of the table, or none, under the same names"
    write(header, lambda line: line.replace(",100.5", ",99.5"))
    with pytest.raises(fnas_jax.UserError, match=refused):
        given()
    write(header.replace("train_seconds", "gpu_s"))  # which nobody asks for
    with pytest.raises(fnas_jax.UserError, match=refused):
        given()
    with pytest.raises(fnas_jax.UserError, match=r"task.time \( there, gpu_s now\)"):
        given(**TIMES)
    lines[1:] = lines[:0:-1]  # rows in another order are the same
    write(header)
    assert given().simulated_seconds["total"] > 0
    for name in ("result.json", "run.json"):  # by the checkpoint
        (folder / name).unlink()
    write(header, lambda line: line.replace(",100.5", ",99.5"))
    with pytest.raises(fnas_jax.UserError, match=refused):
        given()


def test_a_search_ends_when_its_simulated_time_is_spent_and_goes_on_with_more(
    finished, table, tmp_path, capsys
):
    folder = tmp_path / "a"

    def until(seconds):
        return search(folder, table, 20, "random", **TIMES, **{"search.simulated_seconds": seconds})

    first = until(1000.0)
    spent = [line["simulated_seconds"] for line in lines(folder)]
    assert spent[-1] == first.simulated_seconds["total"] and spent[-2] < 1000 <= spent[-1]
    said = f"simulated_seconds is 1000: the search ends here, after {spent[-1]:g} s of training"
    assert said in capsys.readouterr().err
    with pytest.raises(fnas_jax.UserError, match=r"is 500, .* has spent .* s of training already"):
        until(500.0)
    assert until(1500.0).simulated_seconds["total"] >= 1500
    assert timeless(until(0.0).content) == timeless(finished.content)


def rows_of(archs, seconds, trained=None):
    trained = np.ones(len(archs), bool) if trained is None else np.asarray(trained)
    return types.SimpleNamespace(
        decisions=np.asarray(archs), seconds=np.asarray(seconds, float), trained=trained
    )


def test_the_winner_is_found_in_any_of_its_forms_and_predictions_take_nothing():
    space = macro.make()
    archs = [space.parse(text) for text in ("00000000", "22212220", "22212202", "11111111")]
    task = types.SimpleNamespace(simulated=True, space=space)
    rows = rows_of(archs[:2] + archs[3:], [1, np.nan, 4], [True, False, True])
    assert simulated.result(task, rows, archs[2]) == {"total": 5, "to_best": None}
    rows = rows_of(archs, [1, 2, np.nan, 4], [True, True, False, True])
    assert simulated.result(task, rows, archs[2]) == {"total": 7, "to_best": 3}
    assert simulated.result(task, rows_of(archs[:0], []), None) == {"total": 0, "to_best": None}
    assert simulated.result(Task("t", space, None, None), rows, archs[2]) is None


def test_rows_of_an_iteration_are_added():
    rows = [Row(i, [0], i != 1, True, **BLANK, seconds=s) for i, s in enumerate((2, 3, np.nan, 4))]
    assert simulated.after(10.0, rows) == 16 and simulated.after(None, rows) is None


@pytest.mark.parametrize(
    ("limit", "spent", "over"),
    [(0.0, 5.0, False), (5.0, 4.9, False), (5.0, 5.0, True), (5.0, None, False)],
)
def test_the_budget_of_simulated_time(limit, spent, over):
    config = default().search
    config.simulated_seconds = limit
    assert simulated.over(config, spent) is over and bool(simulated.why(config, spent)) is over


def test_results_of_before_are_summed_up_without_it(finished):
    before = {k: v for k, v in finished.content.items() if k != simulated.NAME}
    assert "training took" not in summary.summary(before, "w")
