"""The Python interface: arrays in, a result out; the same run as a command's."""

import ast
import functools
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

import fnas_jax
from fnas_jax import api, export, main, report, retrain, trials
from fnas_jax.core import config as config_lib
from fnas_jax.tasks import data
from tests.test_end_to_end import timeless

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (60, 8, 8), np.uint8)
Y = np.array(["cat", "dog"])[np.arange(60) % 2]
X[Y == "dog", :4] //= 4
SMALL = {
    "children.steps": 4,
    "children.batch_size": 8,
    "winner.steps": 4,
    "winner.reference": False,
    "space.blocks": 1,
    "search.budget": 2,
    "search.batch": 2,
    "log.tensorboard": False,
    "akp.enabled": False,
    "jax.cache_dir": "",
}


def search(workdir, *arrays, **more):
    return fnas_jax.search(*(arrays or (X, Y)), workdir=workdir, **SMALL | more)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return search(tmp_path_factory.mktemp("api") / "run", method="random")


def test_arrays_are_searched_and_the_winner_is_tested(found):
    assert found.counts["trained"] == 2
    assert 0 <= found.winner["accuracy"] <= 1
    assert found.best["description"]["text"] in repr(found)
    assert found.config.method.name == "random" and found.config.children.steps == 4
    assert found.content == json.loads((found.workdir / "result.json").read_text())


def test_the_winner_is_a_model(found):
    """On arrays, which only this process has; the split is the run's."""
    labels, probabilities = found.model.predict(X)
    assert labels.shape == (60,) and probabilities.shape == (60, 2)
    assert set(np.asarray(found.model.class_names)[labels]) <= {"cat", "dog"}
    record = found.model.architecture
    assert record["accuracy"]["test"] == pytest.approx(found.winner["accuracy"])
    assert record["data"]["name"] == found.config.task.name
    assert found.model.evaluate(X, Y) == (np.asarray(["cat", "dog"])[labels] == Y).mean()


def test_the_winner_is_exported_though_its_images_are_in_memory_only(found, tmp_path, capsys):
    with pytest.raises(fnas_jax.UserError, match="were in memory"):
        fnas_jax.Result(found.workdir).export(tmp_path / "out", ["safetensors"])
    with pytest.raises(fnas_jax.UserError, match="60 images and 59 labels"):
        found.export(tmp_path / "out", ["safetensors"], X, Y[:59])
    assert not (tmp_path / "out").exists()
    assert found.export(tmp_path / "out", ["jax"], X, Y) == tmp_path / "out"
    accuracy = f"{100 * found.model.evaluate(X, Y):.2f}%"
    assert capsys.readouterr().out.count(f"test accuracy {accuracy}") == 2
    assert (tmp_path / "out" / "jax" / "network.jax_export").exists()


@pytest.fixture(scope="module")
def retrained(found, tmp_path_factory):
    """A copy of the search whose front has another network as its second, and that one kept."""
    folder = shutil.copytree(found.workdir, tmp_path_factory.mktemp("again") / "run")
    content = json.loads((folder / "result.json").read_text())
    trials = fnas_jax.Result(folder)._records
    content["pareto"] = sorted(trials, key=lambda t: t["arch"] != content["best"]["arch"])
    (folder / "result.json").write_text(json.dumps(content))
    result = fnas_jax.resume(folder, X, Y)
    assert result.retrained is None and result.model.arch == result.best["arch"]
    assert result.pick() == result.pareto[0] | {"pick": 1}
    picked = result.pareto[1] | {"pick": 2}  # as `pick` gives it
    return result, result.retrain(3, picked, winner={"mixup": 0.2}, **{"children.lr": 0.05})


def test_a_network_of_the_front_is_trained_from_python_with_the_arrays_of_the_search(retrained):
    result, found = retrained
    other = result.pareto[1]
    assert found == result.retrained and found["arch"] == other["arch"] and found["steps"] == 3
    assert found["changed"] == [
        "--config.winner.mixup=0.2",
        "--config.children.lr=0.05",
        "--config.winner.steps=3",
    ]
    kept = fnas_jax.load(result.workdir)
    assert kept.arch == other["arch"] and other["text"] in repr(kept) and "retrain" in repr(kept)
    assert kept.architecture["training"]["recipe"]["mixup"] == 0.2


def test_another_network_is_not_taken_for_the_winner(retrained, tmp_path):
    result, _ = retrained
    for use in (
        lambda: result.model,
        lambda: result.export(tmp_path / "out", pick=0),
        lambda: result.export(tmp_path / "out", pick=1),
    ):
        with pytest.raises(fnas_jax.UserError, match="retrain") as error:
            use()
        assert result.pareto[1]["text"] in str(error.value)
        assert result.best["description"]["text"] in str(error.value)
    assert not (tmp_path / "out").exists()
    # Its images are those of the search, which this result was given.
    assert result.export(tmp_path / "out", ["safetensors"], pick=2) == tmp_path / "out"
    argv = [f"--workdir={result.workdir}", f"--out={tmp_path / 'other'}", "--pick=1"]
    assert fnas_jax.results.export.command(argv) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stepz": 3}, "unknown config key 'stepz'"),
        ({"budget": 3}, "unknown config key 'budget'"),
        ({"search": {"budget": 3}}, "search.budget cannot be changed here"),
        ({"children": {"lr": "high"}}, "children.lr is 'high'; it must be a number"),
        ({"pick": "2"}, "pick is '2'; it must be a whole number"),
        ({"steps": 5, "winner": {"steps": 9}}, "winner.steps is given twice, as 9 and 5"),
        ({"children": {"steps": 77}}, "children.steps changes nothing here: winner.steps are"),
        ({"winner": {"finalists": 2}}, "winner.finalists changes nothing here"),
        ({"top": 1.5}, "top is 1.5; it must be a whole number"),
        ({"pick": 1, "top": 2}, "give one of the two"),
    ],
)
def test_wrong_retraining_is_one_sentence(retrained, options, message):
    with pytest.raises(fnas_jax.UserError, match=message):
        retrained[0].retrain(**options)


def test_retraining_on_arrays_needs_them(retrained):
    with pytest.raises(fnas_jax.UserError, match="were in memory"):
        fnas_jax.Result(retrained[0].workdir).retrain()


def test_labels_as_pandas_has_them_are_texts(found):
    again = search(found.workdir, X, Y.astype(object), method="random")
    assert again.content == fnas_jax.Result(str(found.workdir)).content


def test_trials_are_the_rows_of_the_run_and_the_front_is_among_them(found):
    trials = found.trials
    trials = trials if isinstance(trials, list) else trials.to_dict("records")
    assert len(trials) == 2 and all(t["trained"] and t["ok"] for t in trials)
    best = max(trials, key=lambda t: (t["accuracy"], -t["mflops"]))
    assert found.pareto[0]["text"] == best["text"]
    assert found.pareto[0]["accuracy"] == best["accuracy"]
    assert found.report().read_text().startswith("<!DOCTYPE html>")


def test_the_same_call_reads_what_is_finished(found):
    again = search(found.workdir, method="random")
    assert again.content == found.content
    assert fnas_jax.resume(found.workdir).content == found.content


@pytest.mark.slow
@pytest.mark.parametrize("pool", [False, True])
def test_children_of_two_budgets_are_those_of_the_larger_one(tmp_path, pool):
    both = {"method": "random", "akp.enabled": pool, "winner.finalists": 2}
    first = search(tmp_path / "a", **both)
    whole = search(tmp_path / "b", **both | {"search.budget": 4})
    grown = search(tmp_path / "a", **both | {"search.budget": 4})
    assert first.counts["trained"] == 2 and grown.counts["trained"] == 4
    assert timeless(grown.content) == timeless(whole.content)


@pytest.mark.slow
def test_four_and_then_eight_on_digits_are_eight_with_pool_and_finals(tmp_path):
    both = {"task": "images/digits", "method": "random", "akp.enabled": True}
    both |= {"winner.finalists": 2, "search.batch": 2, "children.batch_size": 32}
    options = {name: value for name, value in SMALL.items() if name not in ("search.budget", *both)}
    first = fnas_jax.search(workdir=tmp_path / "a", budget=4, **options, **both)
    whole = fnas_jax.search(workdir=tmp_path / "b", budget=8, **options, **both)
    grown = fnas_jax.search(workdir=tmp_path / "a", budget=8, **options, **both)
    assert first.counts["finalists"] == grown.counts["finalists"] == 2
    assert first.counts["prepared"] > 0 and first.counts["trained"] == 4
    assert grown.counts["trained"] >= 8  # a batch may begin with one left
    assert timeless(grown.content) == timeless(whole.content)


def test_other_arrays_and_missing_ones_are_refused(found, tmp_path):
    with pytest.raises(fnas_jax.UserError, match="another configuration"):
        search(found.workdir, X[:50], Y[:50], method="random")
    config = json.loads((found.workdir / "config.json").read_text())
    unfinished = tmp_path / "run"
    unfinished.mkdir()
    (unfinished / "config.json").write_text(json.dumps(config))
    with pytest.raises(fnas_jax.UserError, match="were in memory"):
        fnas_jax.resume(unfinished)
    with pytest.raises(fnas_jax.UserError, match="not those that the search began with"):
        fnas_jax.resume(unfinished, X[:50], Y[:50])
    resumed = fnas_jax.resume(unfinished, X, Y)
    assert timeless(resumed.content) == timeless(found.content)


def test_what_a_search_did_not_begin_with_is_refused(found, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("decision_0,accuracy\n0,0.5\n1,0.6\n")
    options = {"method": "random", "budget": 2, "search.batch": 2, "log.tensorboard": False}
    fnas_jax.search(task=f"tabular/{path}", workdir=tmp_path / "w", **options)
    part = functools.partial(print)
    for arguments, message in (
        ({"x_train": X, "y_train": Y}, "the search began on tabular/.*: leave them out"),
        ({"task": part}, "task was given, and the search began with task.name 'tabular/"),
        ({"method": part}, "began with method.name 'random'"),
        ({"method": "gp"}, "began with method.name 'random'"),
        ({"space": 3}, "space is int; it must be a name or a Space"),
    ):
        with pytest.raises(fnas_jax.UserError, match=message):
            fnas_jax.resume(tmp_path / "w", **arguments)
    with pytest.raises(fnas_jax.UserError, match=r"began with space.name 'mnas'"):
        fnas_jax.resume(found.workdir, X, Y, space=fnas_jax.categorical({"a": [1, 2]}))


def test_commands_on_a_search_on_arrays_say_how_to_do_it_in_python(found, tmp_path, capsys):
    """What needs the images; everything else does it."""
    unfinished = tmp_path / "unfinished"
    shutil.copytree(found.workdir, unfinished)
    (unfinished / "result.json").unlink()
    again = "fnas_jax.resume(workdir, x_train, y_train, ..)"
    for command, place, flags, told in (
        (retrain.command, found.workdir, [], again),
        (export.command, found.workdir, [f"--out={tmp_path / 'out'}"], again),
        (main.main, found.workdir, ["--config=fnas_digits"], f"resume('{found.workdir}', x_train"),
        (main.main, unfinished, ["--config=fnas_digits"], f"resume('{unfinished}', x_train, y_"),
        (retrain.command, unfinished, [], "is not finished"),
    ):
        code = command([f"--workdir={place}", *flags])
        lines = capsys.readouterr().err.splitlines()
        assert code == 2 and len(lines) == 1 and told in lines[0], lines
    for place in (found.workdir, unfinished):
        assert report.command([f"--workdir={place}"]) == 0
        capsys.readouterr()
        assert trials.command([f"--workdir={place}", "--format=csv"]) == 0
        assert capsys.readouterr().out.count("\n") == 3
    assert fnas_jax.load(found.workdir).predict(X)[0].shape == (60,)


def test_validation_arrays_alone_are_not_tested_on(tmp_path):
    arrays = {"x_train": X[:50], "y_train": Y[:50], "x_val": X[50:], "y_val": Y[50:]}
    dataset = data.load(data.name_of(arrays), arrays=arrays)
    np.testing.assert_array_equal(dataset.val_images[..., 0], X[50:])
    assert len(dataset.train_images) + len(dataset.test_images) == 50


def test_names_of_classes_keep_to_their_labels():
    arrays = {"x_train": X, "y_train": Y, "class_names": np.array(["dog", "cat"])}
    dataset = data.load(data.name_of(arrays), arrays=arrays)
    dogs = {image.tobytes() for image in X[Y == "dog"]}
    named = np.array(dataset.class_names)[dataset.train_labels]
    for image, name in zip(dataset.train_images, named, strict=True):
        assert (image.tobytes() in dogs) == (name == "dog")
    with pytest.raises(fnas_jax.UserError, match=r"'cat' .* is not one of 'class_names'"):
        wrong = arrays | {"class_names": np.array(["dog", "cow"])}
        data.load(data.name_of(wrong), arrays=wrong)


def test_held_out_arrays_keep_their_parts(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(api.loop, "run", lambda *given: seen.append(given))
    monkeypatch.setattr(api, "Result", lambda path, *given: path)
    fnas_jax.search(X[:40], Y[:40], X[40:50], Y[40:50], x_val=X[50:], y_val=Y[50:], workdir="w")
    _, _, build, arrays = seen[0]
    assert build.keywords["arrays"] is arrays  # the plan's are the task's
    dataset = data.load(data.name_of(arrays), arrays=arrays)
    np.testing.assert_array_equal(dataset.test_images[..., 0], X[40:50])
    np.testing.assert_array_equal(dataset.val_images[..., 0], X[50:])
    assert len(dataset.train_images) == 40 and dataset.class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x_train": X}, "x_train was given without y_train"),
        ({"x_test": X, "y_test": Y}, "without x_train"),
        ({"x_train": X, "y_train": Y[:9]}, "60 images but 9 labels"),
        ({"x_train": X, "y_train": Y, "task": "images/digits"}, "beside arrays"),
        ({"class_names": ["a"]}, "class_names was given without images"),
        (
            {"x_train": X, "y_train": Y, "task.name": "images/digits"},
            "task.name is 'images/digits' beside arrays",
        ),
        (
            {"x_train": X, "y_train": Y, "task": {"name": "images/digits"}},
            "task is dict; it must be a name",
        ),
        (
            {"task": "images/digits", "budget": 99, "search.budget": 4},
            "search.budget is given twice, as 99 and 4",
        ),
        (
            {"children": {"steps": 3}, "children.steps": 4},
            "children.steps is given twice, as 3 and 4",
        ),
        ({"space": fnas_jax.categorical({"a": [1, 2]}), "space.name": "mnas"}, "is given twice"),
        ({"task": "images/digits", "budgett": 3}, "unknown config key 'budgett'"),
        ({"task": "images/digits", "children": {"step": 3}}, "did you mean 'children.steps'"),
        ({"task": "images/digits", "method": "fnass"}, "did you mean 'fnas'"),
        ({"task": "images/digits", "budget": 0}, "search.budget is 0"),
        ({"config": "none.py"}, "does not exist"),
        (
            {"x_train": X, "y_train": np.array([1, "a"] * 30, object)},
            "y_train .* it holds objects .int, str.",
        ),
        ({"x_train": [[1], [2, 3]], "y_train": [0, 1]}, "x_train is no array"),
        ({"task": functools.partial(print), "space": 3}, "space is int"),
    ],
)
def test_wrong_input_is_one_sentence(arguments, message, tmp_path):
    with pytest.raises(fnas_jax.UserError, match=message):
        fnas_jax.search(**arguments, workdir=tmp_path / "w")
    assert not (tmp_path / "w" / "config.json").exists()


def test_a_config_and_overrides_give_the_run_of_the_command(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(api.loop, "run", lambda config, *_: seen.append(config))
    monkeypatch.setattr(api, "Result", lambda path, *given: path)
    file = tmp_path / "c.py"
    file.write_text(
        "from fnas_jax.core.config import default\n"
        "def get_config():\n    c = default()\n    c.search.budget = 9\n    return c\n"
    )
    fnas_jax.search(config=file, seed=3, children={"steps": 7}, **{"akp.capacity": 5})
    fnas_jax.search(config=config_lib.default(), task="images/digits", space="macro")
    flat = [config_lib.flatten(config) for config in seen]
    changed = dict(flat[0].items() - config_lib.flatten(config_lib.default()).items())
    expected = {"search.budget": 9, "seed": 3, "children.steps": 7, "akp.capacity": 5}
    assert changed == expected and flat[1]["space.name"] == "macro"


def test_importing_the_package_is_light_and_its_public_names_are_listed():
    code = "import sys, fnas_jax; print('jax' in sys.modules, dir(fnas_jax));"
    # Commands start without what only some of them use, and late.
    code += "import fnas_jax.main; print('jax' in sys.modules, 'scipy.stats' in sys.modules)"
    package, commands = subprocess.check_output(
        [sys.executable, "-c", code], text=True
    ).splitlines()
    assert package.startswith("False") and "search" in package
    assert commands == "True False"
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        fnas_jax.serach  # noqa: B018


def test_the_examples_use_what_is_public():
    examples = pathlib.Path(__file__).parents[1] / "docs" / "examples"
    allowed = {"fnas_jax": fnas_jax.__all__, "fnas_jax.interfaces": fnas_jax.interfaces.__all__}
    allowed["fnas_jax.ship.stock"] = ["conv", "norm"]
    found = 0
    for path in examples.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("fnas_jax"):
                found += 1
                names = {alias.name for alias in node.names}
                assert names <= set(allowed.get(node.module, ())), (path.name, node.module, names)
            if isinstance(node, ast.Import):
                ours = {a.name for a in node.names if a.name.startswith("fnas_jax")}
                assert ours <= {"fnas_jax"}, path.name
    assert found >= 4
    assert all(getattr(fnas_jax.interfaces, name) for name in fnas_jax.interfaces.__all__)
