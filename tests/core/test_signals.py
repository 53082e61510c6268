"""What a command does with the signals that end it."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from fnas_jax.core import signals

# The second line: of a process in the background, which ignores Ctrl-C, the tests do not.
IMPORTS = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from fnas_jax.core import signals
"""


def send(number):
    os.kill(os.getpid(), number)


def ended(code, *, signal_after="", kind=signal.SIGINT, again=0.0):
    """(exit code, stderr) of a program that is sent a signal once it has printed a line."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal, sys, time\nfrom fnas_jax.core import signals\n" + code,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(kind)
    if again:
        time.sleep(again)
        process.send_signal(kind)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_a_command_where_it_is(number):
    before = signal.getsignal(number)
    with pytest.raises(signals.Stop) as stopped, signals.handled():
        send(number)
        pytest.fail("it went on")
    assert signals.code(stopped.value) == 128 + number
    assert signals.sentence(stopped.value).startswith(f"stopped by {signals.NAMES[number]}; ")
    assert signal.getsignal(number) is before
    assert signals.asked() == 0


def test_within_deferred_a_signal_is_noted_and_stops_where_nothing_is_lost():
    done = []
    with pytest.raises(signals.Stop, match="15"), signals.handled(), signals.deferred():
        signals.check()
        send(signal.SIGTERM)
        done.append(signals.asked())
        signals.check()
    assert done == [signal.SIGTERM]


def test_a_signal_that_comes_twice_at_once_is_one():
    with signals.handled():
        with pytest.raises(signals.Stop):
            send(signal.SIGTERM)
            pytest.fail("it went on")
        send(signal.SIGTERM)  # as a wrapper forwards it
        time.sleep(signals.ECHO)
        with pytest.raises(signals.Stop):
            send(signal.SIGTERM)
            pytest.fail("it went on")


@pytest.mark.parametrize(
    ("numbers", "ends"),
    [
        ([signal.SIGINT, signal.SIGINT], []),
        ([signal.SIGTERM, signal.SIGINT], [signal.SIGINT]),
    ],
)
def test_who_watches_takes_two_at_once_for_one(numbers, ends, monkeypatch):
    ended = []
    monkeypatch.setattr(signals, "_end", ended.append)
    reader, writer = os.pipe()
    os.write(writer, bytes(numbers))
    os.close(writer)
    signals._watch(reader, grace=60.0)
    os.close(reader)
    assert ended == ends


@pytest.mark.parametrize("last", [False, True])
def test_nothing_is_added_to_the_last_word(last, monkeypatch, capsys):
    said = []
    monkeypatch.setattr(signals, "_word", said.append)
    monkeypatch.setattr(signals, "SOON", 0.0)
    monkeypatch.setattr(signals._now, "told", False)
    reader, writer = os.pipe()
    if last:
        signals.last_word(signals.Stop(signal.SIGINT))
        assert capsys.readouterr().err.startswith("stopped by Ctrl-C; ")
    os.write(writer, bytes([signal.SIGINT]))
    thread = threading.Thread(target=signals._watch, args=(reader, 60.0))
    thread.start()
    time.sleep(0.2)
    os.close(writer)
    thread.join()
    os.close(reader)
    assert len(said) == (not last)


def test_what_nobody_reads_is_let_go():
    pipes = [os.pipe(), os.pipe()]
    (gone, broken), (there, whole) = pipes
    os.close(gone)
    signals._let_go((broken, whole))
    os.write(broken, b"x")
    os.write(whole, b"x")
    assert os.read(there, 1) == b"x"
    for handle in (broken, there, whole):
        os.close(handle)


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with signals.handled():
            send(signal.SIGHUP)
            signals.check()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_thread_and_a_caller_from_python_keep_their_handlers():
    before = [signal.getsignal(number) for number in signals.NAMES]
    seen = []

    def body():
        with signals.handled():
            seen.extend(signal.getsignal(number) for number in signals.NAMES)
            seen.append(signals.handling())

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [*before, False]
    with pytest.raises(KeyboardInterrupt):  # as pytest, a notebook has its own
        send(signal.SIGINT)
    assert signals.asked() == 0


class Callback:
    """Whose end calls what an interpreter lets raise nothing."""

    def __del__(self):
        send(signal.SIGINT)
        for _ in range(100):  # where handlers run
            pass


@pytest.fixture(autouse=True)
def interruptible():
    """Of a process in the background, which ignores Ctrl-C, the tests do not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_stop_that_is_lost_in_a_callback_comes_again():
    with pytest.raises(signals.Stop), signals.handled():
        Callback()
        time.sleep(5)
        pytest.fail("it went on")


def test_a_second_ctrl_c_ends_a_program_that_computes():
    code = """
import numpy as np
with signals.handled(signals.GOES_ON), signals.deferred():
    print("ready", flush=True)
    while True:
        np.linalg.svd(np.ones((600, 600)))
"""
    start = time.monotonic()
    code, said = ended(code, again=1.5)
    assert (code, said) == (
        130,
        "stopping where nothing is lost; Ctrl-C again ends at once\n"
        "stopped by Ctrl-C; the same command goes on from here\n",
    )
    assert time.monotonic() - start < 30


def test_sigterm_ends_one_that_finds_no_place_in_time():
    code = """
with signals.handled(grace=0.2), signals.deferred():
    print("ready", flush=True)
    time.sleep(60)
"""
    assert ended(code, kind=signal.SIGTERM) == (
        143,
        "stopped by SIGTERM; the same command begins again\n",
    )


def test_ctrl_c_waits_for_a_place_as_long_as_it_takes():
    code = """
with signals.handled(grace=0.2), signals.deferred():
    print("ready", flush=True)
    time.sleep(1.5)
    print("done", file=sys.stderr)
"""
    told = "stopping where nothing is lost; Ctrl-C again ends at once\n"
    assert ended(code) == (0, f"{told}done\n")


def test_one_whose_output_is_held_ends_in_time():
    """As by Ctrl-S, or behind a pipe that is full: the main thread waits for it, too."""
    code = """
import os
reader, writer = os.pipe()
os.dup2(writer, 2)
with signals.handled(grace=0.2), signals.deferred():
    print("ready", flush=True)
    print("x" * 1_000_000, file=sys.stderr)
"""
    assert ended(code, kind=signal.SIGTERM) == (143, "")


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_program_that_starts_ends_with_a_word(kind, code):
    source = """
signals.starting(signals.GOES_ON)
print("ready", flush=True)
time.sleep(60)
"""
    said = f"stopped by {signals.NAMES[kind]}; the same command goes on from here\n"
    assert ended(source, kind=kind) == (code, said)


def test_one_that_is_over_ends_with_its_own_code():
    code = """
import atexit
atexit.register(lambda: (print("ready", flush=True), time.sleep(60)))
signals.leave(2)
"""
    assert ended(code) == (2, "")


def test_a_process_that_helps_a_command_is_not_for_signals():
    with signals.handled():
        code = (
            "import os, signal; from fnas_jax.core import signals; os.kill(os.getpid(), 2);"
            " signals.ignored(); os.kill(os.getpid(), 15); print('whole')"
        )
        with signals.withheld():
            process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.communicate(timeout=60)[0] == b"whole\n"
        assert process.returncode == 0


def test_a_helper_lets_those_it_starts_ignore_what_it_was_told_to():
    """As of a search that `nohup` has started; handlers do not outlive the start of a program."""
    before = {number: signal.getsignal(number) for number in signals.NAMES}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signals.ignored()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        send(signal.SIGTERM)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
