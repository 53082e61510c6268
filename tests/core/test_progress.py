"""How far something is, as a terminal, a notebook and a file of lines show it."""

import io
import os
import re
import signal
import subprocess
import sys
from typing import ClassVar

import pytest

from fnas_jax.core import progress as progress_lib
from fnas_jax.core import signals


def test_off_a_terminal_progress_is_a_line_per_iteration():
    stream = io.StringIO()
    bar = progress_lib.Progress(10, 0, "search", stream)
    bar.show(5, "best 0.5")
    bar.say("over")
    bar.show(12, "best 0.6")
    bar.close()
    first, said, last = stream.getvalue().splitlines()
    assert first.startswith("5/10 best 0.5, 0:0") and first.endswith(" left")
    assert (said, last) == ("over", "10/10 best 0.6")


def test_off_a_terminal_lines_may_be_some_time_apart(monkeypatch):
    """The first comes when that has passed, and the last in any case."""
    now = [0.0]
    monkeypatch.setattr(progress_lib.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    bar = progress_lib.Progress(10, 0, "training", stream, every=10.0)
    for now[0], done in ((4.0, 2), (11.0, 5), (15.0, 7), (16.0, 10)):
        bar.show(done, "steps")
    assert stream.getvalue().splitlines() == ["5/10 steps, 0:12 left", "10/10 steps"]


def test_that_nobody_reads_progress_is_an_error_until_a_signal_has_come(monkeypatch):
    """Which ends the reader, too, where this process has a checkpoint to take."""
    monkeypatch.setattr(signals, "ECHO", 0.0)
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb", buffering=0) as raw:
        bar = progress_lib.Progress(10, 0, "search", io.TextIOWrapper(raw, write_through=True))
        with pytest.raises(BrokenPipeError):
            bar.show(5, "best 0.5")
        with pytest.raises(signals.Stop), signals.handled(), signals.deferred():
            signal.raise_signal(signal.SIGTERM)
            bar.show(6, "best 0.5")
            bar.say("over")
            signals.check()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_progress_is_a_bar_that_starts_where_the_run_resumes():
    stream = Terminal()
    bar = progress_lib.Progress(10, 4, "search", stream)
    bar.show(10, "best 0.5")
    bar.say("over")
    bar.close()
    shown = stream.getvalue()
    assert "4/10" in shown and "10/10" in shown and "best 0.5" in shown and "over" in shown


def test_a_bar_says_which_stage_it_waits_for():
    stream = Terminal()
    bar = progress_lib.Progress(10, 0, "fnas", stream)
    assert bar.move("preparing")
    assert stream.getvalue().rpartition("\r")[2].startswith("fnas, preparing:   0%")
    for own in ("search", "fnas", "fnas: 3 of 12 (seed 2)"):
        assert bar.move("preparing") and bar.move(own)
        assert stream.getvalue().rpartition("\r")[2].startswith("fnas:   0%")
    bar.show(10, "best 0.5")
    assert not bar.move("finals")  # which has a line of its own
    bar.close()
    assert not progress_lib.Progress(10, 0, "fnas", io.StringIO()).move("preparing")


class Widget:
    """What tqdm.auto has in a notebook, as far as it is used."""

    __module__ = "tqdm.notebook"
    made: ClassVar[list] = []

    def __init__(self, total, initial, desc, file, bar_format, dynamic_ncols):
        self.n, self.texts = initial, []
        self.made.append((total, initial, desc, self))

    def set_postfix_str(self, text, refresh):
        self.texts.append(text)

    def update(self, more):
        self.n += more

    def close(self):
        self.n = None


def test_in_a_notebook_progress_is_the_bar_of_tqdm(monkeypatch, capsys):
    auto = type("tqdm", (Widget,), {"__module__": "tqdm.auto"})
    monkeypatch.setattr(progress_lib, "tqdm", auto)
    bar = progress_lib.Progress(10, 4, "search")
    ((total, initial, label, widget),) = Widget.made
    bar.show(9, "best 0.5")
    assert (total, initial, label, widget.n) == (10, 4, "search", 9)
    assert re.fullmatch(r"0:00 left, best 0\.5", *widget.texts)
    assert capsys.readouterr().err == ""
    bar.close()
    stream = io.StringIO()  # which a widget could not be drawn into
    progress_lib.Progress(10, 4, "search", stream).show(5, "best 0.5")
    assert len(Widget.made) == 1 and stream.getvalue().startswith("5/10")


@pytest.mark.slow
def test_a_script_of_a_real_notebook_is_told_as_tqdm_tells_it():
    """With stand-ins for the modules by which tqdm.auto knows a notebook."""
    code = """
import sys, types
class Shell: pass
def module(name, **content):
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(content)
module("ipykernel"), module("ipykernel.zmqshell")
module("IPython", get_ipython=Shell), module("IPython.display", display=print)
widgets = {n: type(n, (), {}) for n in ("HTML", "FloatProgress", "HBox")}
module("ipywidgets", IntProgress=object, __version__="8", **widgets)
from fnas_jax.core import progress
print(progress.in_notebook(progress.tqdm))
"""
    for prefix, expected in (("", "True"), ("import tqdm.auto\n", "False")):
        printed = subprocess.check_output([sys.executable, "-c", prefix + code], text=True)
        assert printed.strip() == expected


def test_the_time_of_compilation_says_nothing_of_the_rest(monkeypatch):
    """10 of the first 14 seconds were compilation: a unit takes 1 second."""
    now, compiled = [0.0], [0.0]
    monkeypatch.setattr(progress_lib.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    bar = progress_lib.Progress(8, 0, "search", stream, compiling=lambda: compiled[0])
    now[0], compiled[0] = 14.0, 10.0
    bar.show(4, "first")
    assert stream.getvalue().strip() == "4/8 first, 0:04 left"
    now[0] = 16.0
    assert bar.left(now[0]) == 2.0  # while the next one is on its way
    now[0] = 100.0
    bar.begin()  # a stage between
    now[0] = 102.0
    bar.show(5, "second")
    assert stream.getvalue().splitlines()[-1] == "5/8 second, 0:06 left"
