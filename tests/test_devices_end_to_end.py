"""A real search gives the same children on any number of devices and hosts, and after a restart."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.test_end_to_end import ARGUMENTS, timeless

SEARCH = [a for a in ARGUMENTS if "winner" not in a and "steps" not in a and "cache_dir" not in a]
SEARCH += [f"--config.{name}" for name in ("children.steps=20", "winner.steps=0")]
SEARCH += ["--config.winner.finalists=3"]


def start(folder, devices, *flags):
    of_xla = f"--xla_force_host_platform_device_count={devices} --xla_cpu_multi_thread_eigen=false"
    return subprocess.Popen(
        [sys.executable, "-m", "fnas_jax.main", f"--workdir={folder}", *SEARCH, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {of_xla}"},
    )


def start_hosts(folder, devices):
    """Two hosts of `devices` each; only the first writes to `folder`."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = [f"--coordinator=localhost:{port}", "--num_hosts=2"]
    folders = (folder, folder.with_name(folder.name + "_other"))
    return [start(f, devices, *flags, f"--host_id={i}") for i, f in enumerate(folders)]


def finished(process):
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out


def rewards(folder):
    lines = (json.loads(line) for line in (folder / "metrics.jsonl").open())
    return [line.get("reward") for line in lines]


def outcome(folder):
    result = timeless(json.loads((folder / "result.json").read_text()))
    return result, rewards(folder)


def wait_for_lines(process, folder, count):
    lines = folder / "metrics.jsonl"
    while not (lines.exists() and lines.read_text().count("\n") >= count):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    finished(start(folder, 1))
    return outcome(folder)


def test_two_hosts_of_two_devices_do_what_one_device_does(alone, tmp_path):
    folder = tmp_path / "run"
    first, second = start_hosts(folder, 2)
    assert "search accuracy" in finished(first)
    assert finished(second).count("search accuracy") == 0
    assert outcome(folder) == alone
    assert not (tmp_path / "run_other").exists()  # the first host alone writes
    for process in start_hosts(folder, 1):  # once more: there is nothing left to do
        finished(process)


@pytest.mark.slow  # the one above and the kill in test_end_to_end.py stand on the same ground
def test_a_search_begun_on_four_devices_goes_on_with_two(alone, tmp_path):
    folder = tmp_path / "run"
    killed = start(folder, 4)
    wait_for_lines(killed, folder, 3)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    finished(start(folder, 2))
    assert json.loads((folder / "result.json").read_text())["resumed"] == 1
    assert outcome(folder) == alone


@pytest.mark.slow
def test_a_host_that_dies_ends_the_search_which_goes_on_without_it(alone, tmp_path):
    folder = tmp_path / "run"
    first, second = start_hosts(folder, 1)
    wait_for_lines(first, folder, 2)
    second.send_signal(signal.SIGKILL)
    second.communicate()
    _, err = first.communicate(timeout=300)
    assert first.returncode == 1
    assert "a host of this search has gone; the same commands go on" in err
    assert "Traceback" not in err
    assert not (folder / "result.json").exists()
    finished(start(folder, 1))
    assert outcome(folder) == alone
