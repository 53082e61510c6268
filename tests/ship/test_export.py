"""Exported networks: each format by itself is the network that was kept, or is not left there."""

import functools
import importlib.util
import json
import pathlib
import re
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export
from sklearn import metrics

import fnas_jax
from fnas_jax import export
from fnas_jax.core.logging import write_json
from fnas_jax.core.types import IGNORE
from fnas_jax.layers import ops, spec
from fnas_jax.networks import readable
from fnas_jax.objectives import base as objectives
from fnas_jax.objectives import classification, multilabel, regression, segmentation
from fnas_jax.objectives.base import Known
from fnas_jax.ship import best, flax_source, formats, judge, stock
from fnas_jax.ship import winner as ship
from tests.ship import winners


@pytest.fixture(scope="module")
def workdir_of(data_file, tmp_path_factory):
    """The workdir of a finished search in the space of a name."""

    def make(name):
        folder = tmp_path_factory.mktemp(name)
        found = winners.trained(name, data_file)
        ship.keep(folder, found, pytest.fail)
        write_json(folder / "config.json", found.config.to_dict())
        return folder

    return make


@pytest.fixture(scope="module")
def mnas(workdir_of):
    return workdir_of("mnas")


def imported(path, monkeypatch):
    """The module in a file."""
    found = importlib.util.spec_from_file_location("exported_model", path)
    module = importlib.util.module_from_spec(found)
    monkeypatch.setitem(sys.modules, "exported_model", module)
    found.loader.exec_module(module)
    return module


def run(workdir, out, *more):
    return export.command([f"--workdir={workdir}", f"--out={out}", *more])


@pytest.mark.parametrize("none", [[], (), ""])
def test_no_format_is_refused_and_one_may_stand_alone(mnas, tmp_path, capsys, none):
    if isinstance(none, str):
        assert run(mnas, tmp_path / "out", "--format=") == 2
        assert "no format was given; allowed are" in capsys.readouterr().err
    else:
        with pytest.raises(fnas_jax.UserError, match="no format was given; allowed are"):
            export.export(mnas, tmp_path / "out", none)
    with pytest.raises(fnas_jax.UserError, match=r"format is 'flaxx'.* mean 'flax'"):
        export.export(mnas, tmp_path / "out", "flaxx")
    assert not (tmp_path / "out").exists()


def test_a_user_s_images_are_classified_once_and_need_labels(mnas, tmp_path, capsys, monkeypatch):
    model = fnas_jax.load(mnas)
    images = np.zeros((3, model.inputs.height, model.inputs.width, model.inputs.channels))
    images = images.astype(model.inputs.dtype)
    real, seen = type(model).predict, []
    counted = lambda self, *a: seen.append(1) or real(self, *a)  # noqa: E731
    monkeypatch.setattr(type(model), "predict", counted)
    monkeypatch.setattr(export, "write", lambda *_: True)
    for given, message in (
        ((images, None), "images were given without labels"),
        ((None, [0, 1, 2]), "labels were given without images"),
        ((images, [0, 1]), "3 images and 2 labels"),
        ((images[:0], []), "0 images and 0 labels"),
    ):
        with pytest.raises(fnas_jax.UserError, match=message):
            export.export(mnas, tmp_path / "out", "jax", *given)
    assert not seen and not (tmp_path / "out").exists()
    assert export.export(mnas, tmp_path / "out", "jax", images, [0, 1, 2])
    assert len(seen) == 1


@pytest.mark.parametrize(
    "space",
    [pytest.param(s, marks=[pytest.mark.slow] * (s != "mnas")) for s in winners.SPACES],
)
def test_each_format_says_the_same_of_the_test_images(workdir_of, tmp_path, capsys, space):
    folder = workdir_of(space)
    assert run(folder, tmp_path / "out") == 0
    printed = capsys.readouterr().out
    accuracies = re.findall(r"^(\w+) +test accuracy (\S+?%)", printed, re.MULTILINE)
    assert [name for name, _ in accuracies] == ["kept", "safetensors", "flax", "jax"]
    assert len({accuracy for _, accuracy in accuracies}) == 1
    known = fnas_jax.load(folder).architecture["accuracy"]["test"]
    assert accuracies[0][1] == f"{100 * known:.2f}%"
    written = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")}
    assert written == {
        "safetensors/README.md",
        "safetensors/architecture.json",
        "safetensors/weights.safetensors",
        "flax/architecture.json",
        "flax/model.py",
        "flax/weights.safetensors",
        "jax/architecture.json",
        "jax/load.py",
        "jax/network.jax_export",
    }
    source = (tmp_path / "out" / "flax" / "model.py").read_text()
    assert "import fnas_jax" not in source and "mask" not in source
    assert (
        ("class Cell" in source)
        == ("class Reduction" in source)
        == ("cell_channels" in winners.SPACES[space])
    )
    again = fnas_jax.load(tmp_path / "out" / "safetensors")
    assert again.architecture == fnas_jax.load(folder).architecture


@pytest.mark.parametrize("space", winners.SPACES)
def test_onnx_says_the_same(workdir_of, tmp_path, capsys, space):
    pytest.importorskip("jax2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    folder = workdir_of(space)
    assert run(folder, tmp_path, "--format=onnx") == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 3 and captured.err == ""
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "network.onnx"))
    pixels, model = winners.images(5)[0], fnas_jax.load(folder)
    for count in (1, 5):  # any number of uint8 images
        found = session.run(["labels", "probabilities"], {"images": pixels[:count]})
        for got, wanted in zip(found, model.predict(pixels[:count]), strict=True):
            np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_the_jax_program_runs_on_all_platforms_and_any_number_of_raw_images(mnas):
    model = fnas_jax.load(mnas)
    content = formats.files_of("jax", model, mnas / "best")["network.jax_export"]
    exported = jax_export.deserialize(bytearray(content))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert exported.in_avals[0].dtype == jnp.uint8
    pixels = winners.images(5)[0]
    for count in (1, 5):
        labels, probabilities = exported.call(pixels[:count])
        wanted = model.predict(pixels[:count])
        np.testing.assert_array_equal(labels, wanted[0])
        np.testing.assert_allclose(probabilities, wanted[1], atol=1e-5)


def test_a_format_that_differs_is_not_left_there(mnas, tmp_path, monkeypatch, capsys):
    assert run(mnas, tmp_path, "--format=flax") == 0
    before = (tmp_path / "flax" / "model.py").read_bytes()
    capsys.readouterr()
    source = flax_source.source
    # Another network of the same variables.
    monkeypatch.setattr(flax_source, "source", lambda r: source(r).replace("relu6", "tanh"))
    assert run(mnas, tmp_path, "--format=flax,safetensors") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("flax") and lines[1].endswith("it is not written")
    assert "differs from" in lines[1]
    assert lines[2].startswith("safetensors")  # the others are written all the same
    assert (tmp_path / "flax" / "model.py").read_bytes() == before
    monkeypatch.setattr(flax_source, "source", lambda r: "def load(): raise ValueError('broken')")
    assert run(mnas, tmp_path, "--format=flax") == 1
    assert "cannot be loaded: ValueError: broken" in capsys.readouterr().out
    assert (tmp_path / "flax" / "model.py").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--format=flaxx"], "format is 'flaxx'; allowed are safetensors, flax, jax, onnx; did"),
        (["--out="], "--out is missing"),
        (["--workdir="], "--workdir is missing"),
        (["--out=/dev/null/x"], "'/dev/null/x' cannot be written"),
    ],
)
def test_wrong_input_is_one_sentence(mnas, tmp_path, capsys, more, sentence):
    assert run(mnas, tmp_path / "out", *more) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_told_before_anything_is_written(mnas, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    assert run(mnas, tmp_path / "out", "--format=safetensors,onnx") == 2
    assert "pip install fnas-jax[onnx]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_search_without_network_and_other_images_are_told(mnas, data_file, tmp_path, capsys):
    folder = pathlib.Path(shutil.copytree(mnas, tmp_path / "w"))
    config = json.loads((folder / "config.json").read_text())
    config["task"]["split_seed"] = 7
    write_json(folder / "config.json", config)
    assert run(folder, tmp_path / "out") == 2
    assert "are not those that the network was trained on" in capsys.readouterr().err
    shutil.rmtree(folder / "best")
    assert run(folder, tmp_path / "out") == 2
    assert "best/" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_any_names_of_classes_and_data_make_a_source(mnas, tmp_path, monkeypatch):
    record, _ = best.read(mnas)
    names = ['a "quoted" one', "back\\slash", "line\nbreak", "grün", "\N{GRINNING FACE}", "'"]
    record["inputs"]["classes"] = names * 40
    record["data"]["name"] = 'images/C:\\new\\"""data'
    (tmp_path / "model.py").write_text(flax_source.source(record))
    assert tuple(names * 40) == imported(tmp_path / "model.py", monkeypatch).CLASSES


@pytest.mark.parametrize(("test", "said"), [(0.5, "0.5000"), (None, "unknown")])
def test_a_source_says_what_is_known_of_test_images(test, said):
    found = flax_source._tested(classification.of(3, "macro_f1"), test)
    assert found == f"Macro_f1 on test images: {said}."


def test_activations_are_those_of_the_layers():
    x = jnp.linspace(-8, 8, 101)
    assert readable.ACTS.keys() == {spec.NONE, spec.RELU, spec.RELU6, spec.HARD_SWISH}
    for code, name in readable.ACTS.items():
        written = eval(flax_source._ACTS[name], {"nn": stock.nn, "linear": stock.linear})
        np.testing.assert_allclose(written(x), ops.activate(code, x), atol=1e-6)


def test_judges_in_a_process_without_this_package(tmp_path):
    (tmp_path / "load.py").write_text(
        "import sys\nimport numpy as np\n"
        "def load():\n"
        "    assert 'fnas_jax' not in sys.modules and 'jax' not in sys.modules\n"
        "    return lambda x: (x[:, 0], np.stack([x[:, 0], 1.0 - x[:, 0]], 1))\n"
    )
    images = np.random.default_rng(0).random((judge.BATCH + 3, 2))
    labels, probabilities = judge.outcome(tmp_path, "load", images)
    np.testing.assert_array_equal(labels, images[:, 0])
    assert probabilities.shape == (judge.BATCH + 3, 2)
    assert not (tmp_path / "__pycache__").exists()
    (tmp_path / "load.py").write_text("import fnas_jax\ndef load():\n    return lambda x: (x, x)\n")
    with pytest.raises(RuntimeError, match="AssertionError"):
        judge.outcome(tmp_path, "load", images)


def test_a_model_file_can_be_trained_on(mnas, tmp_path, monkeypatch):
    """`train` records the moments of the batch, as Flax has it."""
    for name, content in formats.files_of("flax", fnas_jax.load(mnas), mnas / "best").items():
        (tmp_path / name).write_bytes(content)
    model = imported(tmp_path / "model.py", monkeypatch)
    images = model.normalise(winners.images(8)[0])
    fresh = jax.jit(model.Network().init)(jax.random.key(0), images)
    train = functools.partial(model.Network().apply, train=True, mutable=["batch_stats"])
    _, new = jax.jit(train)(fresh, images)
    assert not np.allclose(
        new["batch_stats"]["stem_norm"]["mean"], fresh["batch_stats"]["stem_norm"]["mean"]
    )


def judged_by(objective, targets, outputs):
    """What exports are compared with: the kept network gives `outputs`."""
    answers, scores = map(np.asarray, objective.answer(jnp.asarray(outputs, jnp.float32)))
    return export.Test(np.zeros((len(targets), 1)), objective, targets, answers, scores)


def compared(test, monkeypatch, answers, scores):
    monkeypatch.setattr(judge, "outcome", lambda *_: (np.asarray(answers), np.asarray(scores)))
    export.compare("jax", test, pathlib.Path("shipped"))


@pytest.mark.parametrize("centre", [0, 1, 1000])  # in deviations
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_values_are_compared_in_deviations_whatever_their_unit(monkeypatch, capsys, scale, centre):
    draw = np.random.default_rng(0)
    targets = scale * (centre + draw.normal(size=(40, 2)))
    objective = regression.make(regression.study(targets, 2, False), "mae")
    test = judged_by(objective, targets, draw.normal(size=(40, 2)))
    other = test.scores.copy()
    other[3, 1] += 2e-4 * scale
    compared(test, monkeypatch, other, other)
    error = np.abs(other - targets).mean()
    said = re.search(
        r"jax +test mae (\S+), scores within (\S+) deviations", capsys.readouterr().out
    )
    assert float(said[1]) == pytest.approx(error, rel=1e-4) and float(said[2]) < 3e-4
    other[3, 1] += 2e-3 * scale
    with pytest.raises(export.Differs, match=r"deviations, differs from test mae"):
        compared(test, monkeypatch, other, other)
    other[3, 1] = np.nan
    with pytest.raises(export.Differs):
        compared(test, monkeypatch, other, other)


@pytest.mark.parametrize("objective", [multilabel, segmentation])
def test_a_few_of_many_answers_may_differ_where_the_scores_are_the_same(
    monkeypatch, capsys, objective
):
    draw, dense = np.random.default_rng(0), objective is segmentation
    shape = (3, 100, 100) if dense else (10_000, 3)
    targets = draw.integers(0, 2, shape).astype(np.uint8)
    known = Known(2 if dense else 3, dict.fromkeys(objective.METRICS, 1.0))
    made = objective.make(known, "mean_iou" if dense else "micro_f1")
    outputs = draw.normal(size=(*shape, 2) if dense else shape)
    if dense:
        targets[0, :50] = IGNORE
    test = judged_by(made, targets, outputs)
    few, many = test.answers.copy(), test.answers.copy()
    few.flat[:3] = 1 - few.flat[:3]
    many.flat[:4] = 1 - many.flat[:4]
    compared(test, monkeypatch, few, test.scores)
    counted = targets != IGNORE
    flat = targets[counted], test.answers[counted]
    score = metrics.jaccard_score if dense else metrics.f1_score
    wanted = score(*flat, average="macro") if dense else score(*flat)
    assert f"test {made.measure.name} {100 * wanted:.2f}%" in capsys.readouterr().out
    with pytest.raises(export.Differs, match=f"differs from test {made.measure.name}"):
        compared(test, monkeypatch, many, test.scores)
    with pytest.raises(export.Differs):
        compared(test, monkeypatch, test.answers, test.scores + 2e-3)


def test_classes_are_said_by_the_metric_of_the_search(monkeypatch, capsys):
    draw = np.random.default_rng(0)
    targets, outputs = draw.integers(0, 3, 50), draw.normal(size=(50, 3))
    test = judged_by(classification.of(3, "macro_f1"), targets, outputs)
    compared(test, monkeypatch, test.answers, test.scores)
    wanted = metrics.f1_score(targets, outputs.argmax(1), average="macro")
    assert f"jax          test macro_f1 {100 * wanted:.2f}%, prob" in capsys.readouterr().out
    other = test.answers.copy()
    other[np.flatnonzero(other == targets)[0]] += 1
    with pytest.raises(export.Differs):
        compared(test, monkeypatch, other % 3, test.scores)


@pytest.mark.parametrize(("name", "expected"), [("regression", True), ("multilabel", False)])
def test_answers_and_scores_that_are_one_array_are_told(name, expected):
    """ONNX has one name for one value: such a network's second output has to be made."""
    objective = objectives.of(name, "", np.eye(3, dtype=np.int32), 3, False)
    shape = jax.ShapeDtypeStruct((2, 3), np.float32)
    assert formats.one_value(objective.answer, shape) == expected
