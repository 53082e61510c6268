import errno
import io
import logging
import os
import signal
import subprocess
import sys

import pytest

from fnas_jax.core import exits, signals
from fnas_jax.core.types import UserError


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (UserError("two\nlines"), 2, "error: two lines\n"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C; the same command begins again\n"),
        (signals.Stop(15), 143, "stopped by SIGTERM; the same command begins again\n"),
        (
            OSError(errno.ENOSPC, "as the system has it", "w/x"),
            1,
            "error: the disk of 'w/x' is full; the same command goes on once there is room\n",
        ),
    ],
)
def test_exit_codes(error, code, shown, capsys):
    assert exits.run_command(lambda: fail(error)) == code
    assert capsys.readouterr().err == shown


def test_an_error_that_libraries_make_of_a_signal_is_of_the_signal(capsys):
    def body():
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise RuntimeError("what a library makes of it") from None

    assert exits.run_command(body, signals.GOES_ON) == 143
    said = "stopped by SIGTERM; the same command goes on from here\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), BrokenPipeError("a bug")])
def test_a_bug_before_the_place_where_a_signal_stops_keeps_its_traceback(error, capsys):
    def body():
        with signals.deferred():
            signal.raise_signal(signal.SIGTERM)
            fail(error)

    assert exits.run_command(body, signals.GOES_ON) == 143
    first, *_, bug, last = capsys.readouterr().err.splitlines()
    assert first.startswith("Traceback") and bug == f"{type(error).__name__}: a bug"
    assert last == (
        "stopped by SIGTERM; it failed as above, and the same command goes on from the last"
        " checkpoint"
    )


def test_ctrl_c_that_ends_the_reader_of_the_output_loses_nothing(tmp_path):
    """As with `2>&1 | tee log`: what is told on the way to the checkpoint is read by nobody."""
    code = """
import logging, pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from fnas_jax.core import exits, signals
from fnas_jax.core.progress import Progress
def body():
    with signals.deferred():
        progress = Progress(2, 0, "search")
        print("ready", flush=True)
        while not signals.asked():
            time.sleep(0.01)
        progress.show(1, "best 0.5")
        logging.getLogger("fnas_jax").warning("something")
        pathlib.Path(sys.argv[1]).write_text("kept")
        signals.check()
signals.leave(exits.run_command(body, signals.GOES_ON))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "checkpoint")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout.readline() == b"ready\n"
    process.stdout.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert (tmp_path / "checkpoint").read_text() == "kept"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_output_to_a_full_disk_is_one_sentence():
    code = (
        "import sys; from fnas_jax.core import exits; sys.exit(exits.run_command(lambda: print(1)))"
    )
    with open("/dev/full", "w") as full:
        found = subprocess.run(
            [sys.executable, "-c", code],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        )
    expected = "error: the disk of 'standard output' is full; the same command goes on once there"
    assert (found.returncode, found.stderr) == (1, f"{expected} is room\n")


def test_success_and_help_exit_with_0(capsys):
    assert exits.run_command(lambda: None) == 0
    assert exits.run_command(lambda: fail(exits.Help("text"))) == 0
    assert capsys.readouterr() == ("text\n", "")


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(exits.frames, "where", lambda error: "")  # this file is no user's
    with pytest.raises(ZeroDivisionError) as bug:
        exits.run_command(lambda: 1 / 0)
    assert "report it" in bug.value.__notes__[0]


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    code = """
import sys
from fnas_jax.core import exits, signals
def body():
    raise exits.Help("line\\n" * 100000)
sys.exit(exits.run_command(body))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 1


def test_warnings_reach_the_terminal_of_every_command(capsys, monkeypatch):
    """Of one after another in a process whose stderr has been replaced in between."""
    log = logging.getLogger("fnas_jax")
    assert exits.run_command(lambda: log.warning("first")) == 0
    assert "warning: first" in capsys.readouterr().err
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    assert exits.run_command(lambda: log.warning("second")) == 0
    assert stream.getvalue() == "warning: second\n"
