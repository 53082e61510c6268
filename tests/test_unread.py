"""Settings without effect are named, and no others: what is read is recorded."""

import importlib
import pathlib

import ml_collections
import pytest

import experiments
from fnas_jax import opening, registry, unread
from fnas_jax.core import config as config_lib
from fnas_jax.knowledge import store
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.main import main
from tests.soak.searches import write_table

OF_MACRO = "akp.weights (not of space.name=macro)"
OF_TABLE = "space.width (a table has a space of its own)"
SHIPPED = sorted(p.stem for p in pathlib.Path(experiments.__path__[0]).glob("[a-z]*.py"))


def with_values(**changed):
    flat = {name.replace("__", "."): value for name, value in changed.items()}
    return config_lib.nest(config_lib.flatten(config_lib.default()) | flat)


class Recorded(ml_collections.ConfigDict):
    """A ConfigDict that remembers which of its sections and keys were read."""

    def __init__(self, values, seen, prefix=""):
        object.__setattr__(self, "_values", values)
        object.__setattr__(self, "_seen", seen)
        object.__setattr__(self, "_prefix", prefix)

    def __getattr__(self, name):
        value = getattr(self._values, name)
        full = f"{self._prefix}{name}"
        if isinstance(value, ml_collections.ConfigDict):
            return Recorded(value, self._seen, f"{full}.")
        self._seen.add(full)
        return value

    def items(self):
        self._seen.update(f"{self._prefix}{name}" for name in self._values)
        return self._values.items()


@pytest.mark.parametrize("name", registry.METHODS)
def test_each_method_reads_the_sections_that_are_said_to_be_its_own(name, tmp_path):
    write_table(tmp_path / "net.csv")
    one_shot = name in registry.ONE_SHOT or name in registry.EARLY
    task = "images/digits" if one_shot else f"tabular/{tmp_path / 'net.csv'}"
    changed = {"task__name": task, "method__name": name}
    if one_shot:
        changed |= {"space__blocks": 1, "space__strides": (1,), "akp__enabled": False}
    seen = set()
    with store.tentative(tmp_path / "knowledge") as known:
        config = registry.completed(with_values(**changed))
        registry.build_all(Recorded(config, seen), Knowledge(known))
    read = {key.partition(".")[0] for key in seen} & set(unread.METHODS)
    assert read == {section for section, methods in unread.METHODS.items() if name in methods}


@pytest.mark.parametrize("name", registry.SPACES)
def test_each_space_reads_the_keys_that_are_said_to_be_its_own(name):
    seen = set()
    config = with_values(space__name=name, space__cardinalities=(2, 3))
    registry.build_space(Recorded(config, seen))
    own = {key for key, spaces in unread.SPACES.items() if name in spaces}
    assert seen - {"space.name"} == own - {"akp.weights"}


def test_every_section_and_key_that_is_named_exists():
    keys = list(config_lib.all_keys())
    named = (*unread.METHODS, *unread.SPACES, *unread.IMAGES, *unread.TABLES, *unread.SWITCHES)
    for name in (*named, *(key for _, others in unread.SWITCHES.values() for key in others)):
        assert any(key == name or key.startswith(name + ".") for key in keys), name
    assert {name for methods in unread.METHODS.values() for name in methods} <= set(
        registry.METHODS
    )
    known = {name for spaces in unread.SPACES.values() for name in spaces}
    assert known == set(registry.SPACES)
    assert {key for key in keys if key.startswith("space.")} - set(unread.SPACES) == {"space.name"}


def test_defaults_say_nothing():
    for name in registry.METHODS:
        assert unread.line(with_values(method__name=name)) == ""


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_files_set_nothing_in_vain(name):
    config = importlib.import_module(f"experiments.{name}").get_config()
    told = unread.line(config)
    # One file for five methods
    assert ("oneshot.steps" in told) == bool(told) == (name == "mobilenetv3_mnist5k")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"tnas__iterations": 7}, "tnas.iterations (not of method.name=fnas)"),
        ({"gp__acquisition": "ucb"}, "gp.acquisition (not of method.name=fnas)"),
        ({"space__stages": 3}, "space.stages (not of space.name=mnas)"),
        ({"children__rungs": 3}, "children.rungs (children.halving is 0)"),
        ({"children__brackets": 3}, "children.brackets (children.halving is 0)"),
        ({"tpe__samples": 3, "method__name": "gp"}, "tpe.samples (not of method.name=gp)"),
        ({"tpe__samples": 3, "method__name": "bohb"}, ""),
        ({"reward__target": 3.0}, "reward.target (reward.cost is none)"),
        ({"reward__target": 3.0, "search__plan": "auto"}, "reward.target (reward.cost is none)"),
        ({"reward__training_mean": 3.0}, "reward.training_mean (reward.training is 0)"),
        ({"winner__policy_layers": 3}, "winner.policy_layers (winner.policy is none)"),
        (
            {"space__name": "mobilenetv3", "space__blocks": 3, "search__plan": "auto"},
            "space.blocks (not of space.name=mobilenetv3)",
        ),
        # Read of tables, too: the search ends earlier.
        ({"task__name": "tabular/a.csv", "search__seconds": 9.0, "search__winner_share": 0.5}, ""),
        ({"task__noisy": False}, "task.noisy (of tables, and this task has images)"),
        (
            {"method__name": "pgnas", "children__halving": 2, "children__brackets": 3},
            "children.halving, children.brackets (method.name=pgnas trains one network for all"
            " children)",
        ),
        (
            {"task__name": "tabular/a.csv", "children__steps": 9, "task__augment__flip": True},
            "task.augment.flip, children.steps (a table trains no networks)",
        ),
        (
            {"akp__enabled": False, "akp__rounds": 3, "fnas__verify": 2},
            "akp.rounds (akp.enabled is False)",
        ),
        ({"space__name": "macro", "akp__mib": 9, "akp__weights": (1,) * 7}, OF_MACRO),
        ({"task__name": "tabular/a.csv", "space__width": 2.0}, OF_TABLE),
        ({"fnas__verify": 2, "reward__cost": "mflops", "reward__target": 3.0}, ""),
        ({"children__halving": 2, "children__rungs": 3, "ppo__hidden": 8}, ""),
        ({"method__name": "ppo", "fnas__verify": 2, "search__plan": "auto"}, ""),  # the plan's
        ({"method__name": "my:method", "tnas__iterations": 7}, ""),
        ({"space__name": "my:space", "space__stages": 2}, ""),
        ({"task__name": "my:task", "task__noisy": False, "children__steps": 9}, ""),
    ],
)
def test_what_has_no_effect_is_named_with_the_reason(changed, told):
    assert unread.line(with_values(**changed)) == (f"without effect here: {told}" if told else "")


def test_a_search_says_so_once(tmp_path, capsys):
    write_table(tmp_path / "net.csv")
    table = f"tabular/{tmp_path / 'net.csv'}"
    config = with_values(task__name=table, method__name="random", children__steps=7)
    opening.build(config, Knowledge(None))
    assert capsys.readouterr().err.count("without effect here: children.steps") == 1


def test_a_dry_run_says_so_too(capsys):
    stated = ["--plan", "--plan_on=8xh100", "--plan_images=1000+100x32x32x3x10"]
    assert main([*stated, "--config.task.name=images/digits", "--config.tnas.iterations=7"]) == 0
    told = "without effect here: tnas.iterations (not of method.name=fnas)"
    assert told in capsys.readouterr().err
