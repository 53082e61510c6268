"""A small real search on images by the command itself: killed and resumed, on devices and hosts."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

# The space, batch and training of tests/tasks/test_images.py, whose programs may be cached.
ARGUMENTS = [
    "--config.task.name=images/digits",
    "--config.space.blocks=1",
    "--config.space.strides=(2,)",
    "--config.space.stem=16",
    "--config.space.stem_stride=1",
    "--config.space.head=64",
    "--config.children.steps=30",
    "--config.children.batch_size=32",
    "--config.children.halving=2",  # of the children of the search; others are trained in full
    "--config.children.brackets=2",
    "--config.search.budget=8",
    "--config.search.batch=3",
    "--config.winner.steps=40",
    "--config.winner.reference=False",
    "--config.winner.finalists=3",  # one batch
    "--config.jax.cache_dir=",
    "--config.log.checkpoint_seconds=0",
]
NO_WINNER = "--config.winner.steps=0"
TIMES = ("seconds", "latency_ms", "resumed")


def start(folder, *flags, devices=None):
    """The command, on `devices`; None: on all cores."""
    env = dict(os.environ)
    if devices is not None:
        env["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={devices}"
        env["XLA_FLAGS"] += " --xla_cpu_multi_thread_eigen=false"
    return subprocess.Popen(
        [sys.executable, "-m", "fnas_jax.main", f"--workdir={folder}", *ARGUMENTS, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )


def start_hosts(folder, devices):
    """Two hosts of `devices` each; only the first writes to `folder`."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = [NO_WINNER, f"--coordinator=localhost:{port}", "--num_hosts=2"]
    folders = (folder, folder.with_name(folder.name + "_other"))
    return [start(f, *flags, f"--host_id={i}", devices=devices) for i, f in enumerate(folders)]


def finished(process):
    """What a process that succeeds has written: (stdout, stderr)."""
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out, err


def kill_after(process, folder, lines):
    """Kills `process` with -9 as soon as metrics.jsonl has so many lines; then the search."""
    wait_for_lines(process, folder, lines)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def wait_for_lines(process, folder, lines):
    """Returns as soon as the metrics.jsonl of `process` has so many lines."""
    metrics = folder / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n") >= lines):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


def timeless(value):
    """`value` without what depends on the clock."""
    if isinstance(value, dict):
        return {name: timeless(v) for name, v in value.items() if name not in TIMES}
    return value


def read(folder):
    return json.loads((folder / "result.json").read_text())


def rewards(folder):
    lines = (json.loads(line) for line in (folder / "metrics.jsonl").open())
    return [line.get("reward") for line in lines]


def searched(folder):
    """What a search has come to before its winner is trained."""
    result = {name: value for name, value in timeless(read(folder)).items() if name != "winner"}
    return result, rewards(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(folder, stdout, stderr) of a search on one device that nobody disturbs."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, *finished(start(folder, devices=1))


def test_a_search_on_digits_finds_trains_and_tests_a_winner(whole):
    folder, out, err = whole
    assert "final accuracy" in out
    result = read(folder)
    assert 8 <= result["counts"]["trained"] <= 10
    assert result["counts"]["failed"] == 0
    assert result["counts"]["prepared"] == 6  # a fair round
    assert 0 < result["counts"]["stopped"] < result["counts"]["trained"]
    assert result["winner"]["accuracy"] > 0.5
    assert result["best"]["accuracy"] > 0.5
    assert result["space"] == "mnas"
    assert len(result["finalists"]) == result["counts"]["finalists"] == 3
    of_finals = [entry["reward"] for entry in result["finalists"]]
    won = result["finalists"][of_finals.index(max(of_finals))]
    assert {name: result["best"][name] for name in won if name != "text"} == {
        name: value for name, value in won.items() if name != "text"
    }
    assert out.count("best of 3 trained again") == err.count("finals: the 3 best") == 1


@pytest.mark.slow  # a crash after any write is in test_loop.py, in a training in test_entrants.py
def test_killed_on_all_cores_it_goes_on_with_one_as_if_nothing_had_happened(whole, tmp_path):
    """The winner's training, too, whose numbers depend on how many devices share it."""
    folder = tmp_path / "run"
    kill_after(start(folder), folder, lines=2)
    assert not (folder / "result.json").exists()
    finished(start(folder, devices=1))
    resumed = read(folder)
    assert resumed["resumed"] == 1
    assert timeless(resumed) == timeless(read(whole[0]))
    np.testing.assert_array_equal(rewards(folder), rewards(whole[0]))


def test_two_hosts_of_two_devices_do_what_one_device_does(whole, tmp_path):
    folder = tmp_path / "run"
    first, second = start_hosts(folder, 2)
    assert "search accuracy" in finished(first)[0]
    assert "search accuracy" not in finished(second)[0]
    assert searched(folder) == searched(whole[0])
    assert not (tmp_path / "run_other").exists()  # the first host alone writes


@pytest.mark.slow  # the two above stand on the same ground
def test_a_search_begun_on_four_devices_goes_on_with_two(whole, tmp_path):
    folder = tmp_path / "run"
    kill_after(start(folder, NO_WINNER, devices=4), folder, lines=3)
    finished(start(folder, NO_WINNER, devices=2))
    assert read(folder)["resumed"] == 1
    assert searched(folder) == searched(whole[0])


@pytest.mark.slow
def test_a_host_that_dies_ends_the_search_which_goes_on_without_it(whole, tmp_path):
    folder = tmp_path / "run"
    first, second = start_hosts(folder, 1)
    kill_after(second, folder, lines=2)
    _, err = first.communicate(timeout=300)
    assert first.returncode == 1
    assert "a host of this search has gone; the same commands go on" in err
    assert "Traceback" not in err
    assert not (folder / "result.json").exists()
    finished(start(folder, NO_WINNER, devices=1))
    assert searched(folder) == searched(whole[0])
    for process in start_hosts(folder, 1):  # once more: there is nothing left to do
        finished(process)


@pytest.mark.slow
@pytest.mark.parametrize("sent_to", [(0,), (0, 1)])
def test_a_first_host_that_is_told_to_end_ends_all_and_all_go_on(whole, tmp_path, sent_to):
    """As a signal to one machine, or to all at once, as schedulers send it."""
    folder = tmp_path / "run"
    hosts = start_hosts(folder, 1)
    wait_for_lines(hosts[0], folder, 2)
    for number in sent_to:
        hosts[number].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=600)[1] for process in hosts]
    assert not [err for err in said if "Traceback" in err]
    assert hosts[0].returncode == 143
    assert said[0].endswith("stopped by SIGTERM; the same command goes on from here\n")
    if 1 in sent_to:
        assert hosts[1].returncode == 143
    else:  # it may hear of it by the end of the connection
        assert hosts[1].returncode == 1
        assert "go on from" in said[1].splitlines()[-1]
    assert not (folder / "result.json").exists()
    finished(start(folder, NO_WINNER, devices=1))
    assert searched(folder) == searched(whole[0])
