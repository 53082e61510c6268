"""How far a search is, as a screen and as a line of several."""

import json
import math
import os
import shutil
import time
from types import MappingProxyType

import pytest

from fnas_jax import loop, registry, simulated, standing, status, trials
from fnas_jax.core import config as config_lib
from fnas_jax.core import pace, signals, stages, workdir
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import history
from fnas_jax.plots import data
from fnas_jax.standing import Status
from tests import test_loop

NOW = 1_000_000.0
LINE = {
    "iteration": 5,
    "trained": 20,
    "predicted": 12,
    "proposed": 32,
    "failed": 5,
    "best_accuracy": 0.75,
    "best_reward": 0.5,
    "seconds/total": 100.0,
    "pool/entries": 30.0,
    "pool/mib": 2.0,
    "pool/hits": 1.0,
    "pool/exact": 0.25,
    "mae": 0.0125,
    "coverage": 0.75,
    "tau": None,
    "foreign_rows": 0.0,
}


def found(**changes):
    keys = {"search.budget": 40, "method.name": "fnas", "task.name": "images/digits"}
    config = config_lib.nest(
        config_lib.flatten(config_lib.default()) | keys | changes.pop("keys", {})
    )
    usual = {"line": MappingProxyType(LINE), "seconds_each": 4.0, "left": 80.0, "best": "net"}
    return Status("w", **{"running": False, "live": None, "config": config} | usual | changes)


def live(**changes):
    usual = {"pid": 7, "host": "h", "stage": "search", "since": NOW - 60, "at": NOW - 2}
    return usual | changes


def rows(text):
    head, *lines = text.splitlines()
    return head, {line[2:14].strip(): line[14:] for line in lines}


def test_the_screen_of_a_search_that_runs():
    seconds = {"search.seconds": 1000.0, "search.winner_share": 0.5}
    running = live(label="fnas", done=20, total=40, left=72.0)
    text = status.screen(found(running=True, live=running, keys=seconds, checkpoint=(6, 65.0)), NOW)
    head, said = rows(text)
    assert head == "w: fnas on images/digits"
    assert said == {
        "state": "search for 1:00",
        "process": "7 on h",
        "best": "accuracy 75.00%, reward 0.5000",
        "": "net",
        "done": "20 of 40 evaluations, 12 predicted, 32 proposed, iteration 5",
        "rate": "15 evaluations a minute, 4 s each",
        "time left": "1:10 by evaluations, 6:38 by search.seconds",
        "failures": "5 of 20 (25%)",
        "pool": "30 blocks, 2 MiB; 100% of blocks found in it, 25% the very same",
        "critic": "mean error 0.0125 in rewards, 75% within its uncertainty",
        "checkpoint": "6, 1:05 ago",
    }


def test_simulated_seconds_are_told_of_how_many():
    """By the newest line, and of a finished search by its result."""
    spent = MappingProxyType(LINE | {simulated.NAME: 5400.0})
    assert rows(status.screen(found(line=spent), NOW))[1]["simulated"] == (
        "1:30:00 of training by the table"
    )
    limit = {"search.simulated_seconds": 7200.0}
    result = {"best": None, "winner": None, simulated.NAME: {"total": 7300.0, "to_best": None}}
    _, said = rows(status.screen(found(line=spent, keys=limit, result=result), NOW))
    assert said["simulated"] == "2:01:40 of 2:00:00 of training by the table"
    _, said = rows(status.screen(found(result=result | {simulated.NAME: None}), NOW))
    assert "simulated" not in said


def test_a_stage_after_the_search_says_how_far_it_is():
    stage = live(stage="winner", label="winner", done=100, total=400, left=32.0)
    _, said = rows(status.screen(found(running=True, live=stage), NOW))
    assert (said["state"], said["time left"]) == ("winner for 1:00", "0:30 of winner (100 of 400)")
    del stage["done"]
    _, said = rows(status.screen(found(running=True, live=stage), NOW))
    assert said["time left"] == "0:30 of winner"
    _, said = rows(status.screen(found(running=True, live=live(stage="finals")), NOW))
    assert "time left" not in said  # it is that of the search, which is over


def test_without_a_process_it_says_whether_one_was_killed():
    assert status.state(found(), NOW) == "no process is at it"
    killed = status.state(found(live=live(stage="finals")), NOW)
    assert killed == "no process is at it: the last one was killed in the stage 'finals'"
    assert standing.left(found(), NOW) == (80.0, math.inf)


def test_what_is_not_known_is_left_out():
    empty = found(line=MappingProxyType({}), seconds_each=math.inf, left=math.inf, best=None)
    _, said = rows(status.screen(empty, NOW))
    assert said == {
        "state": "no process is at it",
        "best": "nothing yet",
        "done": "0 of 40 evaluations",
        "checkpoint": "none yet",
    }
    odd = MappingProxyType(dict.fromkeys(LINE, "text"))
    assert rows(status.screen(empty._replace(line=odd), NOW))[1] == said
    young = Status("w", True, live(stage="planning"))
    assert rows(status.screen(young, NOW))[1] == {
        "state": "planning for 1:00; the search has not begun yet"
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    loop.run(test_loop.config_with(), path, test_loop.build)
    return path


@pytest.fixture(autouse=True)
def toy_space(monkeypatch):
    monkeypatch.setattr(registry, "space_of_run", lambda identity, config: test_loop.TASK.space)


def test_a_finished_search_is_that_of_its_result(folder, capsys):
    assert status.command([str(folder)]) == 0
    head, said = rows(capsys.readouterr().out)
    result = json.loads((folder / "result.json").read_text())
    assert said["state"].startswith("finished, begun 20")
    assert said[""] == result["best"]["description"]["text"]
    assert f"final {100 * result['winner']['accuracy']:.2f}%" in said["best"]
    assert said["done"].startswith(f"{result['counts']['trained']} of 6 evaluations, ")
    assert "checkpoint" in said and "process" not in said
    assert str(folder) in head
    assert not (folder / stages.FILE).exists()


def test_the_incumbent_of_an_unfinished_one_is_the_best_of_its_rows(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "cut")
    (tmp_path / "cut" / "result.json").unlink()
    assert status.command([str(tmp_path / "cut")]) == 0
    _, said = rows(capsys.readouterr().out)
    best = max((row for row in test_loop.rows_of(folder) if row[4] and row[3]), key=lambda r: r[6])
    text = test_loop.TASK.space.describe(json.loads(best[2]))["text"]
    assert (said["state"][:19], said[""]) == ("no process is at it", text)
    assert said["best"] == f"accuracy {100 * best[5]:.2f}%"


def test_a_folder_is_held_as_long_as_a_process_is_in_it(folder, tmp_path, capsys):
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert not workdir.is_held(copy) and not workdir.is_held(tmp_path / "absent")
    with workdir.opened(copy, test_loop.config_with()), stages.running(), stages.kept(copy):
        assert workdir.is_held(copy)
        with stages.at("finals"):
            stages._write()
            assert status.command([str(copy)]) == 0
    _, said = rows(capsys.readouterr().out)
    assert said["state"].startswith("finals for 0:0") and said["process"].startswith(
        f"{os.getpid()} on "
    )
    assert not workdir.is_held(copy)


def test_several_have_a_line_each_and_what_is_none_hides_no_other(folder, tmp_path, capsys):
    assert status.command([str(folder), f"--workdir={folder}", str(tmp_path)]) == 0
    first, none, second = capsys.readouterr().out.splitlines()
    assert first == second and first.startswith(f"{folder}: finished; ")
    assert first.count(" of 6 evaluations; accuracy ") == 1
    assert "is not the workdir of a run" in none
    assert status.command([str(tmp_path)]) == 2
    assert "is not the workdir of a run" in capsys.readouterr().err
    assert status.command([]) == 2
    assert "no workdir is given" in capsys.readouterr().err


def test_watching_ends_when_all_are_finished(folder, capsys):
    assert status.command(["--watch", str(folder)]) == 0
    assert capsys.readouterr().out.startswith(f"{folder}: ")


def test_watching_is_ended_by_ctrl_c_and_not_by_other_signals(folder, monkeypatch, capsys):
    monkeypatch.setattr(status, "shown", lambda folders, now: ("screen", False))
    for number, code in ((2, 0), (15, 143)):

        def stop(seconds, number=number):
            raise signals.Stop(number)

        with monkeypatch.context() as patch:
            patch.setattr(time, "sleep", stop)
            assert status.command(["--watch", str(folder)]) == code
    assert capsys.readouterr().out == "screen\n" * 2


def test_a_screen_is_drawn_in_the_place_of_the_one_before():
    text = status.drawn("first\n" + "x" * 90 + "\nthird", 80, 3)
    lines = text.removeprefix(status.HOME).removesuffix(status.BELOW).split("\n")
    assert lines == [f"first{status.REST}", "x" * 79 + status.REST, ""]


def unfinished(folder, place):
    copy = shutil.copytree(folder, place)
    (copy / "result.json").unlink()
    return copy


def test_steps_of_a_stage_before_the_search_are_no_iterations(folder, tmp_path):
    copy = unfinished(folder, tmp_path / "copy")
    lines = [{"step": i, "iteration": 300, "stage": "prepare", "tau": 0.5} for i in range(3)]
    (copy / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert standing.read(copy, NOW).line == {}
    run = data.read(copy)
    assert (run.lines, run.stages) == ([], lines)


def test_the_rate_goes_by_the_newest_lines_and_is_that_of_all(tmp_path):
    """Iterations in which nothing new was trained take others in."""
    lines = [
        {"step": i, "iteration": i, "trained": min(i, 300), "seconds/total": float(i)}
        for i in range(500)
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = standing._iterations(path)
    assert found == lines[-len(found) :] and 200 + pace.MOST <= len(found) < 300
    rates = [pace.seconds_each(pace.of_metrics(some)) for some in (found, lines)]
    assert rates[0] == pytest.approx(rates[1], rel=1e-3)


def test_looking_changes_nothing_and_a_store_that_cannot_be_read_hides_nothing_else(
    folder, tmp_path
):
    copy = unfinished(folder, tmp_path / "copy")
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    assert standing.read(copy, NOW).best is not None
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before
    for content in (b"no database" * 999, b""):
        (copy / "knowledge" / history.FILE).write_bytes(content)
        found = standing.read(copy, NOW)
        assert found.best is None and found.line["trained"] > 0


def test_a_damaged_row_is_told(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "result.json").unlink()
    store = history.open_(copy / "knowledge")
    for decisions in ('[1, "x"]', "[0, 1, 99]", "[0]"):
        store.execute("UPDATE evaluations SET decisions = ?", [decisions])
        with pytest.raises(UserError, match="its decisions are"):
            standing.read(copy, NOW)
        with pytest.raises(UserError, match="a row of the history is damaged"):
            trials.read(copy)
    store.close()
