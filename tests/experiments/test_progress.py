"""How far a benchmark is, as a terminal and a file of lines show it."""

import io
import sys

import pytest

from experiments.benchmarks import progress
from fnas_jax.core import stages


class Terminal(io.StringIO):
    def isatty(self):
        return True


def stage():
    return stages.content(0.0, 0.0)["stage"]


def test_off_a_terminal_lines_are_some_time_apart_and_say_what_is_at_work(capsys, monkeypatch):
    seen = []
    for number in progress.followed("toy", range(3), lambda n: f"seed {n}"):
        seen.append((number, stage()))
        progress.say(f"result {number}")
    assert seen == [(n, f"toy: {n + 1} of 3 (seed {n})") for n in range(3)]
    assert stage() == "starting"  # none of them any more
    out, err = capsys.readouterr()
    assert out.splitlines() == ["result 0", "result 1", "result 2"]
    assert err.splitlines() == ["3/3 done"]
    monkeypatch.setattr(progress, "EVERY", 0.0)
    assert list(progress.followed("toy", "ab")) == ["a", "b"]
    first, second, last = capsys.readouterr().err.splitlines()
    assert (first, last) == ("0/2 a", "2/2 done")
    assert second.startswith("1/2 b, 0:0") and second.endswith(" left")


def test_on_a_terminal_a_bar_stands_below_the_results(monkeypatch):
    both = Terminal()
    monkeypatch.setattr(sys, "stdout", both)
    monkeypatch.setattr(sys, "stderr", both)
    for name in progress.followed("toy", ["one", "two"]):
        progress.say(f"result of {name}")
    shown = both.getvalue()
    assert "toy:   0%" in shown and "one" in shown and "1/2" in shown and "2/2" in shown
    # The bar is wiped before a line of results, which so begins at the margin.
    lines = [line.rpartition("\r")[2] for line in shown.splitlines()]
    assert [line for line in lines if "result" in line] == ["result of one", "result of two"]


def test_a_failure_leaves_neither_a_bar_nor_a_stage(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        for number in progress.followed("toy", [1, 0]):
            assert 1 / number
    assert stage() == "starting" and not stages._now.bars
