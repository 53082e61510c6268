import dataclasses
import importlib
import math
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax import registry
from fnas_jax.core import config as config_lib
from fnas_jax.core.types import UserError
from fnas_jax.methods.baselines.config import Evolution


def with_value(name, value):
    return config_lib.nest(config_lib.flatten(config_lib.default()) | {name: value})


def test_defaults_are_valid_and_locked():
    config = config_lib.validate(config_lib.default())
    assert config_lib.flatten(config) == {n: k.default for n, k in config_lib.all_keys().items()}
    with pytest.raises(AttributeError):
        config.search.budgt = 1


@pytest.mark.parametrize("name", config_lib.all_keys())
def test_every_key_says_what_it_means_and_appears_in_the_help(name):
    assert len(config_lib.all_keys()[name].doc) > 3
    assert f"--config.{name}=" in config_lib.help_text()


@pytest.mark.parametrize(
    ("name", "key"),
    [(n, k) for n, k in config_lib.all_keys().items() if isinstance(k.default, int | float)],
)
def test_values_beyond_either_end_of_a_range_are_refused(name, key):
    for value in (key.low - 1, key.high + 1):
        if math.isfinite(value):
            with pytest.raises(UserError, match=rf"{name} is .* allowed is "):
                config_lib.validate(with_value(name, value))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("seed", 1.5, "seed is 1.5; it must be a whole number"),
        ("seed", True, "seed is True; it must be a whole number"),
        ("task.noisy", 1, "task.noisy is 1; it must be true or false"),
        ("task.name", 3, "task.name is 3; it must be a text"),
        ("children.lr", math.inf, "allowed is 1e-06 to 100"),
        ("limits.mflops", 10**400, "it must be finite"),
        ("children.lr", math.nan, "allowed is 1e-06 to 100"),
        ("space.strides", (1, 3), "allowed is entries from 1 to 2"),
        ("space.strides", (1, 1.5), "it must be a tuple of whole numbers"),
        ("reward.cost", "mflops", "reward.target is 0.0; .* it must be above 0"),
        ("task.val_fraction", 0.75, "together they may be at most 0.9"),
    ],
)
def test_wrong_values_are_refused_in_one_sentence(name, value, message):
    with pytest.raises(UserError, match=message) as error:
        config_lib.validate(with_value(name, value))
    assert "\n" not in str(error.value)


def test_a_whole_number_is_a_number():
    assert config_lib.validate(with_value("children.lr", 1)).children.lr == 1.0


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("search.budgt", "search.budget"),
        ("serch.budget", "search.budget"),
        ("budget", "search.budget"),
        ("task.nosy", "task.noisy"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest(wrong, nearest):
    assert f"unknown config key '{wrong}'; did you mean '{nearest}'?" == str(
        config_lib.unknown_key(wrong)
    )


def test_an_unknown_key_near_nothing_is_answered_with_its_section():
    assert "evolution has population, sample" in str(config_lib.unknown_key("evolution.zzz"))
    assert "--help" in str(config_lib.unknown_key("zzz"))


def test_a_missing_key_is_refused():
    flat = config_lib.flatten(config_lib.default())
    del flat["log.every"]
    with pytest.raises(UserError, match=r"'log.every' is missing"):
        config_lib.validate(config_lib.nest(flat))


def test_flatten_undoes_nest_and_reads_json_lists_as_tuples():
    flat = {"a": 1, "b.c": (1, 2), "b.d.e": "x"}
    assert config_lib.flatten(config_lib.nest(flat)) == flat
    assert config_lib.flatten({"b": {"c": [1, 2]}}) == {"b.c": (1, 2)}


def test_the_fields_of_a_dataclass_are_the_keys_of_its_section():
    changed = with_value("evolution.sample", 7)
    assert config_lib.read(Evolution, changed.evolution) == Evolution(sample=7)
    assert config_lib.all_keys()["evolution.sample"].default == Evolution().sample
    assert hash(Evolution()) == hash(Evolution(sample=10))  # can be static under jit
    with pytest.raises(dataclasses.FrozenInstanceError):
        Evolution().sample = 3


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"population": 30}, r"lacks \['sample'\] and has \[\] besides"),
        ({"population": 30, "sampel": 3}, r"lacks \['sample'\] and has \['sampel'\] besides"),
        ({"population": 30, "sample": 3, "size": 1}, r"lacks \[\] and has \['size'\] besides"),
    ],
)
def test_a_name_that_does_not_match_never_falls_back_to_a_default(section, message):
    with pytest.raises(ValueError, match=message):
        config_lib.read(Evolution, section)


def test_sections_within_a_section_are_read_on_their_own():
    section = {"population": 30, "sample": 3, "inner": {"a": 1}}
    assert config_lib.read(Evolution, section) == Evolution(30, 3)


def test_every_section_is_registered_and_every_method_is_a_choice():
    assert {name.rpartition(".")[0] for name in config_lib.all_keys()} == set(registry.SECTIONS)
    assert all(name in config_lib.all_keys()["method.name"].doc for name in registry.METHODS)
    for module in registry.METHODS.values():
        assert callable(importlib.import_module(module).build)


@pytest.mark.parametrize("task", ["images/digits", "tabular/synthetic"])
def test_an_unknown_space_is_refused_with_the_allowed_ones(task):
    config = config_lib.default()
    config.task.name, config.space.name = task, "mcro"
    message = (
        "space.name is 'mcro'; allowed are mnas, mobilenetv3, macro, cell,"
        " mixed_cell, mixed_chain, categorical or MODULE:ATTRIBUTE; did you mean"
    )
    with pytest.raises(UserError, match=f"^{message} 'macro'\\?$"):
        registry.build_task(config_lib.validate(config))


def test_explaining_the_keys_imports_no_method():
    code = (
        "import sys; from fnas_jax.core import config; config.help_text();"
        "print(*(m for m in sys.modules if m.startswith('fnas_jax.methods')))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    allowed = ("fnas_jax.methods.base", "fnas_jax.methods.baselines")
    loaded = [m for m in out.stdout.split() if not m.endswith(".config") and m not in allowed]
    assert all(m.count(".") <= 2 for m in loaded), loaded  # packages, nothing in them


@pytest.fixture
def renamed(monkeypatch):
    """A key `search.limit` of old that is `search.budget` today."""
    new = config_lib.Renamed("search.budget", {"few": 16})
    monkeypatch.setattr(config_lib, "RENAMED", {"search.limit": new})


def test_a_renamed_key_is_refused_with_its_new_name(renamed):
    sentence = "config key 'search.limit' is now 'search.budget'; its value 'few' is now 16"
    assert str(config_lib.unknown_key("search.limit")) == sentence
    assert str(config_lib.unknown_key("limit")) == sentence  # as from a config file
    flat = config_lib.flatten(config_lib.default()) | {"search.limit": 3}
    with pytest.raises(UserError, match=r"is now 'search\.budget'"):
        config_lib.validate(config_lib.nest(flat))


def test_values_of_old_runs_are_read_under_the_names_of_today(renamed):
    defaults = config_lib.flatten(config_lib.default()) | config_lib.BEFORE
    assert config_lib.modernize({"search.limit": "few"}) == defaults | {"search.budget": 16}
    old = {"search.limit": 5, "seed": 1}
    assert config_lib.modernize(old) == defaults | {"search.budget": 5, "seed": 1}


def test_a_run_of_before_a_key_has_its_default_and_keeps_what_is_unknown_today():
    flat = config_lib.flatten(with_value("seed", 3))
    del flat["evolution.sample"]
    read = config_lib.modernize(flat)
    assert config_lib.validate(config_lib.nest(read)) == with_value("seed", 3)
    with pytest.raises(UserError, match=r"unknown config key 'evolution\.smaple'"):
        config_lib.validate(config_lib.nest(config_lib.modernize(flat | {"evolution.smaple": 7})))


def test_searches_of_before_there_were_features_go_on_without_them():
    flat = config_lib.flatten(config_lib.default())
    known = {"features.structure": True, "features.costs": True}
    assert known.items() <= flat.items() and config_lib.modernize(flat) == flat
    old = {name: value for name, value in flat.items() if not name.startswith("features.")}
    assert config_lib.modernize(old) == flat | dict.fromkeys(known, False)


def test_renamed_keys_and_values_lead_to_those_of_today():
    keys = config_lib.all_keys()
    for old, new in config_lib.RENAMED.items():
        assert new.name in keys and old not in keys
        assert set(new.values.values()) <= set(keys[new.name].choices)


def test_a_run_with_the_old_name_of_the_backend_is_read():
    flat = config_lib.flatten(config_lib.default())
    del flat["children.backend"]
    old = config_lib.modernize(flat | {"children.form": "switched"})
    assert config_lib.validate(config_lib.nest(old)).children.backend == "reference"


class Whole:
    """Counts as a whole number, as numbers of other packages do."""

    def __index__(self):
        return 7


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("search.budget", np.int64(8), 8),
        ("search.budget", np.array(8, np.uint8), 8),
        ("search.budget", jnp.int32(8), 8),
        ("search.budget", Whole(), 7),
        ("children.lr", np.float32(0.5), 0.5),
        ("children.lr", np.float64(0.1), 0.1),
        ("children.lr", np.int64(1), 1),
        ("akp.enabled", np.bool_(False), False),
        ("method.name", np.str_("random"), "random"),
        ("space.strides", np.array([1, 2]), (1, 2)),
        ("space.strides", [np.int64(1), 2], (1, 2)),
        ("space.strides", range(1, 3), (1, 2)),
        ("knowledge.dir", pathlib.Path("a") / "b", "a/b"),
    ],
)
def test_numbers_of_numpy_and_paths_are_taken_as_python_s_own(name, value, expected):
    flat = config_lib.flatten(config_lib.default()) | {name: value}
    found = config_lib.flatten(config_lib.validate(config_lib.nest(flat)))[name]
    assert found == expected and type(found) is type(expected)
    entries = found if isinstance(found, tuple) else (found,)
    assert all(type(entry) in (int, float, bool, str) for entry in entries)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("search.budget", np.float64(8.0)),
        ("search.budget", np.bool_(True)),
        ("search.budget", np.array([8])),
        ("search.budget", True),
        ("akp.enabled", np.int64(1)),
        ("children.lr", np.bool_(True)),
        ("children.lr", None),
        ("space.strides", np.array([1.0, 2.0])),
        ("space.strides", np.int64(1)),
        ("space.strides", "12"),
        ("method.name", np.int64(1)),
    ],
)
def test_numbers_of_another_meaning_are_still_refused(name, value):
    flat = config_lib.flatten(config_lib.default()) | {name: value}
    with pytest.raises(UserError, match=f"{name} is .*; it must be"):
        config_lib.validate(config_lib.nest(flat))
