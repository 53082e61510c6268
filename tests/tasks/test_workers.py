"""Workers: a free one goes on, results keep their order, a killed one costs the call it was in."""

import logging
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

import fnas_jax
from fnas_jax import trials
from fnas_jax.core import signals
from fnas_jax.tasks.workers import Workers

PATIENCE = 60.0  # seconds, for processes that start on a busy machine
SPACE = fnas_jax.categorical({"depth": [1, 2, 3, 4], "op": ["conv", "pool"]})
VICTIM = {"depth": 2, "op": "pool"}


def wait_for(file):
    """The text of the file, once it is there and not empty."""
    end = time.monotonic() + PATIENCE
    while not (file.exists() and file.read_text()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited for {file.name}")
        time.sleep(0.01)
    return file.read_text()


def call(argument):
    """Says in a file who it is, then waits for the files of others."""
    folder, name, awaited = argument
    (folder / name).write_text(str(os.getpid()))
    for other in awaited:
        wait_for(folder / other)
    return name


def judge(decisions):
    """As the user's function; the first process that is given `VICTIM` would take for ever."""
    if decisions == VICTIM:
        folder = pathlib.Path(os.environ["FNAS_TEST_FOLDER"])
        call((folder, "victim", ["never"]))
    return decisions["depth"] / 10


def kill_when_it_says_who_it_is(file):
    def run():
        os.kill(int(wait_for(file)), signal.SIGKILL)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.fixture(scope="module")
def workers():
    return Workers(call, 2)


def test_nobody_waits_for_the_slowest_and_results_keep_their_order(workers, tmp_path):
    names = ["slow", "a", "b", "c"]
    # "slow" ends only when the other worker has called all others, one behind the other.
    found = workers.map([(tmp_path, name, names[1:] if name == "slow" else []) for name in names])
    assert found == names
    assert len({(tmp_path / name).read_text() for name in names}) == 2  # processes
    assert len({(tmp_path / name).read_text() for name in names[1:]}) == 1


def test_a_worker_killed_in_the_middle_costs_the_call_that_it_was_in(workers, tmp_path):
    killer = kill_when_it_says_who_it_is(tmp_path / "victim")
    names = ["a", "victim", "b", "c"]
    found = workers.map([(tmp_path, n, ["never"] if n == "victim" else []) for n in names])
    killer.join()
    assert isinstance(found[1], RuntimeError) and str(found[1]) == "its process died"
    assert [found[0], *found[2:]] == ["a", "b", "c"]
    assert workers.map([(tmp_path, "d", [])] * 2) == ["d", "d"]


def killing(number):
    """Sends the command and itself a signal, as a terminal does, and fails by it."""
    os.kill(os.getppid(), number)
    os.kill(os.getpid(), number)
    raise RuntimeError("as a program that this one has started")


def doubled(number):
    os.kill(os.getpid(), signal.SIGTERM)
    return 2 * number


@pytest.mark.slow
def test_a_signal_to_all_processes_of_a_command_fails_no_network():
    with signals.handled():
        assert Workers(doubled, 1).map([1, 2]) == [2, 4]
    with pytest.raises(signals.Stop), signals.handled(), signals.deferred():
        Workers(killing, 1).map([signal.SIGTERM])
        pytest.fail("it is a network that failed")


@pytest.mark.slow
def test_a_worker_ends_with_a_process_that_is_killed(tmp_path):
    """It is in a call that takes for ever, and holds the output of that process."""
    code = (
        "import pathlib; from tests.tasks.test_workers import Workers, call;"
        f" Workers(call, 1).map([(pathlib.Path({str(tmp_path)!r}), 'worker', ['never'])])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    worker = int(wait_for(tmp_path / "worker"))
    process.kill()
    try:
        assert process.communicate(timeout=PATIENCE) == (b"", None)
    except subprocess.TimeoutExpired:
        os.kill(worker, signal.SIGKILL)
        raise


def test_in_this_process_a_call_that_a_signal_may_have_ended_is_no_network_that_failed():
    def call(argument):
        signal.raise_signal(signal.SIGTERM)
        raise RuntimeError("as a program that it has started")

    with pytest.raises(signals.Stop), signals.handled(), signals.deferred():
        Workers(call, 0).map([1])
        pytest.fail("it is a network that failed")


@pytest.mark.slow
def test_a_search_loses_one_evaluation_with_the_worker_and_says_which(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("FNAS_TEST_FOLDER", str(tmp_path))
    killer = kill_when_it_says_who_it_is(tmp_path / "victim")
    small = {"search.batch": 4, "log.tensorboard": False, "method.name": "random"}
    with caplog.at_level(logging.WARNING):
        task = fnas_jax.from_function(SPACE, judge, workers=2)
        found = fnas_jax.search(task=task, budget=8, workdir=tmp_path / "run", **small)
    killer.join()
    assert found.counts["trained"] == 8 and found.counts["failed"] == 1
    assert [m for m in caplog.messages if "died" in m] == [
        "depth=2,op=pool failed: RuntimeError: its process died"
    ]
    known = trials.read(tmp_path / "run")
    assert [t["text"] for t in known if not t["ok"]] == ["depth=2,op=pool"]
    assert len({t["text"] for t in known}) == 8
