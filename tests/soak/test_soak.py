"""The cheapest of the faults that `make soak` brings about, and how their outcomes are told."""

import argparse
import contextlib
import importlib
import json
import math
import random
import shutil
import signal
import subprocess
import sys

import pytest

from tests.soak import __main__ as soak
from tests.soak import (
    damage,
    disk,
    kill,
    processes,
    searches,
    signals,
    stopping,
    together,
    writes,
)
from tests.soak.processes import Ended
from tests.soak.stopping import PROMISED

WHOLE, STOPPED = "whole-random-tables", "stopped-random-tables"  # as `damage` has them


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a search that nobody disturbs, and one that was killed in the loop."""
    place = tmp_path_factory.mktemp("soak")
    search = damage.long_search(place)
    assert searches.run(search, place / WHOLE).code == 0
    damage.stop(search, place / STOPPED, place)
    return place


def test_a_killed_search_comes_to_what_an_undisturbed_one_does(place):
    search, folder = damage.long_search(place), place / "killed"
    assert kill.where(place / STOPPED) == "in the loop"
    shutil.copytree(place / STOPPED, folder)
    assert kill.compared(searches.run(search, folder), folder, place / WHOLE) == kill.EQUAL


def test_damage_is_mended_or_told(place):
    """Of a file that is read by Python, and of one that SQLite reads."""
    places = [damage.PLACES[0], damage.PLACES[7]]
    found = list(damage.cases(place, places, [damage.truncated]))
    assert len(found) == 2
    assert not soak.wrong(found), found


def test_searches_share_a_store(place):
    found = list(together.cases(place, ["random", "evolution"], commands=False))
    assert found == [("2 searches on one store", together.WHOLE)]


def test_another_result_is_no_good_outcome(place):
    folder, good = place / "other", Ended(0, "")
    shutil.copytree(place / WHOLE, folder)
    assert kill.compared(good, folder, place / WHOLE) == kill.EQUAL
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"iterations": 1}))
    warned = Ended(0, "warning: something is damaged")
    for ended in (good, warned):
        assert damage.gone_on(ended, folder, place / WHOLE) == "WRONG: other result"
    (folder / "metrics.jsonl").write_text("")
    assert kill.compared(good, folder, place / WHOLE) == "WRONG: other result, metrics"
    (folder / "result.json").write_text(json.dumps(result))
    assert damage.gone_on(good, folder, place / WHOLE) == kill.OTHER_METRICS
    assert damage.gone_on(warned, folder, place / WHOLE) == damage.TOLD
    failed = Ended(1, "Traceback\nKeyError: 1")
    assert kill.compared(failed, folder, folder) == "WRONG: exit 1: KeyError: 1"
    assert damage.looked_at(failed, "").startswith("WRONG")
    assert damage.looked_at(Ended(0, "no rows"), "two rows").startswith("WRONG")
    assert damage.looked_at(Ended(2, "error: no rows"), "two rows") == damage.TOLD
    unfinished = Ended(0, damage.UNFINISHED)
    assert damage.looked_at(unfinished, "two rows").startswith("WRONG")
    assert damage.looked_at(unfinished, "two rows", gone=True) == damage.TOLD


def test_disks_are_not_left_out_without_a_word(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "may_mount", lambda: False)
    told = list(soak.cases("disk", tmp_path, argparse.Namespace()))
    assert told == [("disk", "not tried: only root may mount")]


def test_drafts_that_are_left_are_told_but_where_nobody_can_remove_them(tmp_path):
    place = tmp_path / "checkpoints"
    assert not disk.drafts(tmp_path)
    (place / "3.orbax-checkpoint-tmp").mkdir(parents=True)
    assert disk.drafts(tmp_path) == "WRONG: drafts are left: ['3.orbax-checkpoint-tmp']"
    assert not disk.drafts(tmp_path, but=place)
    (tmp_path / "pools").mkdir()
    (tmp_path / "pools" / ".pool.json.12").touch()
    assert disk.drafts(tmp_path, but=place) == "WRONG: drafts are left: ['.pool.json.12']"


def test_one_that_was_to_be_killed_in_the_middle_was(tmp_path):
    assert not disk.killed(Ended(-signal.SIGKILL, "at work"), tmp_path)
    assert disk.killed(Ended(0, "done"), tmp_path) == "WRONG: exit 0: done"
    assert disk.killed(Ended(-signal.SIGKILL, "hangs after 1 s"), tmp_path).startswith("WRONG")
    (tmp_path / "result.json").touch()
    assert disk.killed(Ended(-signal.SIGKILL, ""), tmp_path) == "WRONG: it had a result already"


@pytest.mark.parametrize(
    ("code", "words", "right"),
    [
        (1, "error: the disk is full", True),
        (2, "error: the disk is full", False),
        (1, "the disk is full", False),
        (1, "error: something else", False),
        (1, "Traceback\nerror: the disk is full", False),
        (1, "", False),
    ],
)
def test_how_a_search_ends_that_a_disk_refuses(code, words, right):
    assert (not disk.wrong(Ended(code, words), "full")) == right


@pytest.mark.parametrize(
    ("code", "said", "after", "outcome"),
    [
        (143, "at work\nstopped by SIGTERM; the same command goes on from here", 9.0, PROMISED),
        (143, "stopped by SIGTERM; the same command begins again", 0.0, PROMISED),
        (143, "at work", 0.0, "WRONG: exit 143: at work"),
        (130, "the same command goes on from here", 0.0, "WRONG: exit 130: the same command"),
        (0, "done", 0.1, stopping.FINISHED),
        (0, "done", math.nan, stopping.FINISHED),  # it ended before anybody could look
        (0, "done", 5.0, "WRONG: swallowed"),
        (-15, "", 0.0, stopping.EARLY),
        (-15, "at work", 0.0, "WRONG: exit -15: at work"),
        (-15, "Traceback\nKeyError: 1", 0.0, "WRONG: traceback of KeyError: 1"),
        (1, "Traceback\nKeyError: 1", 0.0, "WRONG: traceback of KeyError: 1"),
    ],
)
def test_how_a_command_ends_that_is_told_to(code, said, after, outcome):
    assert stopping.judged(signal.SIGTERM, Ended(code, said), after).startswith(outcome)


def test_what_ended_badly_is_no_good_outcome_though_it_went_on():
    found = [("one", stopping.PROMISED), ("two", "WRONG: swallowed"), ("three", stopping.EARLY)]
    told = list(kill.judged(found, kill.EQUAL))
    assert told == [("one", kill.EQUAL), ("two", "WRONG: swallowed"), ("three", stopping.EARLY)]
    told = list(kill.judged(found, "WRONG: other rows"))
    assert [outcome for _, outcome in told] == [
        "WRONG: other rows",
        "WRONG: swallowed",
        "WRONG: other rows",
    ]


def test_a_search_that_works_has_a_handler_of_signals():
    assert kill.heeded(stopping.EARLY, kill.BEFORE) == stopping.EARLY
    assert kill.heeded(stopping.EARLY, "in the loop") == "WRONG: no handler in the loop"
    assert kill.heeded(PROMISED, "in the loop") == PROMISED


def test_one_that_hangs_before_its_moment_is_not_taken_for_one_that_finished(monkeypatch):
    monkeypatch.setattr(processes, "reached", lambda running, seconds: (False, math.nan))
    ways = [signal.SIGTERM] * 2
    given = (lambda: None, lambda: kill.BEFORE, ways, random.Random(0), 1.0)
    assert kill.interrupted(*given) == ([("none: before the start", "WRONG: hangs")], 1.0)


def test_what_is_waited_for_is_seen_before_a_command_is_over_and_not_for_ever(monkeypatch):
    def happens(code, seen):
        with subprocess.Popen([sys.executable, "-c", code]) as process:
            monkeypatch.setattr(processes, "over", lambda _: lambda s: ended(process, s))
            running = processes.Running(argparse.Namespace(pid=process.pid), None)
            try:
                return processes.happens(running, seen)
            finally:
                process.kill()

    def ended(process, seconds):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        return process.returncode is not None

    looks = iter([False, True])
    assert happens("import time; time.sleep(60)", lambda: next(looks))
    assert not happens("pass", lambda: False)
    monkeypatch.setattr(processes, "IDLE", 0.3)
    with pytest.raises(TimeoutError, match="hangs"):
        happens("import time; time.sleep(60)", lambda: False)


@pytest.mark.parametrize(
    ("names", "parts", "said"),
    [
        ([], ["kill", "writes"], ""),
        (["random-tables"], ["kill", "writes"], ""),
        (["spos-images"], ["kill"], ""),
        (["spos-images"], ["kill", "writes"], "writes is of random-tables, "),
        (["randon-tables"], ["kill"], "unknown search 'randon-tables'; allowed are random-tables"),
    ],
)
def test_searches_that_nothing_would_be_done_to_are_refused(names, parts, said):
    found = soak.unknown_searches(names, parts)
    assert found.startswith(said) and bool(found) == bool(said)


def test_moments_are_of_processor_time_and_what_does_not_compute_hangs(monkeypatch):
    def watch(code, until=math.inf):
        with subprocess.Popen([sys.executable, "-c", code]) as process:
            try:
                return signals.watch(process, until)
            finally:
                process.kill()

    over, took = watch("while True: pass", until=0.1)
    assert not over and 0.1 <= took < 1.0
    assert watch("pass")[0]
    monkeypatch.setattr(processes, "IDLE", 0.3)
    with pytest.raises(TimeoutError, match="hangs"):
        watch("import time; time.sleep(60)")


def test_a_write_is_met_from_its_beginning_to_its_end(monkeypatch):
    calls = []

    @contextlib.contextmanager
    def opened(name):
        calls.append(f"open {name}")
        yield name
        calls.append(f"close {name}")

    monkeypatch.setattr(writes, "opened", opened, raising=False)
    monkeypatch.setattr(writes, "written", calls.append, raising=False)
    for name in ("opened", "written"):
        writes.replace((writes.__name__, name), lambda: calls.append("in") or 1, calls.append)
    with writes.opened("a"):
        calls.append("inside")
    writes.written("b")
    assert calls == ["in", "open a", "inside", "close a", 1, "in", "b", 1]


@pytest.mark.parametrize("places", [*writes.SEARCHES.values()])
def test_all_writes_have_a_function_of_that_name(places):
    for module, name in places.values():
        assert callable(getattr(importlib.import_module(module), name))


def test_where_a_search_stands_is_told_by_what_it_has_left(tmp_path):
    left = {
        "run.json": "before its first step",
        "checkpoints/0/d": "in preparation",
        "metrics.jsonl": "in the loop",
        "training/winner--1/2/d": "in the winner's training",
        "result.json": "after the result",
    }
    assert kill.where(tmp_path) == "before the start"
    for name, told in left.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"iteration": 1}')
        assert kill.where(tmp_path) == told
    (tmp_path / "metrics.jsonl").write_text('{"stage": "prepare"}')
    for name in ("result.json", "training/winner--1/2/d", "checkpoints/0/d"):
        (tmp_path / name).unlink()
    shutil.rmtree(tmp_path / "training")
    shutil.rmtree(tmp_path / "checkpoints")
    assert kill.where(tmp_path) == "in preparation"


@pytest.mark.slow
def test_a_search_that_is_killed_in_a_write_goes_on(place, monkeypatch):
    search, notes = damage.long_search(place), place / "random-tables.notes"
    monkeypatch.setitem(writes.SEARCHES, search.name, writes.KEPT)
    notes.write_text("0.001 an iteration's rows\n")
    (place / "whole").mkdir(exist_ok=True)
    (place / "whole" / search.name).symlink_to(place / WHOLE)
    found = list(writes.killed(search, place, "an iteration's rows", 1, random.Random(0)))
    assert found == [("SIGKILL as it writes an iteration's rows", kill.EQUAL)]


@pytest.mark.slow
def test_searches_and_meta_train_that_end_in_the_middle_go_on(place):
    """As `make soak` has it, once each."""
    (place / "ends").mkdir()
    for way in (signal.SIGKILL, signal.SIGTERM):
        found = list(kill.cases(place / "ends", [way], names=["random-tables", kill.META]))
        assert len(found) == 2 and not soak.wrong(found), found


def test_outcomes_are_counted():
    lines = soak.table([("a", "fine"), ("bb", "WRONG: exit 1"), ("a", "fine")])
    assert [line.split() for line in lines] == [
        ["fault", "times", "outcome"],
        ["a", "2", "fine"],
        ["bb", "1", "WRONG:", "exit", "1"],
    ]
    assert soak.wrong([("a", "fine"), ("b", "WRONG: exit 1")]) == 1
