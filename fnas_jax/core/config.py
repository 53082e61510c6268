"""Configuration keys: what one is, and how values are read, checked and explained.

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
import difflib
import functools
import importlib
import math
import operator
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import ml_collections

from fnas_jax.core.types import UserError

INF = math.inf
NOTHING = ("None", "none", "null")  # texts by which no folder, file or part is meant
T = TypeVar("T")


class Key(NamedTuple):
    """One configuration key; its type is that of the default."""

    default: int | float | bool | str | tuple[int, ...] | tuple[str, ...]
    doc: str
    low: float = -INF  # smallest allowed value (of each entry of a tuple)
    high: float = INF  # largest allowed value
    choices: tuple[str, ...] = ()  # allowed strings; empty: any
    texts: bool = False  # the entries of a tuple are texts, else whole numbers


class Renamed(NamedTuple):
    """What became of a key that users' files may still name."""

    name: str  # of today
    # Old value -> that of today, where they differ.
    values: Mapping[str, str] = MappingProxyType({})


# Refused in commands and config files, with a sentence; translated in the config.json of old runs.
RENAMED = {"children.form": Renamed("children.backend", {"switched": "reference"})}


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


def _listed(choices: Iterable[str]) -> str:
    """Allowed texts for people, the empty one among them."""
    return ", ".join(choice or "''" for choice in choices)


def given_twice(name: str, first: Any, second: Any) -> UserError:
    """The error for two values of one key."""
    return UserError(f"{name} is given twice, as {first!r} and {second!r}; give it once")


def nearest(word: str, allowed: Iterable[str]) -> str:
    """'; did you mean X?' for the entry of `allowed` nearest to `word`, or '' if none is near."""
    scored = [(_similarity(word, entry), entry) for entry in allowed]
    best, entry = max(scored, default=(0.0, ""))
    return f"; did you mean {entry!r}?" if best > 0.6 else ""


def _similarity(a: str, b: str) -> float:
    """Of dotted names, in 0..1; the last part counts as much as the whole, or alone if b has it."""
    whole = difflib.SequenceMatcher(None, a, b).ratio()
    last = difflib.SequenceMatcher(None, a.rpartition(".")[2], b.rpartition(".")[2]).ratio()
    return max((whole + last) / 2, 0.9 * last if last > 0.8 else 0.0)


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
    """The values of an old run under the names of today; what it did not know, at its default."""
    found = {name: key.default for name, key in all_keys().items()}
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
        _check(name, flat[name])
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


def plain(key: Key, value: Any) -> Any:
    """`value` by Python's own type of `key`, where another one says the same; else as it is.

    Numbers of numpy and JAX, whatever counts as a whole number, sequences of these, and paths; of
    texts also one with commas between them.
    """
    type_ = type(key.default)
    if key.texts and isinstance(value, str):
        return split_texts(value)
    if type_ is tuple:
        entries = value.tolist() if hasattr(value, "tolist") else value
        listed = isinstance(entries, Sequence) and not isinstance(entries, str)
        return tuple(map(_scalar, entries)) if listed else value
    value = _scalar(value)
    return os.fspath(value) if type_ is str and isinstance(value, os.PathLike) else value


def split_texts(text: str) -> tuple[str, ...]:
    """The texts between the commas of `text`, without blanks around them."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _scalar(value: Any) -> Any:
    """A scalar of numpy's, or a 0-dimensional array, as Python has it; anything else as it is."""
    if hasattr(value, "ndim"):
        return value.item() if value.ndim == 0 else value
    whole = hasattr(value, "__index__") and not isinstance(value, bool)
    return operator.index(value) if whole else value


def suits(name: str, value: Any) -> bool:
    """Whether `value` has the type of key `name`; of a tuple, whatever its entries are."""
    type_ = type(all_keys()[name].default)
    return type(value) is type_ or (type_ is float and type(value) is int)


def _check(name: str, value: Any) -> None:
    """Raises UserError unless `value` has the type and range of key `name`."""
    key = all_keys()[name]
    type_ = type(key.default)
    if not suits(name, value):
        raise UserError(f"{name} is {value!r}; it must be {kind(key)}")
    if key.choices and value not in key.choices:
        raise UserError(
            f"{name} is {value!r}; allowed are {_listed(key.choices)}"
            + nearest(str(value), key.choices)
        )
    entries = value if isinstance(value, tuple) else (value,)
    for entry in entries:
        if type_ is tuple and type(entry) is not (str if key.texts else int):
            raise UserError(f"{name} is {value!r}; it must be {kind(key)}")
        if type_ is str and not key.choices and entry in NOTHING:
            raise UserError(
                f"{name} is {entry!r}, which would be taken for a name; give an empty one"
                f" ({name}=) for none, or leave it out for the default, {key.default!r}"
            )
        if type_ in (int, float, tuple) and not key.texts and not key.low <= entry <= key.high:
            raise UserError(f"{name} is {value}; allowed is {allowed(key)}")
        if type_ is float and not abs(entry) <= sys.float_info.max:
            raise UserError(f"{name} is {value}; it must be finite")


def kind(key: Key) -> str:
    """The type of the key's values in words."""
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    of_texts = "texts such as ('a', 'b')" if key.texts else "whole numbers such as (1, 2)"
    return names.get(type(key.default), f"a tuple of {of_texts}")


def allowed(key: Key) -> str:
    """The allowed values in words, e.g. '1 to 7', or '' where any is."""
    if key.choices:
        return _listed(key.choices)
    if key.low == -INF and key.high == INF:
        return ""
    if key.high == INF:
        return f"{key.low:g} or more"
    each = "entries from " if isinstance(key.default, tuple) else ""
    return f"{each}{_number(key.low)} to {_number(key.high)}"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and value < 10**15 else f"{value:g}"


def help_text() -> str:
    """One line per key: name, default, meaning, allowed values."""
    lines = []
    for name, key in all_keys().items():
        range_ = f" [{allowed(key)}]" if allowed(key) else ""
        lines.append(f"  --config.{name}={key.default!r}\n        {key.doc}{range_}")
    return "\n".join(lines)
