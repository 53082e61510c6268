import math

import pytest

from fnas_jax.core import config as config_lib
from fnas_jax.core.types import UserError


def with_value(name, value):
    return config_lib.nest(config_lib.flatten(config_lib.default()) | {name: value})


def test_defaults_are_valid_and_locked():
    config = config_lib.validate(config_lib.default())
    assert config_lib.flatten(config) == {n: k.default for n, k in config_lib.KEYS.items()}
    with pytest.raises(AttributeError):
        config.search.budgt = 1


@pytest.mark.parametrize("name", config_lib.KEYS)
def test_every_key_says_what_it_means_and_appears_in_the_help(name):
    assert len(config_lib.KEYS[name].doc) > 3
    assert f"--config.{name}=" in config_lib.help_text()


@pytest.mark.parametrize(
    ("name", "key"),
    [(n, k) for n, k in config_lib.KEYS.items() if isinstance(k.default, int | float)],
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
        ("children.lr", math.nan, "allowed is 1e-06 to 100"),
        ("space.strides", (1, 3), "allowed is entries from 1 to 2"),
        ("space.strides", (1, 1.5), "it must be a tuple of whole numbers"),
        ("method.name", "evolutoin", "allowed are .*did you mean 'evolution'"),
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
