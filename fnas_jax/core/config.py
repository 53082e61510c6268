"""Configuration keys: where they stand, what they are called, and all values together.

The keys of a section are the fields of a frozen dataclass that stands beside what it configures,
each with its default, range and meaning; `registry.SECTIONS` lists these classes:

    @dataclass(frozen=True)
    class Evolution:
        population: int = key(30, "architectures alive", 2, 10**6)

is `--config.evolution.population`, and `read(Evolution, config.evolution)` its values. A config
file defines `get_config()`, which starts from `default()` and changes what it needs:

    from fnas_jax.core.config import default

    def get_config():
        config = default()
        config.search.budget = 128
        return config

Values of the command line (`--config.search.budget=256`) come on top.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import ml_collections

from fnas_jax.core.config_values import INF, Key, allowed, check, plain
from fnas_jax.core.nearest import nearest
from fnas_jax.core.types import UserError

T = TypeVar("T")


class Renamed(NamedTuple):
    """What became of a key that users' files may still name."""

    name: str  # of today
    # Old value -> that of today, where they differ.
    values: Mapping[str, str] = MappingProxyType({})


# Refused in commands and config files, with a sentence; translated in the config.json of old runs.
RENAMED = {"children.form": Renamed("children.backend", {"switched": "reference"})}
# What searches did before there was a key for it, where today's default does something else.
BEFORE = MappingProxyType({"features.structure": False, "features.costs": False})


def key(
    default: Any,
    doc: str,
    low: float = -INF,
    high: float = INF,
    choices: tuple[str, ...] = (),
    texts: bool = False,
) -> Any:
    """A field of a section's dataclass: a key with its default, meaning and allowed values."""
    metadata = {"key": Key(default, doc, low, high, choices, texts)}
    return dataclasses.field(default=default, metadata=metadata)


@functools.cache
def all_keys() -> dict[str, Key]:
    """All keys by name ("search.budget"), in the order in which they are explained."""
    return dict(_collect())


def _collect() -> Iterator[tuple[str, Key]]:
    """Every key of `registry.SECTIONS`, whose classes are imported only now."""
    registry = importlib.import_module("fnas_jax.registry")
    for section, path in registry.SECTIONS.items():
        module, _, kind = path.rpartition(".")
        for field in _fields(getattr(importlib.import_module(module), kind)):
            name = f"{section}.{field.name}" if section else field.name
            yield name, field.metadata["key"]


def _fields(kind: Any) -> list[dataclasses.Field]:
    """The fields of a section's dataclass that are keys: those made by `key`."""
    return [field for field in dataclasses.fields(kind) if "key" in field.metadata]


def read(kind: type[T], section: Any) -> T:
    """The dataclass `kind` with the values of a ConfigDict's `section`.

    Sections within it are read on their own. Raises ValueError unless its names are the keys of
    `kind`, all of them.
    """
    values = {name: value for name, value in section.items() if not hasattr(value, "items")}
    fields = {field.name for field in _fields(kind)}
    if values.keys() != fields:
        raise ValueError(
            f"the section of {kind.__name__} lacks {sorted(fields - values.keys())}"
            f" and has {sorted(values.keys() - fields)} besides"
        )
    return kind(**values)


def default() -> ml_collections.ConfigDict:
    """The locked configuration with every key at its default."""
    return nest({name: key.default for name, key in all_keys().items()})


def nest(flat: dict[str, Any]) -> ml_collections.ConfigDict:
    """The locked ConfigDict of {"search.budget": 64, ..}."""
    config = ml_collections.ConfigDict()
    for name, value in flat.items():
        *sections, last = name.split(".")
        node = config
        for section in sections:
            if section not in node:
                node[section] = ml_collections.ConfigDict()
            node = node[section]
        node[last] = value
    return config.lock()


def flatten(config: Any) -> dict[str, Any]:
    """{"search.budget": 64, ..} of a ConfigDict, or of a dict read from JSON."""
    return {
        name: tuple(value) if isinstance(value, list | tuple) else value
        for name, value in _pairs(config)
    }


def collect(*sources: Mapping[str, Any]) -> dict[str, Any]:
    """{"search.budget": 64, ..} of keys that a user gave in several ways, nested or not.

    Raises UserError for an unknown key, and for one of two values, of which one would be dropped
    without a word.
    """
    found: dict[str, Any] = {}
    for name, value in (pair for source in sources for pair in _pairs(source)):
        if name not in all_keys():
            raise unknown_key(name)
        value = plain(all_keys()[name], value)
        if name in found and found[name] != value:
            raise given_twice(name, found[name], value)
        found[name] = value
    return found


def _pairs(source: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The keys and values of a mapping of any depth, where one may occur by two ways."""
    for name, value in source.items():
        if hasattr(value, "items"):
            yield from _pairs(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def given_twice(name: str, first: Any, second: Any) -> UserError:
    """The error for two values of one key."""
    return UserError(f"{name} is given twice, as {first!r} and {second!r}; give it once")


def unknown_key(name: str) -> UserError:
    """The error for a key that does not exist."""
    today = renamed(name)
    if today:
        return UserError(today)
    keys = all_keys()
    sections = {key.rpartition(".")[0] for key in keys} - {""}
    section = name if name in sections else name.rpartition(".")[0]
    siblings = [key.removeprefix(section + ".") for key in keys if key.startswith(section + ".")]
    listed = f"; {section} has {', '.join(siblings)}" if siblings else "; --help lists all"
    near = "" if name in sections else nearest(name, [*keys, *sections])
    return UserError(f"unknown config key {name!r}{near or listed}")


def renamed(name: str) -> str:
    """What became of key `name` in a sentence; '' unless it was renamed.

    The name may lack its section, as in what a ConfigDict says of an unknown key.
    """
    for old, today in RENAMED.items():
        if name in (old, old.rpartition(".")[2]):
            values = "".join(f"; its value {a!r} is now {b!r}" for a, b in today.values.items())
            return f"config key {old!r} is now {today.name!r}{values}"
    return ""


def modernize(flat: dict[str, Any]) -> dict[str, Any]:
    """The values of an old run under the names of today; what it did not know, as it was then."""
    found = {name: key.default for name, key in all_keys().items()} | BEFORE
    for name, value in flat.items():
        if name in RENAMED:
            name, values = RENAMED[name]
            value = values.get(value, value)
        found[name] = value
    return found


def validate(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The same configuration, locked, with values of Python's own types (`plain`).

    Raises UserError at the first key that is not right.
    """
    flat = flatten(config)
    for name in flat:
        if name not in all_keys():
            raise unknown_key(name)
    for name in all_keys():
        if name not in flat:
            raise UserError(f"config key {name!r} is missing; start from core.config.default()")
        flat[name] = plain(all_keys()[name], flat[name])
        check(name, all_keys()[name], flat[name])
    if flat["reward.cost"] != "none" and not flat["reward.target"] > 0:
        raise UserError(
            f"reward.target is {flat['reward.target']}; with reward.cost={flat['reward.cost']!r}"
            " it must be above 0"
        )
    if flat["task.val_fraction"] + flat["task.test_fraction"] > 0.9:
        raise UserError(
            f"task.val_fraction is {flat['task.val_fraction']} and task.test_fraction is"
            f" {flat['task.test_fraction']}; together they may be at most 0.9"
        )
    return nest(flat)


def help_text() -> str:
    """One line per key: name, default, meaning, allowed values."""
    lines = []
    for name, key in all_keys().items():
        range_ = f" [{allowed(key)}]" if allowed(key) else ""
        lines.append(f"  --config.{name}={key.default!r}\n        {key.doc}{range_}")
    return "\n".join(lines)
