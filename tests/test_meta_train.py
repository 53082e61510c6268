"""A search, then meta-learning from it, then a search that uses it: by the commands themselves."""

import itertools
import json

import numpy as np
import pytest

from fnas_jax import main, meta_train
from fnas_jax.spaces import cell

GAIN = np.array([0.0, 0.5, 0.8, 1.0, 0.3])  # of the operations


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    """A table of all cells in the format of NATS-Bench, with two tasks that are alike."""
    space, folder = cell.make(), tmp_path_factory.mktemp("tables")
    lines = ["architecture,cifar10_test_accuracy,cifar100_test_accuracy"]
    weight = np.array([1.0, 0.6, 0.9, 0.7, 1.1, 1.3])
    for arch in itertools.product(range(5), repeat=6):
        form = cell.representatives()[np.array(arch) @ 5 ** np.arange(5, -1, -1)]
        gains = GAIN[(form // 5 ** np.arange(5, -1, -1)) % 5]
        one, two = 40 + 9 * gains @ weight, 20 + 8 * gains @ weight[::-1]
        lines.append(f"{space.describe(arch)['text']},{one:.4f},{two:.4f}")
    (folder / "nats_bench_tss.csv").write_text("\n".join(lines))
    return folder


def arguments(folder, task, *more):
    return [
        f"--config.task.name=tabular/{task}",
        f"--config.task.data_dir={folder}",
        "--config.tnas.hidden=8",
        "--config.tnas.fusion=(16,8)",
        "--config.tnas.iterations=10",
        "--config.tnas.tasks=1",
        "--config.jax.cache_dir=",
        "--config.log.tensorboard=False",
        *more,
    ]


def test_what_one_task_has_taught_helps_on_the_next(made_up, tmp_path, capsys):
    store = tmp_path / "knowledge"
    known = f"--config.knowledge.dir={store}"
    history = ("--config.method.name=random", "--config.search.budget=80", known)
    first = arguments(made_up, "nats_cifar10", *history, f"--workdir={tmp_path / 'a'}")
    assert main.main(first) == 0

    asked = arguments(made_up, "nats_cifar100", "--config.method.name=tnas", known)
    asked += ["--config.search.budget=8", "--config.search.batch=2"]
    learn = [*asked, f"--knowledge={store}"]
    assert meta_train.main(learn) == 0
    out = capsys.readouterr()
    assert "learnt from" in out.out and "tabular/nats_cifar10" in out.out
    assert "no images of tabular/nats_cifar100" in out.err
    assert meta_train.main(learn) == 0
    assert "is there already" in capsys.readouterr().out

    assert main.main([*asked, f"--workdir={tmp_path / 'b'}"]) == 0
    lines = (tmp_path / "b" / "metrics.jsonl").read_text().splitlines()
    assert not any("prepare" in line for line in lines)  # found, not learnt again
    assert json.loads(lines[-1])["foreign_rows"] > 60
    result = json.loads((tmp_path / "b" / "result.json").read_text())
    assert 8 <= result["counts"]["trained"] <= 9
    assert result["winner"]["regret_points"] < 10


def test_bad_input_exits_with_two(made_up, tmp_path, capsys):
    asked = arguments(made_up, "nats_cifar100")
    assert meta_train.main(asked) == 2
    assert "--knowledge is missing" in capsys.readouterr().err
    assert meta_train.main([*asked, f"--knowledge={tmp_path}"]) == 2
    assert "has no history.sqlite" in capsys.readouterr().err
    assert meta_train.main(["--help"]) == 0
    assert "--knowledge" in capsys.readouterr().out
