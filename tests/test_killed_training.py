"""Real trainings, killed in the middle: they go on there, and their results are the same."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.test_end_to_end import ARGUMENTS, timeless

LONG = ("children.steps", "winner.", "search.b", "jax.cache_dir")
ARGUMENTS = [
    *(a for a in ARGUMENTS if not any(name in a for name in LONG)),
    "--config.method.name=random",
    "--config.akp.enabled=False",
    "--config.search.budget=2",
    "--config.search.batch=2",
    "--config.children.steps=2",
    "--config.winner.steps=400",
]
# A training that takes seconds is kept as often as one of hours is not.
COMMAND = """
import sys
from fnas_jax import main
from fnas_jax.core import keep
from fnas_jax.tasks import long_batches
from fnas_jax.training import parts
keep.LEAST_SECONDS, parts.SECONDS, parts.APART, long_batches.SECONDS = 0.0, 0.1, 0, 0.0
sys.exit(main.main(sys.argv[1:]))
"""


def start(folder, *flags):
    two = "--xla_force_host_platform_device_count=2 --xla_cpu_multi_thread_eigen=false"
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, f"--workdir={folder}", *ARGUMENTS, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {two}"},
    )


def finished(process):
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return err


def steps_of(folder, name):
    return [int(p.name) for p in folder.glob(f"training/{name}--*/*") if p.name.isdigit()]


def killed_in(process, folder, name, least):
    """Kills it once `name` is kept after so many steps; the last of these."""
    while not [step for step in steps_of(folder, name) if step >= least]:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / "result.json").exists()
    return max(steps_of(folder, name))


@pytest.mark.slow  # tests/tasks/test_entrants.py and test_loop.py have the parts of it
def test_a_training_that_kill_9_ended_goes_on_and_its_result_is_the_same(tmp_path):
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    assert "400/400 steps of reference, loss" in finished(start(whole))
    assert 20 <= killed_in(start(folder), folder, "winner", 20) < 400
    assert 20 <= killed_in(start(folder), folder, "reference", 20) < 400
    assert steps_of(folder, "winner") and max(steps_of(folder, "winner")) == 400
    finished(start(folder))
    results = [json.loads((f / "result.json").read_text()) for f in (whole, folder)]
    assert results[1]["resumed"] == 2
    assert timeless(results[0]) == timeless(results[1])
    assert results[0]["winner"]["accuracy"] > 0.5
    assert not (folder / "training").exists()
    weights = [(f / "best" / "weights.safetensors").read_bytes() for f in (whole, folder)]
    assert weights[0] == weights[1]


@pytest.mark.slow  # tests/methods/oneshot/test_stages.py, test_loop.py and test_entrants.py
def test_a_supernet_that_kill_9_ended_twice_goes_on_and_its_result_is_the_same(tmp_path):
    """In the middle of a part that is logged, and in the fine-tuning of the winner."""
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    flags = [
        "--config.method.name=pgnas",
        "--config.oneshot.steps=150",
        "--config.oneshot.every=150",
        "--config.oneshot.finetune=150",
        "--config.winner.steps=0",
    ]
    err = finished(start(whole, *flags))
    assert "preparing: step 1: nll" in err and "preparing: step 1: " in err
    process = start(folder, *flags)
    while not (folder / "checkpoints" / "0").exists():  # that of 1 is after the first part
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (folder / "metrics.jsonl").read_text() == ""  # it was in the first part
    assert 20 <= killed_in(start(folder, *flags), folder, "fine-tuned-winner", 20) < 150
    finished(start(folder, *flags))
    results = [json.loads((f / "result.json").read_text()) for f in (whole, folder)]
    assert results[1]["resumed"] == 2
    assert timeless(results[0]) == timeless(results[1])
    lines = [(f / "metrics.jsonl").read_text().splitlines() for f in (whole, folder)]
    assert json.loads(lines[0][0]) == json.loads(lines[1][0])
    assert len(lines[0]) == len(lines[1])


@pytest.mark.slow  # tests/tasks/test_long_batches.py has the parts of it
def test_a_long_batch_that_kill_9_ended_goes_on_and_its_result_is_the_same(tmp_path):
    """Of children that start from a pool, which has learnt from an earlier batch."""
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    flags = [
        "--config.akp.enabled=True",
        "--config.akp.rounds=0",
        "--config.search.budget=4",
        "--config.children.steps=150",
        "--config.winner.steps=0",
    ]
    finished(start(whole, *flags))
    assert 20 <= killed_in(start(folder, *flags), folder, "children-*", 20) < 150
    finished(start(folder, *flags))
    results = [json.loads((f / "result.json").read_text()) for f in (whole, folder)]
    assert results[1]["resumed"] == 1
    assert timeless(results[0]) == timeless(results[1])
    assert not (folder / "training").exists()
