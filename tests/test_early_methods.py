"""Methods whose children stop early are other methods with settings of their own."""

import json

import jax
import numpy as np
import pytest

import fnas_jax
from fnas_jax import main as command
from fnas_jax import opening, registry, trials, unread
from fnas_jax.core import config as config_lib
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import store
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.methods.baselines import tpe
from fnas_jax.training import halving

SMALL = {
    "space.blocks": 1,
    "space.strides": (2,),
    "space.stem": 16,
    "space.stem_stride": 1,
    "space.head": 64,
    "children.steps": 18,
    "children.batch_size": 32,
    "children.eval_batch": 64,
    "akp.enabled": False,
    "search.batch": 3,
    "winner.steps": 0,
    "winner.reference": False,
    "jax.cache_dir": "",
    "log.tensorboard": False,
}


def config_of(name, **changed):
    flat = {key.replace("__", "."): value for key, value in changed.items()}
    values = config_lib.flatten(config_lib.default()) | {"method.name": name} | flat
    return config_lib.validate(config_lib.nest(values))


@pytest.mark.parametrize(
    ("name", "changed", "found"),
    [
        ("hyperband", {}, (3, 3)),
        ("bohb", {}, (3, 3)),
        ("bohb", {"children__rungs": 4}, (3, 5)),
        ("hyperband", {"children__halving": 2}, (2, 3)),
        ("hyperband", {"children__brackets": 2}, (3, 2)),
        ("hyperband", {"children__halving": 4, "children__brackets": 2}, (4, 2)),
        ("random", {}, (0, 1)),
        ("tpe", {"children__halving": 2}, (2, 1)),
        ("my:method", {}, (0, 1)),
    ],
)
def test_they_stop_children_in_all_brackets_where_nothing_else_is_said(name, changed, found):
    given = config_of(name, **changed)
    completed = registry.completed(given)
    assert (completed.children.halving, completed.children.brackets) == found
    # All else is as it was given, and so is what was given.
    keys = ("children.halving", "children.brackets")
    before, after = (config_lib.flatten(c) for c in (given, completed))
    assert {k: v for k, v in before.items() if k not in keys} == {
        k: v for k, v in after.items() if k not in keys
    }
    assert config_lib.flatten(given) == config_lib.flatten(config_of(name, **changed))
    assert config_lib.flatten(registry.completed(completed)) == after
    assert unread.line(completed) == ""


def test_each_is_the_method_that_it_is_said_to_be():
    for name, without in registry.EARLY.items():
        assert registry.METHODS[name] == registry.METHODS[without]


@pytest.mark.parametrize("keys", [{}, {"children__halving": 2, "children__brackets": 3}])
def test_where_nothing_is_trained_they_are_refused(tmp_path, capsys, keys):
    (tmp_path / "t.csv").write_text("decision_0,acc\n0,0.1\n1,0.2\n")
    name = f"tabular/{tmp_path / 't.csv'}"
    with pytest.raises(UserError, match=r"'bohb', .* trains none: without that it is 'tpe'"):
        registry.completed(config_of("bohb", task__name=name, **keys))
    argv = [f"--workdir={tmp_path / 'w'}", f"--config.task.name={name}"]
    assert command.main([*argv, "--config.method.name=hyperband"]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and "it is 'random'" in told[0]
    assert not (tmp_path / "w").exists()


def test_a_plan_counts_the_steps_that_their_children_make(capsys):
    flags = [f"--config.{key}={value}" for key, value in SMALL.items()]
    told = {}
    for name in ("random", "hyperband"):
        argv = ["--plan", "--plan_on=1xh100", "--config.task.name=images/digits", *flags]
        assert command.main([*argv, f"--config.method.name={name}"]) == 0
        captured = capsys.readouterr()
        told[name] = captured.out
        said = "hyperband is random with children.halving=3 and children.brackets=3\n"
        assert captured.err == (said if name == "hyperband" else "")
    assert "are made on average" not in told["random"]
    made = halving.share((2, 6), 18, 3, 3)
    assert f"of which {100 * made:.0f}% are made on average" in told["hyperband"]


def test_bohbs_model_learns_how_far_children_came(tmp_path, monkeypatch):
    states, ask = [], tpe.ask

    def watched(ctx, state, key):
        jax.debug.callback(lambda *known: states.append(known), state.steps, tpe.divide(ctx, state))
        return ask(ctx, state, key)

    monkeypatch.setattr(tpe, "ask", watched)
    more = {"search.batch": 4, "tpe.good": 0.5, "tpe.random": 0.0}
    fnas_jax.search(
        task="images/digits", workdir=tmp_path, method="bohb", budget=24, **SMALL | more
    )
    jax.effects_barrier()
    steps, (good, bad) = np.asarray(states[-1][0]), states[-1][1]
    stopped = [trial["stopped"] or tpe.ALL for trial in trials.read(tmp_path)]
    assert len(stopped) == 24 and set(stopped) == {2, 6, tpe.ALL}
    np.testing.assert_array_equal(steps[:20], stopped[:20])  # before the last batch
    needed = 7 + 3
    furthest = np.sort(steps)[::-1][needed - 1]
    assert furthest > 0 and (steps[:20] < furthest).any()
    np.testing.assert_array_equal(np.asarray(good | bad), steps >= furthest)


def test_more_brackets_than_rungs_can_be_skipped_are_told():
    many = {"children__halving": 2, "children__brackets": 9}
    said = opening.early(config_of("random", **many))
    assert said == ("children.brackets is 9, and with 2 rungs there are 3",)
    assert opening.early(config_of("random", **many | {"children__brackets": 3})) == ()
    assert opening.early(config_of("random", children__brackets=9)) == ()
    assert opening.early(config_of("bohb", **many)) == (
        "bohb is tpe with children.halving=2 and children.brackets=3",
    )


def test_a_task_of_ones_own_may_stop_children_or_not(tmp_path, caplog):
    name = "python:tests.tasks.test_features:silent"
    with store.tentative(tmp_path) as known:
        registry.build_all(config_of("hyperband", task__name=name), Knowledge(known))
    assert f"hyperband is random, unless the task {name}, your own, has child" in caplog.text


def test_a_search_is_what_its_settings_say_and_goes_on_with_them(tmp_path, capsys):
    def search(folder, **more):
        return fnas_jax.search(task="images/digits", workdir=tmp_path / folder, **SMALL | more)

    found = search("a", method="hyperband", budget=9)
    said = "hyperband is random with children.halving=3 and children.brackets=3"
    assert said in capsys.readouterr().err.splitlines()
    known = json.loads((tmp_path / "a" / "config.json").read_text())
    assert known["children"]["halving"] == known["children"]["brackets"] == 3
    assert found.content["counts"]["stopped"] > 0
    same = {"children.halving": 3, "children.brackets": 3}
    same_found = search("b", method="random", budget=9, **same)
    assert same_found.content["best"] == found.content["best"]
    # One bracket stops others.
    one = search("c", method="random", budget=9, **{"children.halving": 3})
    assert one.content["counts"] != found.content["counts"]
    again = fnas_jax.resume(tmp_path / "a")
    assert again.content == found.content
    grown = search("a", method="hyperband", budget=12)
    assert grown.content["counts"]["trained"] >= 12
