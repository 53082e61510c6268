import errno
import io
import json
import math
import os
import signal
import struct
import subprocess
import sys
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from fnas_jax.core import disk, signals
from fnas_jax.core import logging as log_lib
from fnas_jax.core.tensorboard import Scalars


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def events(folder):
    """All TensorBoard events of a folder, in the order of their files' names."""
    found = []
    for path in sorted(folder.glob("events.out.*")):
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])  # length, its crc, event, its crc
            found.append(Event.FromString(content[12 : 12 + size]))
            content = content[16 + size :]
    return found


def test_json_holds_finite_numbers_or_null():
    value = {"a": np.float32(0.5), "b": [math.nan, math.inf, 1], "c": jnp.arange(2), 3: (True, "x")}
    expected = {"a": 0.5, "b": [None, None, 1], "c": [0, 1], "3": [True, "x"]}
    assert log_lib.finite(value) == expected


def test_a_json_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "x.json"
    log_lib.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        log_lib.write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    log_lib.write_json(path, {"a": math.nan})
    assert json.loads(path.read_text()) == {"a": None}


def test_lines_of_a_step_or_later_and_torn_lines_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n{"step": 1}\nnonsense\n{"step": 2}\n{"step": 3, "los')
    log_lib.truncate_metrics(path, 2)
    assert lines(path) == [{"step": 0}, {"step": 1}]
    log_lib.truncate_metrics(tmp_path / "absent.jsonl", 2)


def write(folder, first, last, value, tensorboard=True):
    log = log_lib.MetricLog(folder, first, tensorboard)
    for step in range(first, last):
        log.write(step, {"value": value, "nothing": math.nan, "stage": "x"})
    log.close()


def test_a_resumed_log_holds_each_step_once(tmp_path):
    write(tmp_path, 0, 5, 1.0)
    write(tmp_path, 3, 6, 2.0)
    found = lines(tmp_path / "metrics.jsonl")
    assert [entry["step"] for entry in found] == list(range(6))
    assert [entry["value"] for entry in found] == [1.0] * 3 + [2.0] * 3
    assert found[0]["nothing"] is None


def test_tensorboard_is_told_to_forget_what_a_resume_repeats(tmp_path):
    write(tmp_path, 0, 5, 1.0)
    write(tmp_path, 3, 6, 2.0)
    found = events(tmp_path / "tensorboard")
    scalars = [(e.step, v.simple_value) for e in found for v in e.summary.value]
    assert scalars == [(s, 1.0) for s in range(5)] + [(s, 2.0) for s in range(3, 6)]
    assert all(v.tag == "value" for e in found for v in e.summary.value)
    restarts = [e.step for e in found if e.HasField("session_log")]
    assert restarts == [3]


def test_tensorboard_can_be_left_out(tmp_path):
    write(tmp_path, 0, 2, 1.0, tensorboard=False)
    assert not (tmp_path / "tensorboard").exists()


def test_off_a_terminal_progress_is_a_line_per_iteration():
    stream = io.StringIO()
    progress = log_lib.Progress(10, 0, "search", stream)
    progress.show(5, "best 0.5")
    progress.say("over")
    progress.show(12, "best 0.6")
    progress.close()
    first, said, last = stream.getvalue().splitlines()
    assert first.startswith("5/10 best 0.5, 0:0") and first.endswith(" left")
    assert (said, last) == ("over", "10/10 best 0.6")


def test_off_a_terminal_lines_may_be_some_time_apart(monkeypatch):
    """The first comes when that has passed, and the last in any case."""
    clock = iter((0.0, 4.0, 11.0, 15.0, 16.0))
    monkeypatch.setattr(log_lib.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    progress = log_lib.Progress(10, 0, "training", stream, every=10.0)
    for done in (2, 5, 7, 10):
        progress.show(done, "steps")
    assert stream.getvalue().splitlines() == ["5/10 steps, 0:11 left", "10/10 steps"]


def test_that_nobody_reads_progress_is_an_error_until_a_signal_has_come(monkeypatch):
    """Which ends the reader, too, where this process has a checkpoint to take."""
    monkeypatch.setattr(signals, "ECHO", 0.0)
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb", buffering=0) as raw:
        progress = log_lib.Progress(10, 0, "search", io.TextIOWrapper(raw, write_through=True))
        with pytest.raises(BrokenPipeError):
            progress.show(5, "best 0.5")
        with pytest.raises(signals.Stop), signals.handled(), signals.deferred():
            signal.raise_signal(signal.SIGTERM)
            progress.show(6, "best 0.5")
            progress.say("over")
            signals.check()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_progress_is_a_bar_that_starts_where_the_run_resumes():
    stream = Terminal()
    progress = log_lib.Progress(10, 4, "search", stream)
    progress.show(10, "best 0.5")
    progress.say("over")
    progress.close()
    shown = stream.getvalue()
    assert "4/10" in shown and "10/10" in shown and "best 0.5" in shown and "over" in shown


class Widget:
    """What tqdm.auto has in a notebook, as far as it is used."""

    __module__ = "tqdm.notebook"
    made: ClassVar[list] = []

    def __init__(self, total, initial, desc, file):
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
    monkeypatch.setattr(log_lib, "tqdm", auto)
    progress = log_lib.Progress(10, 4, "search")
    ((total, initial, label, bar),) = Widget.made
    progress.show(9, "best 0.5")
    assert (total, initial, label, bar.n, bar.texts) == (10, 4, "search", 9, ["best 0.5"])
    assert capsys.readouterr().err == ""
    progress.close()
    stream = io.StringIO()  # which a widget could not be drawn into
    log_lib.Progress(10, 4, "search", stream).show(5, "best 0.5")
    assert len(Widget.made) == 1 and stream.getvalue().startswith("5/10")


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
from fnas_jax.core import logging
print(logging.in_notebook(logging.tqdm))
"""
    for prefix, expected in (("", "True"), ("import tqdm.auto\n", "False")):
        printed = subprocess.check_output([sys.executable, "-c", prefix + code], text=True)
        assert printed.strip() == expected


@pytest.mark.parametrize("owner", [log_lib.MetricLog, Scalars])
def test_a_log_on_a_full_disk_says_so_where_it_is_told(owner, tmp_path, monkeypatch):
    """Also of TensorBoard's events, whose own writer would say it in a thread."""

    class Full(io.StringIO):
        def flush(self):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    log = log_lib.MetricLog(tmp_path, 0, tensorboard=True)
    log.write(0, {"value": 1.0})
    if owner is Scalars:
        monkeypatch.setattr(log._writer, "flush", Full().flush)
    else:
        log._file.close()
        log._file = Full()
    with pytest.raises(disk.Refused, match=r"metrics.jsonl' is full"):
        log.write(1, {"value": 2.0})
