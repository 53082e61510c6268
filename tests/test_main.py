"""The command as a user calls it: exit codes, messages, and `kill -9` at random moments."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest

from fnas_jax import main as command
from fnas_jax import retrain
from tests.soak import disk, signals


@pytest.fixture
def table(tmp_path):
    """A user's table of 4 x 4 x 4 architectures."""
    lines = ["decision_0,decision_1,decision_2,accuracy"]
    for i in range(64):
        a, b, c = i // 16, i // 4 % 4, i % 4
        lines.append(f"{a},{b},{c},{90 - (a - 2) ** 2 - (b - 1) ** 2 - c / 2}")
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def arguments(table, workdir, *more):
    return [
        f"--workdir={workdir}",
        f"--config.task.name=tabular/{table}",
        "--config.method.name=evolution",
        "--config.evolution.population=8",
        "--config.evolution.sample=3",
        "--config.search.budget=40",
        "--config.search.batch=2",
        "--config.jax.cache_dir=",
        "--config.log.checkpoint_seconds=0",
        *more,
    ]


def timeless(folder):
    result = json.loads((folder / "result.json").read_text())
    return {name: value for name, value in result.items() if name not in ("seconds", "resumed")}


def fails(argv, capsys):
    """What a command called wrongly prints of the error: one line."""
    assert command.main(argv) == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()  # the last one; above it, what the task says of itself
    assert [line.startswith("error: ") for line in lines] == [False] * (len(lines) - 1) + [True]
    assert captured.out == ""
    return lines[-1] + "\n"


def test_a_search_ends_with_its_result(table, tmp_path, capsys):
    search = arguments(table, tmp_path / "w", "--config.search.budget=12")
    assert command.main(search) == 0
    captured = capsys.readouterr()
    assert "architectures trained in" in captured.out
    assert str(tmp_path / "w" / "result.json") in captured.out
    assert "iteration 1: mean accuracy" in captured.err
    assert "Traceback" not in captured.err and "WARNING" not in captured.err
    result = timeless(tmp_path / "w")
    assert result["counts"]["trained"] >= 12
    assert result["space"].startswith("categorical")

    # The same command again changes nothing; another configuration is refused by name.
    assert command.main(search) == 0
    assert timeless(tmp_path / "w") == result
    capsys.readouterr()
    message = fails([*search, "--config.seed=3"], capsys)
    assert "seed (0 there, 3 now)" in message

    assert retrain.command([f"--workdir={tmp_path / 'w'}", "--seed=5"]) == 0
    again = json.loads((tmp_path / "w" / "retrain.json").read_text())
    assert again["arch"] == result["best"]["arch"]
    assert again["winner"]["accuracy"] == result["winner"]["accuracy"]
    assert again["seed"] == 5


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (["--config.search.budgt=3"], ["'search.budgt'", "did you mean 'search.budget'"]),
        (["--config.search.budget=0"], ["search.budget is 0", "1 to 10000000"]),
        (["--config.search.budget=many"], ["search.budget is 'many'", "whole number"]),
        (["--config.method.name=evolutoin"], ["random, evolution", "did you mean 'evolution'"]),
        (["--config.task.name=tabular/absent.csv"], ["absent.csv"]),
        (["--config.task.name=tabular/macro"], ["task.data_dir"]),
        (["--config.task.name=imagse/digits"], ["images/ or tabular/", "did you mean 'images'"]),
        (["--config=absent.py"], ["'absent.py' does not exist"]),
        (["--workdir="], ["--workdir is missing"]),
        (["--workdir=/dev/null/w"], ["/dev/null/w", "cannot be written"]),
        (["--wrkdir=w"], ["wrkdir"]),
        (["--config.evolution.sample=9"], ["evolution.sample is 9"]),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(table, tmp_path, capsys, more, parts):
    message = fails(arguments(table, tmp_path / "w", *more), capsys)
    assert all(part in message for part in parts), message
    assert not (tmp_path / "w" / "config.json").exists()  # the folder is free for the right command


@pytest.mark.parametrize("name", ["digist", "tfds:no_such_set", "absent.npz"])
def test_an_unknown_data_set_is_told(tmp_path, capsys, name):
    pytest.importorskip("fnas_jax.tasks.images")
    argv = [f"--workdir={tmp_path}", f"--config.task.name=images/{name}", "--config.jax.cache_dir="]
    message = fails(argv, capsys)
    assert name.removeprefix("tfds:") in message


def test_a_malformed_row_of_a_table_is_told_with_its_line(table, tmp_path, capsys):
    lines = table.read_text().splitlines()
    lines[10] = "1,2,x,80"
    table.write_text("\n".join(lines))
    message = fails(arguments(table, tmp_path / "w"), capsys)
    assert "line 11" in message
    assert "table.csv" in message


def test_what_a_method_refuses_is_told_in_one_sentence(table, tmp_path, capsys):
    message = fails(arguments(table, tmp_path / "w", "--config.method.name=spos"), capsys)
    assert message.startswith("error: method.name is 'spos', which trains a network itself")
    assert not (tmp_path / "w" / "config.json").exists()


def test_retrain_trains_the_form_that_the_search_evaluates(table, tmp_path, monkeypatch, capsys):
    """Results of earlier versions may name the winner by another form."""
    assert command.main(arguments(table, tmp_path / "w")) == 0
    result = json.loads((tmp_path / "w" / "result.json").read_text())
    real, judged = retrain.registry.build_task, []

    def build_task(config):
        task = real(config)
        final = lambda arch, key: judged.append(arch.tolist()) or task.final(arch, key)  # noqa: E731
        mirrored = task.evaluator._replace(form=lambda archs: 3 - archs)
        return task._replace(final=final, evaluator=mirrored)

    monkeypatch.setattr(retrain.registry, "build_task", build_task)
    assert retrain.command([f"--workdir={tmp_path / 'w'}"]) == 0
    again = json.loads((tmp_path / "w" / "retrain.json").read_text())
    assert [again["arch"]] == judged == [[3 - a for a in result["best"]["arch"]]]


def test_the_terminal_tells_how_the_finals_decided():
    best = {"description": {"text": "a"}, "accuracy": 0.9, "reward": 0.85}
    counts, seconds = {"trained": 40}, {"total": 60.0}
    old = {"best": best, "winner": None, "counts": counts, "seconds": seconds}
    line = "search accuracy 90.00%, reward 0.8500"
    assert line in command.summary(old, "w").splitlines()  # of an earlier version
    found = old | {"finalists": [{}, {}, {}]}
    assert f"{line} (none of the 3 best gave a result when trained again)" in (
        command.summary(found, "w")
    )
    found["best"] = best | {"first_accuracy": 0.95, "first_reward": 0.9}
    assert f"{line} (best of 3 trained again; at first 95.00%)" in command.summary(found, "w")


def test_retrain_needs_a_finished_search(tmp_path, capsys):
    assert retrain.command([f"--workdir={tmp_path}"]) == 2
    assert "it has no config.json" in capsys.readouterr().err


def test_a_search_of_which_nothing_gave_a_result_has_failed(tmp_path, capsys, monkeypatch):
    (tmp_path / "lost.py").write_text(
        "import fnas_jax\n"
        "space = fnas_jax.categorical({'a': [1, 2, 3, 4]})\n"
        "task = fnas_jax.from_function(space, lambda d: float('nan'))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    argv = [f"--workdir={tmp_path / 'w'}", "--config.task.name=python:lost:task"]
    argv += ["--config.method.name=random", "--config.search.budget=2", "--config.search.batch=2"]
    for _ in range(2):  # when it is finished, too
        assert command.main(argv) == 1
        captured = capsys.readouterr()
        last = captured.err.splitlines()[-1]
        assert last.startswith("error: no architecture gave a result: 2 were trained, and 2 failed")
        assert "written to" in captured.out


@pytest.mark.parametrize(
    ("winner", "reason"),
    [
        ({"accuracy": None, "steps": 9, "kept": None}, "the training of the winner failed"),
        ({"accuracy": None, "finetuned": {"accuracy": None, "steps": 5}}, "in 5 steps"),
        ({"accuracy": None, "finetuned": {"accuracy": 0.5, "steps": 5}}, None),
        ({"accuracy": 0.5, "steps": 9, "kept": {"folder": "best"}}, None),
        ({"accuracy": None, "seconds": 0.0, "kept": None}, None),  # winner.steps is 0
        ({"value": 3.0, "kept": None}, None),  # a function
    ],
)
def test_a_winner_whose_training_failed_is_a_failure(winner, reason, monkeypatch, capsys):
    best = {"description": {"text": "n"}, "accuracy": 0.5, "reward": 0.5}
    counts, seconds = {"trained": 2, "failed": 0}, {"total": 1.0}
    result = {"best": best, "winner": winner, "counts": counts, "seconds": seconds}
    monkeypatch.setattr(command.loop, "run", lambda *_: result)
    assert command.main(["--workdir=w", "--config.seed=1"]) == (0 if reason is None else 1)
    assert (reason or "") in capsys.readouterr().err


def test_help_exits_with_0(capsys):
    assert command.main(["--help"]) == 0
    assert "--config.search.budget=64" in capsys.readouterr().out
    assert retrain.command(["--help"]) == 0
    assert "--steps" in capsys.readouterr().out


@pytest.mark.slow
def test_a_search_that_is_told_to_end_at_any_moment_ends_as_promised_and_goes_on():
    kinds = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    outcomes = signals.cases(tuple((kind, 2) for kind in kinds), seed=1)
    assert len(outcomes) == 6
    assert [case for case in outcomes if case[1] not in (signals.PROMISED, signals.EARLY)] == []


@pytest.mark.slow
def test_a_search_whose_disk_is_full_or_read_only_says_so_and_goes_on():
    if not disk.may_mount():
        pytest.skip("only root may mount")
    outcomes = disk.cases((88, 128, 268), ("checkpoints",))
    assert [case for case in outcomes if case[1] not in (disk.PROMISED, disk.OVER)] == []


@pytest.mark.slow
def test_kill_9_at_random_moments_changes_nothing(table, tmp_path):
    quick = ["--config.method.name=random", "--config.search.budget=30"]

    def start(folder):
        return subprocess.Popen(
            [sys.executable, "-m", "fnas_jax.main", *arguments(table, folder, *quick)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    whole = start(tmp_path / "whole")
    assert whole.wait(timeout=300) == 0, whole.stderr.read()
    moments = random.Random(0)
    folder = tmp_path / "killed"
    kills = 0
    for _ in range(2):
        process = start(folder)
        # From the first checkpoint of this process on, at any moment of the next iterations.
        before = newest(folder)
        while newest(folder) == before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        kills += process.wait(timeout=60) == -signal.SIGKILL
        process.stderr.close()
    assert kills > 0
    process = start(folder)
    assert process.wait(timeout=300) == 0, process.stderr.read()
    assert timeless(folder) == timeless(tmp_path / "whole")
    resumed = json.loads((folder / "result.json").read_text())["resumed"]
    assert resumed == kills


def newest(folder):
    """The newest checkpoint of a run, or -1."""
    steps = [int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdigit()]
    return max(steps, default=-1)
