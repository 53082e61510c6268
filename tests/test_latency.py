"""The command: a table of this device from end to end, its use by a search, and exports timed."""

import json
import re

import numpy as np
import pytest

from fnas_jax import __main__ as command
from fnas_jax import latency
from fnas_jax.core import cli
from fnas_jax.core import config as config_lib
from fnas_jax.core.logging import write_json
from fnas_jax.ship import inputs, stopwatch
from fnas_jax.spaces import cell
from fnas_jax.timing import clock, lookup, make
from tests.ship import winners


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return winners.write_npz(tmp_path_factory.mktemp("data") / "set.npz", channels=1)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(clock, "ROUNDS", 2)
    monkeypatch.setattr(clock, "MOST_ROUNDS", 2)
    monkeypatch.setattr(make, "_TRIED", 1)


def arguments(data):
    """The space, the images and no cache, as flags."""
    flat = config_lib.flatten(winners.config_of("cell", data))
    named = [key for key in flat if key.startswith(("space.", "task.name", "jax."))]
    flags = [f"--config.{key}={flat[key]}" for key in named if key != "space.strides"]
    return ["latency", *flags]


def test_it_makes_a_table_that_says_how_good_it_is(data, tmp_path, quick, capsys):
    out = tmp_path / "t.json"
    # What the search says of latencies is no part of making a table of them.
    search = ("--config.latency.source=table:none.json", "--config.limits.latency_ms=0.000001")
    code = command.main([*arguments(data), *search, f"--out={out}", "--networks=2"])
    told = capsys.readouterr()
    assert code == 0, told.err
    found = json.loads(out.read_text())
    space = cell.make(channels=4, cells_per_stage=1)
    shape, classes = (winners.SIDE, winners.SIDE, 1), len(winners.CLASSES)
    rows = {unit.key for unit in lookup.of_space(space, shape, classes)}
    assert found["operations_ms"].keys() == rows
    assert f"{len(rows)} operations, 2 networks to fit and 2 to judge by" in told.err
    judged = found["validation"]
    measured, predicted = (np.asarray(judged[f"{n}_ms"]) for n in ("measured", "predicted"))
    assert judged["median_error"] == pytest.approx(np.median(abs(predicted / measured - 1)))
    texts = judged["texts"]
    assert len(texts) == len(set(texts)) == 2 and (measured > 0).all()
    predict = lookup.predictor(space, shape, classes, found["fixed_ms"], found["operations_ms"])
    archs = np.stack([space.parse(text) for text in texts])
    np.testing.assert_allclose(predict(archs), predicted, rtol=1e-4)
    assert f"median error {cli.percent(judged['median_error'])}" in told.out
    assert f"written to {out}" in told.out


def failure(capsys, *argv):
    assert command.main(["latency", *argv]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_a_place_that_cannot_be_written_is_told_before_anything_is_timed(
    data, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(make, "make", lambda *args: pytest.fail("it was timed"))
    (tmp_path / "file").write_text("")
    out = f"--out={tmp_path / 'file' / 't.json'}"
    assert "cannot be written" in failure(capsys, *arguments(data)[1:], out)


def test_wrong_input_is_one_sentence(data, tmp_path, capsys):
    assert "--out is missing" in failure(capsys, *arguments(data)[1:])
    assert "is there and is no file" in failure(capsys, *arguments(data)[1:], f"--out={tmp_path}")
    assert "networks" in failure(capsys, *arguments(data)[1:], "--out=t.json", "--networks=1")
    assert "is not the workdir of a run" in failure(capsys, "--workdir=/nowhere", "--out=t.json")
    argv = ("--workdir=w", "--config=fnas_digits", "--out=t.json")
    assert "--config and --workdir both say" in failure(capsys, *argv)
    table = tmp_path / "net.csv"
    table.write_text("decision_0,acc\n0,50\n1,60\n")
    argv = (f"--config.task.name=tabular/{table}", f"--out={tmp_path / 't.json'}")
    assert "trains no networks, so there is nothing to time" in failure(capsys, *argv)
    assert "search.budget cannot be changed here" in failure(
        capsys, f"--artefact={tmp_path}", "--config.search.budget=3"
    )
    assert "no network exported to jax, flax or onnx" in failure(capsys, f"--artefact={tmp_path}")


def test_a_table_that_predicts_badly_is_said():
    def table(**judged):
        return type("T", (), {"validation": judged, "operations_ms": {}, "device": ""})

    good = {"networks": 9, "median_error": 0.05, "largest_error": 0.2, "kendall_tau": 0.95}
    assert "not good" not in latency.quality(table(**good))
    for worse in ({"median_error": 0.11}, {"kendall_tau": 0.89}, {"kendall_tau": float("nan")}):
        assert "that is not good" in latency.quality(table(**good | worse))


LOADER = """
import time
import numpy as np

def load(folder="."):
    def predict(images):
        assert images.shape == (2, 4, 5, 3) and images.dtype == np.uint8
        time.sleep(0.02)
        return np.zeros(2, np.int32), np.zeros((2, 1), np.float32)
    return predict
"""


def exported(folder, program):
    """A folder as `export` writes it, of a network that is `program`."""
    taken = inputs.Inputs(4, 5, 3, "uint8", 0.0, 255.0, (0.0,) * 3, (1.0,) * 3, ("a",))
    write_json(folder / "architecture.json", {"inputs": inputs.described(taken)})
    (folder / "load.py").write_text(program)
    return folder


def test_an_exported_network_is_timed_by_its_own_loader(tmp_path, capsys):
    folder = exported(tmp_path, LOADER)
    options = ("--config.latency.batch_size=2", "--config.latency.repeats=4")
    assert command.main(["latency", f"--artefact={folder}", *options]) == 0
    told = re.match(
        r"([\d.]+) ms for 2 images on cpu: median of 4 passes, of which 5 to 95% took"
        r" ([\d.]+) to ([\d.]+) ms\n",
        capsys.readouterr().out,
    )
    median, low, high = map(float, told.groups())
    assert 20 <= low <= median <= high
    assert len(stopwatch.artefact(folder, 2, 3).ms) == 3
    assert {path.name for path in folder.iterdir()} == {"architecture.json", "load.py"}


def test_an_exported_network_that_fails_is_one_sentence(tmp_path, capsys):
    folder = exported(tmp_path, "def load():\n    raise OSError('no such weights')\n")
    error = failure(capsys, f"--artefact={folder}")
    assert "cannot be run: OSError: no such weights" in error


@pytest.mark.parametrize("content", [{}, [], {"inputs": {"height": "tall"}}])
def test_a_damaged_description_of_an_exported_network_is_one_sentence(content, tmp_path, capsys):
    folder = exported(tmp_path, LOADER)
    write_json(folder / "architecture.json", content)
    assert "architecture.json' is damaged: " in failure(capsys, f"--artefact={folder}")
