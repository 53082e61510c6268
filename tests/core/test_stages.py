"""What is told of long stages, and what stands in a folder while a process works there."""

import json
import math
import threading
import time

import numpy as np
import pytest

from fnas_jax.core import stages
from fnas_jax.core.stages import Stage
from fnas_jax.tasks.readers.examples import Example, collect


def test_a_line_says_how_long_a_stage_takes_and_how_long_it_will():
    stage = Stage("finals", 100.0)
    assert stages.waiting(stage, 10.0, 110.0) == "finals: 0:10 so far"
    assert stages.waiting(stage, 10.0, 110.0, 20.0) == "finals: 0:10 so far, about 0:20 left"
    expected = stage._replace(seconds=25.0)
    assert stages.waiting(expected, 10.0, 110.0) == "finals: 0:10 so far, about 0:15 left"
    for overdue in (24.6, 40.0):  # which is not about to end
        text = stages.waiting(expected, overdue, 100.0 + overdue)
        assert text.startswith("finals: 0:") and text.endswith(" so far")
    quiet = stages.waiting(stage, 10.0, 180.0, 60.0)
    assert quiet == "finals: 1:20 so far, about 1:00 left (0:10 since the last line)"


def test_lines_come_after_ten_seconds_and_seldom_then():
    moments, spoken, told = range(300), 0, []
    for silent in moments:
        lines = stages.due(spoken, float(silent))
        told += [silent] * (lines > spoken)
        spoken = lines
    assert told == [10, 30, 60, 120, 180, 240]


class Bar:
    def __init__(self, moves):
        self.moves, self.moved = moves, 0

    def move(self, stage):
        assert stage == "search"
        self.moved += 1
        return self.moves

    def left(self, now):
        return 7.0


@pytest.fixture
def fast(monkeypatch):
    """A look every hundredth of a second, and one line after the first of them."""
    values = {"SILENT": (0.01, math.inf, math.inf), "TICK": 0.01, "WRITE_SECONDS": 0.0}
    for name, value in values.items():
        monkeypatch.setattr(stages, name, value)


def test_a_stage_that_ends_just_when_it_is_told_of_is_no_error(fast, monkeypatch):
    looked = []

    def takes(stream):
        looked.append(stream)
        stages._now.stages = ()  # as the thread that works does at any moment
        return True

    monkeypatch.setattr(stages, "_takes", takes)
    with stages.running(), stages.at("reading"):
        while not looked:
            time.sleep(0.01)
        thread = next(t for t in threading.enumerate() if t.name == "stages")
        thread.join(0.1)
        assert thread.is_alive()


def test_what_is_silent_for_long_is_told_once(fast, capfd):
    with stages.running(), stages.at("reading"):
        time.sleep(0.2)
    assert capfd.readouterr().err == "reading: 0:00 so far\n"


@pytest.mark.parametrize("moves", [True, False])
def test_a_bar_that_can_move_does_so_and_nothing_is_told(moves, fast, capfd):
    bar = Bar(moves)
    with stages.running():
        stages.attach(bar)
        with stages.at("search"):
            time.sleep(0.2)
    assert bar.moved > 1
    expected = "" if moves else "search: 0:00 so far, about 0:07 left\n"
    assert capfd.readouterr().err == expected


def test_a_folder_says_what_is_done_in_it_as_long_as_it_is(tmp_path, fast):
    with stages.running(), stages.kept(tmp_path):
        assert stages.read(tmp_path)["stage"] == "starting"
        with stages.at("search"):
            stages.told("fnas", 3, 8, math.inf, "iteration 3")
            wait_for(tmp_path, label="fnas", done=3, total=8, left=None, stage="search")
            stages.told("fnas", 4, 8, 12.5, "iteration 4")
            wait_for(tmp_path, done=4, left=12.5)
        with stages.at("finals", 100.0):
            found = wait_for(tmp_path, stage="finals")
            assert "done" not in found and 90 < found["left"] <= 100
    assert list(tmp_path.iterdir()) == []


def test_a_search_within_another_has_its_turn_and_the_other_goes_on(tmp_path, fast):
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    outer.mkdir()
    inner.mkdir()
    with stages.running(), stages.kept(outer):
        with stages.at("search"), stages.kept(inner):
            wait_for(inner, stage="search")
        assert stages.read(inner) is None
        with stages.at("finals"):
            wait_for(outer, stage="finals")
    assert list(outer.iterdir()) == []


def wait_for(folder, **expected):
    for _ in range(300):
        found = stages.read(folder)
        if found and expected.items() <= found.items():
            return found
        time.sleep(0.01)
    raise AssertionError(f"{found} lacks {expected}")


def test_a_folder_that_takes_nothing_is_no_error(tmp_path):
    with stages.running(), stages.kept(tmp_path / "absent"), stages.at("search"):
        stages.heard()
    assert stages.read(tmp_path / "absent") is None


ODD = '{"pid": 1, "host": "a", "stage": "search", "at": 1.0, "since": '


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"pid": "x"}', "\xff", '{"pid": 1, "host": "a"}']
    + [f"{ODD}{since}}}" for since in ("NaN", "Infinity", 10**400)],
    ids=lambda text: text[-12:],
)
def test_what_is_no_such_file_says_nothing(text, tmp_path):
    (tmp_path / stages.FILE).write_text(text, encoding="latin-1")
    assert stages.read(tmp_path) is None
    whole = {"pid": 1, "host": "a", "stage": "search", "since": 1.0, "at": 2.0}
    (tmp_path / stages.FILE).write_text(json.dumps(whole))
    assert stages.read(tmp_path) == whole


def test_what_is_counted_is_told_with_the_time_that_the_rest_takes(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(stages.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(stages._now, "bars", ())
    stage = Stage("reading", 100.0)
    assert stages.line(stage, 0.0, 100.0) == "reading: 0:00 so far"
    for now[0], done in ((101.0, 1), (111.0, 1001)):
        stages.counted(done, 3001, "images of a")
    assert stages.line(stage, 11.0, 111.0) == (
        "reading: 0:11 so far, 1,001 of 3,001 images of a, about 0:20 left"
    )
    assert stages.line(stage, 16.0, 116.0).endswith("about 0:15 left")
    stages.attach(Bar(False))
    stages.detach(stages._now.bars[0])
    assert stages.line(stage, 16.0, 116.0) == "reading: 0:16 so far"  # what it said is over
    stages.counted(1, 0, "images of b")  # nobody knows how many
    assert stages.line(stage, 11.0, 111.0) == "reading: 0:11 so far, 1 images of b"
    later = Stage("finals", 112.0)
    assert stages.line(later, 1.0, 113.0) == "finals: 0:01 so far"


def test_a_second_pass_over_the_same_has_a_clock_of_its_own(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(stages.time, "monotonic", lambda: now[0])
    for now[0], done in ((100.0, 1), (110.0, 11), (200.0, 1), (204.0, 3)):
        stages.counted(done, 11, "images of c")
    assert "about 0:16 left" in stages.line(Stage("reading", 100.0), 0.0, 204.0)


def test_reading_images_is_counted(monkeypatch):
    counted = []
    monkeypatch.setattr(stages, "counted", lambda *given: counted.append(given))
    rows = (Example(f"row {i}", np.zeros((2, 2, 1), np.uint8), 0) for i in range(3))
    collect(rows, 0, "a", total=3)
    assert counted == [(i, 3, "images of a") for i in (1, 2, 3)]
