"""A search, then meta-learning from it, then a search that uses it: by the commands themselves."""

import contextlib
import io
import itertools
import json
import re

import numpy as np
import pytest

from fnas_jax import main, meta_train

GAINS = np.array([0.0, 0.5, 0.8, 1.0, 0.3])  # of five choices
WEIGHTS = {"one": (1.0, 0.6, 0.9), "two": (0.7, 0.9, 1.0)}


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    """The folder of two tables of one stem, which are alike: 125 networks of one space."""
    folder = tmp_path_factory.mktemp("tables")
    for name, weights in WEIGHTS.items():
        lines = ["decision_0,decision_1,decision_2,accuracy,mflops"]
        for arch in itertools.product(range(5), repeat=3):
            accuracy = 40 + 9 * GAINS[list(arch)] @ weights
            lines.append(f"{','.join(map(str, arch))},{accuracy:.4f},{1 + sum(arch)}")
        (folder / name).mkdir()
        (folder / name / "net.csv").write_text("\n".join(lines))
    return folder


def arguments(folder, task, *more):
    return [
        f"--config.task.name=tabular/{folder / task / 'net.csv'}",
        "--config.tnas.hidden=8",
        "--config.tnas.fusion=(16,8)",
        "--config.tnas.iterations=10",
        "--config.tnas.tasks=1",
        "--config.jax.cache_dir=",
        "--config.log.tensorboard=False",
        *more,
    ]


@pytest.fixture(scope="module")
def learnt(made_up, tmp_path_factory):
    """(arguments of a search that knows what another one has taught, its store, what was said)."""
    store = tmp_path_factory.mktemp("learnt") / "knowledge"
    known = f"--config.knowledge.dir={store}"
    history = ("--config.method.name=random", "--config.search.budget=80", known)
    first = arguments(made_up, "one", *history, f"--workdir={store.parent / 'one'}")
    asked = arguments(made_up, "two", "--config.method.name=tnas", known)
    asked += ["--config.search.budget=8", "--config.search.batch=2"]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main.main(first) == 0
        assert meta_train.main([*asked, f"--knowledge={store}"]) == 0
    return asked, store, (out.getvalue(), err.getvalue())


def test_it_learns_from_the_tasks_of_a_store_and_not_twice(learnt, capsys):
    asked, store, (out, err) = learnt
    assert "learnt from" in out and "rows of tabular/net (" in out
    assert "no images of tabular/net" in err
    assert re.search(r"(\d+)/\1 iterations: best tau on what is held out -?\d\.\d+\n", err)
    assert meta_train.main([*asked, f"--knowledge={store}"]) == 0
    assert "is there already" in capsys.readouterr().out


@pytest.mark.slow  # tests/methods/tnas/test_build.py finds what is stored as a search does
def test_what_one_task_has_taught_helps_on_the_next(learnt, tmp_path):
    asked, _, _ = learnt
    assert main.main([*asked, f"--workdir={tmp_path / 'b'}"]) == 0
    lines = (tmp_path / "b" / "metrics.jsonl").read_text().splitlines()
    assert not any("prepare" in line for line in lines)  # found, not learnt again
    assert json.loads(lines[-1])["foreign_rows"] > 60
    result = json.loads((tmp_path / "b" / "result.json").read_text())
    assert 8 <= result["counts"]["trained"] <= 9
    assert result["winner"]["regret_points"] < 10


def test_bad_input_exits_with_two(made_up, tmp_path, capsys):
    asked = arguments(made_up, "two")
    assert meta_train.main(asked) == 2
    assert "--knowledge is missing" in capsys.readouterr().err
    assert meta_train.main([*asked, f"--knowledge={tmp_path}"]) == 2
    assert "has no history.sqlite" in capsys.readouterr().err
    assert meta_train.main(["--help"]) == 0
    assert "--knowledge" in capsys.readouterr().out
