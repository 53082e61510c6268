"""A small real search on images by the command itself, killed and resumed."""

import json
import signal
import subprocess
import sys
import time

import numpy as np

# The space, batch and training of tests/tasks/test_images.py, whose programs may be cached.
ARGUMENTS = [
    "--config.task.name=images/digits",
    "--config.space.blocks=1",
    "--config.space.strides=(2,)",
    "--config.space.stem=16",
    "--config.space.stem_stride=1",
    "--config.space.head=64",
    "--config.children.steps=100",
    "--config.children.batch_size=32",
    "--config.search.budget=8",
    "--config.search.batch=3",
    "--config.winner.steps=150",
    "--config.winner.reference=False",
    "--config.winner.finalists=3",  # one batch
    "--config.jax.cache_dir=",
    "--config.log.checkpoint_seconds=0",
]
TIMES = ("seconds", "latency_ms", "resumed")


def start(folder):
    return subprocess.Popen(
        [sys.executable, "-m", "fnas_jax.main", f"--workdir={folder}", *ARGUMENTS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def timeless(value):
    """`value` without what depends on the clock."""
    if isinstance(value, dict):
        return {name: timeless(v) for name, v in value.items() if name not in TIMES}
    return value


def test_a_search_on_digits_survives_kill_9(tmp_path):
    whole = start(tmp_path / "whole")
    out, err = whole.communicate(timeout=600)
    assert whole.returncode == 0, err
    assert "final accuracy" in out
    result = json.loads((tmp_path / "whole" / "result.json").read_text())
    assert 8 <= result["counts"]["trained"] <= 10
    assert result["counts"]["failed"] == 0
    assert result["counts"]["prepared"] == 6  # a fair round
    assert result["winner"]["accuracy"] > 0.5
    assert result["best"]["accuracy"] > 0.5
    assert result["space"] == "mnas"
    assert len(result["finalists"]) == result["counts"]["finalists"] == 3
    rewards = [entry["reward"] for entry in result["finalists"]]
    won = result["finalists"][rewards.index(max(rewards))]
    assert {name: result["best"][name] for name in won if name != "text"} == {
        name: value for name, value in won.items() if name != "text"
    }
    assert out.count("best of 3 trained again") == err.count("finals: the 3 best") == 1

    killed = start(tmp_path / "killed")
    lines = tmp_path / "killed" / "metrics.jsonl"
    while not (lines.exists() and lines.read_text().count("\n") >= 3):
        assert killed.poll() is None, killed.stderr.read()
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "killed" / "result.json").exists()
    again = start(tmp_path / "killed")
    _, err = again.communicate(timeout=600)
    assert again.returncode == 0, err
    resumed = json.loads((tmp_path / "killed" / "result.json").read_text())
    assert resumed["resumed"] == 1
    assert timeless(resumed) == timeless(result)
    rewards = [
        [json.loads(line).get("reward") for line in (tmp_path / run / "metrics.jsonl").open()]
        for run in ("whole", "killed")
    ]
    np.testing.assert_array_equal(*rewards)
