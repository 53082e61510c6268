"""What a search has tried, as text, CSV and JSON."""

import contextlib
import csv
import io
import json
import shutil
import sqlite3

import pytest

from fnas_jax import loop, registry, trials
from tests import test_loop


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    loop.run(test_loop.config_with(), path, test_loop.build)
    return path


@pytest.fixture(autouse=True)
def toy_space(monkeypatch):
    monkeypatch.setattr(registry, "space_of_run", lambda identity, config: test_loop.TASK.space)


def test_they_are_the_rows_of_the_run_in_its_order(folder):
    found = trials.read(folder)
    rows = test_loop.rows_of(folder)
    assert [t["arch"] for t in found] == [json.loads(row[2]) for row in rows]
    assert [t["trained"] for t in found] == [bool(row[3]) for row in rows]
    assert [t["accuracy"] for t in found] == [row[5] for row in rows]
    assert [t["number"] for t in found] == list(range(len(rows)))
    assert all(t["latency_ms"] is None for t in found)


def test_the_best_are_measured_and_each_network_once(folder):
    found = trials.read(folder)
    best = trials.best(found, 3)
    rewards = sorted({t["reward"] for t in found if t["trained"]}, reverse=True)
    assert [t["reward"] for t in best] == rewards[:3]
    assert trials.best([*found, *found], 10**6) == trials.best(found, 10**6)


def test_every_format_says_the_same(folder, capsys):
    found = trials.read(folder)
    printed = {}
    for format_ in ("table", "csv", "json"):
        assert trials.command([f"--workdir={folder}", f"--format={format_}"]) == 0
        printed[format_] = capsys.readouterr().out
    assert json.loads(printed["json"]) == found
    rows = list(csv.DictReader(io.StringIO(printed["csv"])))
    assert [float(row["reward"]) for row in rows] == [t["reward"] for t in found]
    assert rows[0]["latency_ms"] == ""
    lines = printed["table"].splitlines()
    assert len(lines) == len(found) + 1 and "latency_ms" not in lines[0]
    assert sum("(predicted)" in line for line in lines) == sum(not t["trained"] for t in found)


def test_what_was_stopped_early_is_told_and_not_among_the_best(folder):
    found = trials.read(folder)
    assert {t["stopped"] for t in found} == {None}
    top = trials.best(found, 1)[0]
    changed = [t | {"stopped": 7} if t["text"] == top["text"] else t for t in found]
    assert trials.best(changed, 1)[0]["text"] != top["text"]
    assert " (expected, stopped after 7 steps)" in trials.table(changed)


def test_wrong_input_is_one_sentence(folder, tmp_path, capsys):
    assert trials.command([f"--workdir={folder}", "--format=cvs"]) == 2
    assert "allowed are table, csv, json, parquet; did you mean 'csv'?" in capsys.readouterr().err
    assert trials.command([f"--workdir={tmp_path}"]) == 2
    assert "is not the workdir of a run" in capsys.readouterr().err


def test_rows_that_are_lost_are_told(folder, tmp_path, caplog):
    trials.read(folder)
    assert not caplog.records
    shutil.copytree(folder, tmp_path / "lost")
    database = tmp_path / "lost" / "knowledge" / "history.sqlite"
    with contextlib.closing(sqlite3.connect(database)) as store, store:
        count = store.execute("SELECT sum(trained) FROM evaluations").fetchone()[0]
        store.execute("DELETE FROM evaluations WHERE iteration = 0")
        left = store.execute("SELECT sum(trained) FROM evaluations").fetchone()[0]
    trials.read(tmp_path / "lost")
    assert f"the history has {left} of the {count} architectures" in caplog.text
    database.write_bytes(b"")
    assert trials.read(tmp_path / "lost") == []
    assert f"the history has 0 of the {count} architectures" in caplog.text


def test_a_run_without_its_knowledge_is_told_and_none_is_made(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "moved", ignore=shutil.ignore_patterns("knowledge"))
    assert trials.command([f"--workdir={tmp_path / 'moved'}"]) == 2
    assert "has no history.sqlite" in capsys.readouterr().err
    assert not (tmp_path / "moved" / "knowledge").exists()
    (tmp_path / "moved" / "knowledge").mkdir()
    (tmp_path / "moved" / "knowledge" / "history.sqlite").write_text("no database" * 1000)
    assert trials.command([f"--workdir={tmp_path / 'moved'}"]) == 2
    assert "cannot be used: " in capsys.readouterr().err


def test_a_file_is_of_the_format_that_its_name_says(folder, tmp_path, capsys):
    found = trials.read(folder)
    for name in ("a.csv", "a.json", "a.parquet", "a.txt"):
        assert trials.command([str(folder), f"--out={tmp_path / name}"]) == 0
        assert capsys.readouterr().out == f"written to {tmp_path / name}\n"
    assert json.loads((tmp_path / "a.json").read_text()) == found
    assert len((tmp_path / "a.csv").read_text().splitlines()) == len(found) + 1
    assert (tmp_path / "a.txt").read_text().startswith("number ")
    parquet = pytest.importorskip("pyarrow.parquet")
    assert parquet.read_table(tmp_path / "a.parquet").to_pylist() == found


def test_best_and_top_are_one_and_what_contradicts_itself_is_refused(folder, tmp_path, capsys):
    assert trials.command([str(folder), "--best=2"]) == 0
    first = capsys.readouterr().out
    assert trials.command([f"--workdir={folder}", "--top=2"]) == 0
    assert capsys.readouterr().out == first and len(first.splitlines()) == 3
    wrong = {
        ("--best=2", "--top=3"): "--best is 2 and --top 3: they mean the same",
        ("--task=a",): "--task is for --knowledge=DIR: a workdir has one task alone",
        ("--knowledge=a",): "trials takes one workdir, or a store: --knowledge=DIR",
        (str(folder),): "trials takes one workdir, or a store: --knowledge=DIR",
        ("--format=parquet",): "Parquet is no text for a terminal: --out=FILE.parquet says where",
        (f"--out={tmp_path / 'no' / 'a.csv'}",): "cannot be written: No such file or directory",
    }
    for more, text in wrong.items():
        assert trials.command([str(folder), *more]) == 2, more
        assert text in capsys.readouterr().err


def test_a_store_lists_all_searches_and_what_they_were_by(folder, capsys):
    place = f"--knowledge={folder / 'knowledge'}"
    assert trials.command([place, "--format=json"]) == 0
    found = json.loads(capsys.readouterr().out)
    own = trials.read(folder)
    assert [row["arch"] for row in found] == [trial["arch"] for trial in own]
    assert {row["method"] for row in found} == {"fnas"}  # of the configuration
    assert trials.command([place]) == 0
    head, names, *lines = capsys.readouterr().out.splitlines()
    space = f"categorical {test_loop.TASK.space.key}"
    assert head == f"tabular/quadratic, {space}, protocol unknown (accuracy)"
    assert names.split()[:2] == ["run", "method"] and len(lines) == len(own)
    assert trials.command([place, "--task=tabular/quadratik"]) == 2
    error = capsys.readouterr().err
    assert "of which the store has no row; it has tabular/quadratic; did you mean" in error
