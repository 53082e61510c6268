"""What goes wrong in a user's part is told with the place in the user's file."""

import contextlib
import json
import logging
import sys
import textwrap

import pytest

import fnas_jax
from fnas_jax import export, layered, main, parts, predict, registry, report, retrain, trials
from fnas_jax.core import config as config_lib
from fnas_jax.core import frames
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import history

BROKEN = """
    import fnas_jax
    import numpy as np

    def valued(*arguments):
        raise ValueError("no such depth")  # line 6

    def keyed(*arguments):
        return {}["depth"]  # line 9

    def deep(*arguments):
        return np.zeros(3) @ np.zeros(4)  # line 12, in numpy

    def of_ours(*arguments):
        return fnas_jax.categorical({})  # line 15, in fnas_jax

    def told(*arguments):
        raise fnas_jax.UserError("too deep")  # line 18

    def narrow(config):
        return None

    def accuracy(decisions):
        return np.zeros(3) @ np.zeros(4)  # line 24

    space = fnas_jax.categorical({"a": [1, 2, 3], "b": [1, 2]})
    task = fnas_jax.from_function(space, accuracy)
"""
LINES = {
    "valued": ("ValueError: no such depth", 6),
    "keyed": ("KeyError: 'depth'", 9),
    "deep": ("ValueError: matmul", 12),
    "of_ours": ("cardinalities must be", 15),
    "told": ("too deep", 18),
}
QUIET = {"log.tensorboard": False, "search.batch": 2, "budget": 2}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text(textwrap.dedent(BROKEN).lstrip("\n"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "broken.py"
    sys.modules.pop("broken", None)


@pytest.mark.parametrize("attribute", LINES)
@pytest.mark.parametrize("kind", ["task", "method", "space"])
def test_what_a_part_raises_is_told_with_file_and_line(kind, attribute, mine):
    message, line = LINES[attribute]
    task = "images/digits" if kind == "space" else "python:broken:task"
    chosen = {"task": task, "method": "random", kind: f"broken:{attribute}"}
    with pytest.raises(UserError) as error:
        fnas_jax.search(**chosen, workdir="w", **QUIET)
    text = str(error.value)
    assert message in text and text.endswith(f"(in {mine}:{line - 1})"), text
    assert "\n" not in text and error.value.__cause__ is not None
    assert not (mine.parent / "w").exists()


def test_an_object_s_place_is_told_and_so_is_a_wrong_signature(mine):
    import broken

    with pytest.raises(UserError, match=rf"no such depth \(in {mine}:5\)"):
        fnas_jax.search(task=broken.task, method=broken.valued, workdir="w", **QUIET)
    with pytest.raises(UserError, match=r"which raised TypeError: narrow.. takes 1 positional"):
        fnas_jax.search(task=broken.narrow, workdir="w", **QUIET)


def test_a_module_that_cannot_be_imported_is_told_with_the_line(mine):
    (mine.parent / "torn.py").write_text("x = 1\ny = (\n")
    (mine.parent / "empty.py").write_text("x = 1\n1 / 0\n")
    for name, place in {"torn": "torn.py:2)", "empty": "empty.py:2)"}.items():
        with pytest.raises(UserError) as error:
            parts.find("task", f"{name}:task", None)
        assert str(error.value).endswith(place)


def test_a_function_that_fails_is_told_with_its_line(mine, caplog):
    with caplog.at_level(logging.DEBUG, "fnas_jax"):
        fnas_jax.search(task="python:broken:task", method="random", workdir="w", **QUIET)
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warned and all(m.endswith(f"(in {mine}:23)") for m in warned)
    assert any(r.exc_info and r.levelno == logging.DEBUG for r in caplog.records)


def test_an_error_of_ours_has_no_place():
    try:
        fnas_jax.core.config.default().nothing  # noqa: B018
    except AttributeError as error:
        assert frames.where(error).startswith(__file__)  # the line above is a user's
        error.__traceback__ = error.__traceback__.tb_next  # below it there are packages only
        assert frames.where(error) == "" and frames.where(error, own=True)


def test_verbose_shows_the_traceback(mine, capsys):
    flags = ["--config.task.name=python:broken:task", "--config.method.name=broken:valued"]
    for more in ([], ["--verbose"], []):  # of one command only
        assert main.main([*flags, "--workdir=w", *more]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert lines[-1].startswith(
            "error: method.name is 'broken:valued', which raised ValueError"
        )
        assert (len(lines) > 1) == bool(more)
        assert any("raise ValueError" in line for line in lines) == bool(more)


def test_a_space_of_the_user_s_is_told_where_our_method_asks_it(mine):
    space = fnas_jax.categorical({"a": [1, 2, 3], "b": [1, 2]})

    def canonical(archs):
        raise KeyError("b")

    task = fnas_jax.from_function(space._replace(canonical=canonical), lambda d: 0.5)
    with pytest.raises(UserError, match=rf"raised KeyError: 'b' \(in {__file__}:\d+\)"):
        fnas_jax.search(task=task, method="gp", workdir="w", **QUIET)


def test_commands_on_a_search_with_objects_say_how_to_do_it_in_python(tmp_path, capsys):
    """Here of an own function on a space of ours with other options, which no name is about."""
    options = config_lib.default()
    options.space.blocks = 1
    space = registry.build_space(options)
    task = fnas_jax.from_function(space, lambda d: len(d["blocks"]) / 2, name="mine")
    found = fnas_jax.search(task=task, method="random", workdir=tmp_path, **QUIET)
    folder, again = f"--workdir={tmp_path}", "fnas_jax.resume(workdir, task=..)"
    assert trials.command([folder, "--format=json"]) == 0
    tried = json.loads(capsys.readouterr().out)
    assert len(tried) == 2 and found.best["arch"] in [t["arch"] for t in tried]
    assert report.command([folder]) == 0
    capsys.readouterr()
    for command, flags, told in (
        (retrain.command, [], again),
        (export.command, [f"--out={tmp_path / 'out'}"], "has left no best/"),
        (predict.command, [f"--images={tmp_path}"], "has left no best/"),
        (main.main, ["--config=fnas_digits"], f"fnas_jax.resume('{tmp_path}', task=..)"),
    ):
        code = command([folder, *flags])
        lines = capsys.readouterr().err.splitlines()
        assert code == 2 and len(lines) == 1 and told in lines[0], lines
    with pytest.raises(UserError, match="has left no best/"):
        fnas_jax.load(tmp_path)
    assert fnas_jax.resume(tmp_path, task=task).retrain()["winner"]["kept"] is None
    (tmp_path / "result.json").unlink()
    with pytest.raises(UserError, match=r"give it again to fnas_jax.resume\(workdir, task=..\)"):
        fnas_jax.resume(tmp_path)
    assert fnas_jax.resume(tmp_path, task=task).counts == found.counts
    with contextlib.closing(history.open_(tmp_path / "knowledge")) as known:
        history.trim(known, json.loads((tmp_path / "run.json").read_text())["id"], 0)
    assert trials.read(tmp_path) == []


def test_a_task_that_trains_nothing_is_judged_again_without_an_accuracy(mine, capsys):
    (mine.parent / "own.py").write_text(
        "import fnas_jax\nfrom broken import space\n"
        "task = fnas_jax.from_function(space, lambda d: d['a'] / 4)\n"
    )
    fnas_jax.search(task="python:own:task", method="random", workdir="w", **QUIET)
    capsys.readouterr()
    assert retrain.command(["--workdir=w"]) == 0
    assert capsys.readouterr().out == "written to w/retrain.json\n"


@pytest.mark.slow
def test_a_layered_space_is_searched_with_the_knowledge_pool(tmp_path):
    """Layers of one's own that differ leave blocks of their own, which another search finds."""
    turned = "tests.layers.own_layers:Turned"
    choices = {"relu": layered.own(turned), "tanh": layered.own(turned, act="tanh")}
    space = layered.make([layered.stage(8, choices, depth=2, optional=True)], stem=8)
    short = {"children.steps": 5, "winner.steps": 5, "winner.reference": False}
    short |= {"winner.finalists": 2, "knowledge.dir": str(tmp_path / "known")}
    for name in "ab":
        given = {"task": "images/digits", "space": space, "method": "fnas"}
        found = fnas_jax.search(**given, **QUIET, **short, workdir=tmp_path / name)
        assert found.counts["failed"] == 0
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").open()]
        # A fair round has left both layers at both places, beside the fresh blocks.
        assert rows[-1]["pool/entries"] == 2 * (1 + 2)


def test_what_our_own_parts_raise_is_a_bug_and_not_wrong_input(monkeypatch):
    monkeypatch.setattr(frames, "where", lambda error, own=False: "")  # not in a user's file
    with pytest.raises(ValueError, match="invalid literal"), parts.building("space", "a", False):
        int("x")
    with pytest.raises(UserError, match=r"^no such width$"), parts.building("space", "a", False):
        raise UserError("no such width")
    with pytest.raises(UserError, match="raised ValueError"), parts.building("space", "a", True):
        int("x")
