"""A function of the decisions as a task: what it returns counts, and its failures are told."""

import itertools
import json
import logging
import math
import os
import pathlib
import subprocess
import sys
import threading

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fnas_jax
from fnas_jax import report, trials
from fnas_jax.core import config as config_lib
from fnas_jax.core.measure import bounded
from fnas_jax.core.types import UserError
from fnas_jax.tasks.workers import Workers

SPACE = fnas_jax.categorical({"depth": [1, 2, 3, 4], "op": ["conv", "pool"], "skip": [True, False]})
SMALL = {"search.batch": 4, "log.tensorboard": False, "method.name": "random"}


def value(decisions):
    """2.5 at the least of 16: 16 distinct ones."""
    return 10 * decisions["depth"] - 5 * (decisions["op"] == "pool") - 2.5 * decisions["skip"]


def loss(decisions):
    return {"loss": value(decisions), "mflops": float(decisions["depth"])}


def moody(decisions):
    if decisions["depth"] == 1:
        raise ValueError("too shallow")
    return math.nan if decisions["depth"] == 2 else value(decisions)


def deadly(decisions):
    if decisions["depth"] == 1:
        os._exit(7)
    return value(decisions) / 100


def search(folder, function, budget=16, **more):
    task = fnas_jax.from_function(SPACE, function, **more)
    return fnas_jax.search(task=task, budget=budget, workdir=folder, **SMALL)


def test_the_least_loss_wins_and_reads_as_it_was_returned(tmp_path):
    found = search(tmp_path / "w", loss, metric="loss", direction="minimize")
    assert found.best["description"]["decisions"] == {"depth": 1, "op": "pool", "skip": True}
    assert found.best["value"] == 2.5 and found.best["mflops"] == 1
    metric = {"name": "loss", "direction": "minimize", "kind": "number", "scale": 1.0}
    assert found.content["metric"] == metric
    assert "loss 2.5" in repr(found) and "depth=1,op=pool,skip=True" in repr(found)
    known = trials.read(tmp_path / "w")
    assert len({t["text"] for t in known}) == len(known) == 16  # nothing is judged twice
    for trial in known:
        parts = dict(part.split("=") for part in trial["text"].split(","))
        expected = value(
            {"depth": int(parts["depth"]), "op": parts["op"], "skip": eval(parts["skip"])}
        )
        assert trial["accuracy"] == -expected


@pytest.mark.parametrize(
    "method", ["random", "gp", pytest.param("evolution", marks=pytest.mark.slow)]
)
def test_failures_are_the_worst_for_every_method(method, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        task = fnas_jax.from_function(SPACE, moody, metric="loss", direction="minimize")
        found = fnas_jax.search(
            task=task, workdir=tmp_path, budget=16, **SMALL | {"method.name": method}
        )
    known = trials.read(tmp_path)
    failed = [t for t in known if not t["ok"]]
    assert found.counts["failed"] == len(failed) >= 4
    assert found.best["description"]["decisions"]["depth"] == 3
    assert any("depth=1" in m and "ValueError: too shallow" in m for m in caplog.messages)
    assert any("depth=2" in m and "loss is nan" in m for m in caplog.messages)
    assert all(t["reward"] == 0 for t in failed)
    assert min(t["reward"] for t in known if t["ok"]) > 0


@pytest.mark.slow
def test_a_worker_that_dies_costs_one_evaluation(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        found = search(tmp_path, deadly, workers=2)
    assert found.counts["trained"] == 16 and found.counts["failed"] == 4
    assert sum("its process died" in m for m in caplog.messages) == 4
    alone = search(tmp_path / "alone", lambda d: math.nan if d["depth"] == 1 else deadly(d))
    assert found.best == alone.best


def test_what_workers_cannot_be_given_is_refused():
    with pytest.raises(fnas_jax.UserError, match="top of a module"):
        Workers(lambda d: 1.0, 2)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"direction": "min"}, "allowed are maximize, minimize"),
        ({"workers": -1}, "workers is -1"),
        ({"direction": "minimize"}, "an accuracy is maximised"),
        ({}, "the function returned \\['loss', 'mflops'\\]"),
        ({"metric": "lss"}, "without the metric 'lss'"),
    ],
)
def test_wrong_input_is_one_sentence(more, message, tmp_path):
    with pytest.raises(fnas_jax.UserError, match=message):
        search(tmp_path, loss, **more)


@pytest.mark.slow
def test_workers_survive_an_idle_death_and_what_cannot_be_sent(tmp_path):
    workers = Workers(odd, 1)
    process = workers.map([0])[0]
    os.kill(process, 9)
    assert workers.map([0])[0] != process  # another one, and nothing is lost
    assert isinstance(workers.map([1])[0], Exception)
    assert workers.map([0])[0]


def odd(argument):
    return (lambda: 0) if argument else os.getpid()


@pytest.mark.slow
def test_a_function_that_workers_cannot_import_is_told_before_anything_is_judged():
    code = (
        "from fnas_jax.tasks.workers import Workers\n"
        "def f(d): return 1.0\n"
        "try: Workers(f, 1).map([1])\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert printed.startswith("UserError workers=1 need a function that other processes can import")


def test_figures_that_are_no_accuracies_and_missing_costs_are_told(tmp_path):
    with pytest.raises(fnas_jax.UserError, match=r"accuracies lie in 0 to 1, metric= of"):
        search(tmp_path / "a", value)
    task = fnas_jax.from_function(SPACE, lambda d: 0.5)
    for more, message in {
        "limits": ({"latency_ms": 1.0}, "no latency_ms .* which limits.latency_ms needs"),
        "reward": ({"cost": "mflops", "target": 1.0}, "no mflops .* which reward.cost needs"),
    }.items():
        options = SMALL | {more: message[0]}
        with pytest.raises(fnas_jax.UserError, match=message[1]):
            fnas_jax.search(task=task, workdir=tmp_path / more, budget=8, **options)


@given(st.lists(st.floats(-1e9, 1e9, width=32), min_size=2, max_size=20))
def test_rewards_of_any_metric_keep_its_order_above_failures(values):
    rewards = np.asarray(bounded(jnp.asarray(values, jnp.float32)))
    assert (rewards > 0).all() and (rewards < 1).all()
    order = np.argsort(values, kind="stable")
    assert (np.diff(rewards[order]) >= 0).all()
    for i, j in itertools.pairwise(order):
        if values[j] - values[i] > 3e-5 * max(abs(values[i]), abs(values[j]), 0.01):
            assert rewards[j] > rewards[i]


def test_an_unfinished_run_notices_another_space_metric_or_function(tmp_path):
    search(tmp_path, value, budget=8, metric="size", name="own")
    (tmp_path / "result.json").unlink()
    others = [
        fnas_jax.from_function(SPACE, loss, metric="size", name="own"),
        fnas_jax.from_function(SPACE, value, metric="size", direction="minimize", name="own"),
        fnas_jax.from_function(
            fnas_jax.categorical({"depth": [1, 2, 3, 5], "op": ["conv", "pool"], "skip": [0, 1]}),
            value,
            metric="size",
            name="own",
        ),
    ]
    for other in others:
        with pytest.raises(fnas_jax.UserError, match=r"was begun on another (space|task or data)"):
            fnas_jax.resume(tmp_path, task=other)


def test_objects_are_needed_again_and_must_be_the_same(tmp_path):
    search(tmp_path / "a", value, budget=8, metric="size", name="own")
    (tmp_path / "a" / "result.json").unlink()
    with pytest.raises(
        fnas_jax.UserError,
        match=r"give it again to fnas_jax.resume\(workdir, task=..\)",
    ):
        fnas_jax.resume(tmp_path / "a")
    other = fnas_jax.from_function(SPACE, value, name="another")
    with pytest.raises(fnas_jax.UserError, match="not the one that the search began with"):
        fnas_jax.resume(tmp_path / "a", task=other)
    same = fnas_jax.from_function(SPACE, value, metric="size", name="own")
    assert fnas_jax.resume(tmp_path / "a", task=same).counts["trained"] >= 8


EXAMPLES = pathlib.Path(fnas_jax.__file__).parents[1] / "docs" / "examples"


def test_own_parts_are_found_by_name(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import fnas_jax\n"
        "space = fnas_jax.categorical({'a': [1, 2, 3], 'b': ['x', 'y']})\n"
        "task = fnas_jax.from_function(space, lambda d: d['a'] / 4 + 0.1 * (d['b'] == 'y'))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    found = fnas_jax.search(
        task="python:mine:task",
        workdir="w",
        budget=6,
        **SMALL | {"method.name": "own_method:build"},
    )
    assert found.best["description"]["text"] == "a=3,b=y"
    assert (
        fnas_jax.search(
            task="python:mine:task",
            workdir="w",
            budget=6,
            **SMALL | {"method.name": "own_method:build"},
        ).content
        == found.content
    )
    for name, message in {
        "python:mine:tsk": "mine has no 'tsk'; did you mean 'task'",
        "python:nothing:task": "nothing cannot be imported",
        "python:mine:space": "Space",
        "imges/digits": "starts with images/ or tabular/.*did you mean 'images'",
        "digits": "allowed are images/.., tabular/..",
    }.items():
        with pytest.raises(fnas_jax.UserError, match=message):
            fnas_jax.search(task=name, workdir="v", budget=6, **SMALL)


def test_choices_are_told_apart_and_parsed():
    arch = SPACE.parse("depth=3,op=pool,skip=False")
    np.testing.assert_array_equal(arch, [2, 1, 1])
    assert SPACE.describe(arch)["decisions"] == {"depth": 3, "op": "pool", "skip": False}
    other = fnas_jax.categorical({"depth": [1, 2, 3, 5], "op": ["conv", "pool"], "skip": [1, 0]})
    assert other.key != SPACE.key
    for wrong in ("depth=9,op=pool,skip=True", "depth=1", "depth=1,op=pool,skip=True,x=1"):
        with pytest.raises(UserError, match=r"allowed are|must say"):
            SPACE.parse(wrong)
    for options in ({"a": []}, {"a": [1, "1"]}, {"a": ["x,y"]}, {"a": "xy"}, {"a": [[1]]}, {}):
        with pytest.raises(UserError):
            fnas_jax.categorical(options)


def odd_loss(decisions):
    return {"loss": value(decisions) / 10 + 0.1, "mflops": 0.3}


def test_figures_are_those_of_the_function_to_the_last_digit(tmp_path, capsys):
    """Methods are told float32; what is written and shown is not."""
    found = search(tmp_path, odd_loss, metric="loss", direction="minimize")
    least = 2.5 / 10 + 0.1
    assert (found.best["value"], found.best["mflops"]) == (least, 0.3)
    assert found.pareto[0]["value"] == least == -found.pareto[0]["accuracy"]
    values = {t["text"]: t["value"] for t in trials.read(tmp_path)}
    assert values[found.best["description"]["text"]] == least
    (tmp_path / "result.json").unlink()  # of an unfinished one likewise
    assert trials.command([f"--workdir={tmp_path}", "--top=1"]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split()[1] == "loss" and line.split()[1] == "0.3500" and "accuracy" not in head
    page = report.write(str(tmp_path)).read_text()
    assert "Best so far" in page and '<div class="value">0.35</div>' in page


def test_a_report_names_the_task_s_own_metric(tmp_path):
    search(tmp_path, odd_loss, metric="loss", direction="minimize")
    page = report.write(str(tmp_path)).read_text()
    assert "Loss in the search" in page and "<td>0.35</td>" in page
    assert "accuracy" not in page.partition("<script")[0]


def test_an_accuracy_keeps_its_digits_and_is_the_reward(tmp_path, capsys):
    found = search(tmp_path, lambda d: d["depth"] / 10, budget=8)
    assert found.best["accuracy"] == found.best["reward"] == found.best["value"] in (0.3, 0.4)
    assert "(reward" not in capsys.readouterr().err  # they differ in no digit


class Landscape:
    """A function that is an object."""

    def __init__(self, slope, lock=None):
        self.slope, self.lock = slope, lock

    def __call__(self, decisions):
        return self.slope * decisions["depth"]


def test_an_object_is_known_by_what_it_holds(caplog):
    """Rows and runs of another one, of one class and name, are not its own."""
    config = config_lib.default()

    def protocol(*state):
        task = fnas_jax.from_function(SPACE, Landscape(*state), metric="height")
        return task(config).evaluator.protocol

    assert protocol(1.0) == protocol(1.0) != protocol(2.0)
    assert not caplog.records
    assert json.loads(protocol(1.0, threading.Lock()))["source"] == ""
    assert "another function than that of python:tests.tasks.test_function:Landscape" in caplog.text
