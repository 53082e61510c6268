"""The report of runs that are finished, that are not, and that are none."""

import contextlib
import json

import pytest

from fnas_jax import report
from fnas_jax.core import identity
from fnas_jax.core.config import default
from fnas_jax.core.logging import write_json
from fnas_jax.knowledge import history
from fnas_jax.spaces import mnas


@pytest.fixture
def folder(tmp_path):
    config = default()
    config.method.name = "evolution"
    write_json(tmp_path / "config.json", config.to_dict())
    lines = [
        {"step": i, "iteration": i, "trained": 4 * i, "best_accuracy": 0.5 + i / 10, "accuracy": a}
        for i, a in enumerate((0.4, None, 0.6))
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 3, "itera')  # torn by a kill
    return tmp_path


def result():
    figures = {"accuracy": 0.7, "mflops": 1.25, "params_m": 0.1, "latency_ms": None}
    best = {"arch": [0], "description": {"text": "a<b>"}, "reward": 0.7, **figures}
    return {
        "best": best,
        "winner": figures | {"reference": figures | {"accuracy": 0.65}},
        "counts": {"trained": 8, "failed": 0},
        "seconds": {"total": 12.0},
        "seed": 3,
        "resumed": 0,
    }


def test_a_finished_run_has_winner_counts_and_curve(folder):
    write_json(folder / "result.json", result())
    page = report.write(str(folder)).read_text()
    for text in ("reference network", "65.00%", "1.25", "trained", "best_accuracy", "a&lt;b&gt;"):
        assert text in page
    assert "<b>" not in page
    assert "Posterior" not in page  # the method has none


def test_both_readings_of_the_finalists_stand_in_the_report(folder):
    found = result()
    entries = [
        {"arch": [1], "text": "b", "first_accuracy": 0.93, "first_reward": 0.92},
        {"arch": [0], "text": "a<b>", "first_accuracy": 0.91, "first_reward": 0.90},
    ]
    second = ({"accuracy": None, "reward": None}, {"accuracy": 0.7, "reward": 0.69})
    listed = [entry | more for entry, more in zip(entries, second, strict=True)]
    found["best"] |= {"first_accuracy": 0.91, "first_reward": 0.90}
    write_json(folder / "result.json", found | {"finalists": listed})
    page = report.write(str(folder)).read_text()
    assert "Finalists, trained again on equal terms" in page
    row = "<td>2</td><td>91.00%</td><td>70.00%</td><td>0.9</td><td>0.69</td><td>winner</td>"
    assert row in page and page.count("<td>winner</td>") == 1
    assert "<td>1</td><td>93.00%</td><td>unknown</td><td>0.92</td><td></td><td></td>" in page
    assert "<td>in the search</td><td>91.00%</td>" in page
    assert "<td>as a finalist</td><td>70.00%</td>" in page


def test_the_store_is_told_by_task_protocol_and_space(folder):
    """Rows of two spaces of one name, of two protocols, and of an earlier version."""
    with contextlib.closing(history.open_(folder / "knowledge")) as connection:
        for number, (space, protocol) in enumerate(
            [(mnas.make(2), {"steps": 150, "lr": 0.1}), (mnas.make(3), {"steps": 300, "lr": 0.1})]
        ):
            text = identity.text({"children": protocol})
            run = history.Run(str(number), "mnas", "images/<x>", 1, 0, {}, space.identity, text)
            rows = [history.Row(0, [0] * len(space.names), True, True, *[0.5] * 6)]
            history.record(connection, run, 0, rows)
        history.record(connection, history.Run("2", "mnas", "images/<x>", 1, 0, {}), 0, rows)
    page = report.write(str(folder)).read_text()
    assert "images/&lt;x&gt;" in page and "children.steps=150" in page
    assert "children.lr" not in page  # all have the same
    assert "not written down" in page and f"mnas {mnas.make(3).key}" in page


def test_a_store_that_cannot_be_read_is_told(folder):
    (folder / "knowledge").mkdir()
    (folder / "knowledge" / "history.sqlite").write_text("not a database " * 1000)
    assert "It cannot be read" in report.write(str(folder)).read_text()


def test_a_report_makes_no_store(folder):
    assert "Knowledge store" not in report.write(str(folder)).read_text()
    assert not (folder / "knowledge").exists()


def test_a_run_without_result_says_so(folder, capsys):
    assert report.command([f"--workdir={folder}"]) == 0
    page = (folder / "report.html").read_text()
    assert "not finished" in page and "<polyline" in page


def test_a_search_that_found_nothing_has_a_report(folder):
    write_json(folder / "result.json", result() | {"best": None, "winner": None})
    assert "No architecture gave a result" in report.write(str(folder)).read_text()


def test_a_folder_without_run_is_told(tmp_path, capsys):
    assert report.command([f"--workdir={tmp_path}"]) == 2
    assert "no config.json" in capsys.readouterr().err
    assert report.command(["--help"]) == 0
