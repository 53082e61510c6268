"""One knowledge folder for searches of all kinds: what one writes must not mislead the next."""

import contextlib
import json
import shutil

import numpy as np
import pytest

from fnas_jax import loop, meta_train, registry, report
from fnas_jax.core import config as config_lib
from fnas_jax.core import reward as rewards
from fnas_jax.core import workdir
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import history, sources
from fnas_jax.knowledge.sources import Asker
from tests.killing import killed_behind
from tests.methods import toy

SMALL = toy.SMALL_FNAS | {
    "method.name": "random",
    "search.budget": 30,
    "search.batch": 4,
    "tnas.hidden": 8,
    "tnas.fusion": (16, 8),
    "tnas.iterations": 4,
    "tnas.tasks": 1,
    "jax.cache_dir": "",
}


def write(path, decisions, choices=3, sign=1.0):
    """A table of all vectors; a network's cost is its accuracy, and both rise with `sign`."""
    path.parent.mkdir(parents=True)
    archs = np.stack(np.meshgrid(*[np.arange(choices)] * decisions, indexing="ij"), -1)
    lines = [",".join(f"decision_{t}" for t in range(decisions)) + ",acc,mflops"]
    for arch in archs.reshape(-1, decisions):
        value = 50 + sign * (5 * arch.sum() + arch[0] / 10)
        lines.append(",".join(map(str, arch)) + f",{value},{value}")
    path.write_text("\n".join(lines))


def run(folder, name, **changes):
    flat = SMALL | {
        "task.name": f"tabular/{folder / name.split('-')[0] / 'net.csv'}",
        "knowledge.dir": str(folder / "knowledge"),
    }
    flat |= {key.replace("__", "."): value for key, value in changes.items()}
    config = config_lib.nest(config_lib.flatten(config_lib.default()) | flat)
    return loop.run(config, folder / "runs" / name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The store after searches on tables of one stem: 4 decisions, 3 decisions, other rewards.

    What is to be learnt for `also`, a task like `four`.
    """
    folder = tmp_path_factory.mktemp("shared")
    write(folder / "four" / "net.csv", 4)
    write(folder / "three" / "net.csv", 3, choices=4)
    write(folder / "also" / "net.csv", 4, sign=0.9)
    run(folder, "four")
    run(folder, "three")
    # The same task again, where what costs more is worth less: the stored order is the other one.
    paid = {"reward__cost": "mflops", "reward__target": 50.0}
    run(folder, "four-paid", seed=1, reward__alpha=-3.0, reward__beta=-3.0, **paid)
    return folder


def test_rows_say_their_space_and_protocol(folder):
    with contextlib.closing(history.open_(folder / "knowledge")) as connection:
        groups = history.groups(connection)
    assert [(g.task, g.space, g.runs) for g in groups] == [
        ("tabular/net", "categorical/net", 2),
        ("tabular/net", "categorical/net", 1),
    ]
    assert len({g.space_key for g in groups}) == len({g.protocol for g in groups}) == 2
    assert all(json.loads(g.settings)["metric"] == "acc" for g in groups)


@pytest.mark.parametrize(
    "method",
    ["fnas", pytest.param("tnas", marks=pytest.mark.slow)],  # both read by `sources.load`
)
def test_searches_learn_from_comparable_rows_only(folder, method, caplog):
    name = f"also-{method}"
    result = run(folder, name, method__name=method, search__budget=8)
    assert result["counts"]["trained"] >= 8
    assert "of another space named categorical/net" in caplog.text
    lines = (folder / "runs" / name / "metrics.jsonl").read_text().splitlines()
    known = json.loads(lines[-1])["foreign_rows"]
    assert known > 0
    # Whoever learnt from the stored rewards, of which half are upside down, would not know.
    assert result["best"]["accuracy"] > 0.8  # of 0.862 at most


@pytest.mark.slow  # rows are chosen by `sources.load`, as in the search above
def test_meta_training_and_report_take_the_same_store(folder, capsys):
    arguments = [f"--config.{k}={v}" for k, v in SMALL.items() if k.startswith("tnas.")]
    arguments += [
        f"--config.task.name=tabular/{folder / 'also' / 'net.csv'}",
        "--config.jax.cache_dir=",
        f"--knowledge={folder / 'knowledge'}",
    ]
    assert meta_train.main([a.replace(" ", "") for a in arguments]) == 0
    out = capsys.readouterr()
    assert "rows of tabular/net (" in out.out
    assert out.err.count("of another space named categorical/net") == 1
    assert report.command([f"--workdir={folder / 'runs' / 'four'}"]) == 0
    page = (folder / "runs" / "four" / "report.html").read_text()
    assert "Knowledge store" in page and "categorical/net" in page


def test_two_tables_of_one_stem_are_two_tasks(folder, tmp_path):
    """By their contents: a copy elsewhere is the same task, whose rows teach nothing."""
    write(tmp_path / "copy" / "net.csv", 4)
    write(tmp_path / "turned" / "net.csv", 4, sign=-1.0)
    found = {}
    with contextlib.closing(history.open_(folder / "knowledge")) as connection:
        before = connection.execute("SELECT min(time) FROM evaluations WHERE seed = 1").fetchone()
        for name in ("copy", "turned"):
            config = config_lib.default()
            config.task.name = f"tabular/{tmp_path / name / 'net.csv'}"
            task = registry.build_task(config)
            asker = Asker(task.space, task.name, task.evaluator.protocol, rewards.define(config))
            found[name] = sources.find(connection, asker, before[0] - 1e-3).counts
    assert (found["copy"].used, found["copy"].own) == (0, 30)
    assert (found["turned"].used, found["turned"].own) == (30, 0)
    assert found["turned"].other_spaces == {"categorical/net": 30}


@pytest.mark.slow  # rows are pinned by `sources.load`, as its own tests say
@pytest.mark.parametrize("method", ["fnas", "tnas"])
def test_a_search_goes_on_as_it_began_whatever_has_become_of_the_store(folder, tmp_path, method):
    store = shutil.copytree(folder / "knowledge", tmp_path / "knowledge")
    shutil.copytree(folder / "also", tmp_path / "also")
    changes = {"method__name": method, "search__budget": 12, "knowledge__dir": str(store)}
    whole = run(tmp_path, "also-whole", **changes)
    with killed_behind(2, KeyboardInterrupt):
        run(tmp_path, "also-killed", **changes)
    mine = json.loads((tmp_path / "runs" / "also-killed" / "run.json").read_text())["id"]
    with contextlib.closing(history.open_(store)) as connection:
        connection.execute("DELETE FROM evaluations WHERE run != ? AND iteration > 0", (mine,))
    result = run(tmp_path, "also-killed", **changes)
    assert {k: v for k, v in result.items() if k not in ("seconds", "resumed")} == {
        k: v for k, v in whole.items() if k not in ("seconds", "resumed")
    }
    (tmp_path / "runs" / "also-killed" / workdir.PINNED).unlink()
    with pytest.raises(UserError, match=r"other rows of the knowledge store, .* taken\.npz"):
        run(tmp_path, "also-killed", **changes | {"search__budget": 16})
