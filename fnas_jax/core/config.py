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
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import ml_collections

from fnas_jax.core.types import UserError

INF = math.inf
T = TypeVar("T")


class Key(NamedTuple):
    """One configuration key; its type is that of the default."""

    default: int | float | bool | str | tuple[int, ...]
    doc: str
    low: float = -INF  # smallest allowed value (of each entry of a tuple)
    high: float = INF  # largest allowed value
    choices: tuple[str, ...] = ()  # allowed strings; empty: any


class Renamed(NamedTuple):
    """What became of a key that users' files may still name."""

    name: str  # of today
    values: Mapping[str, str] = MappingProxyType(
        {}
    )  # old value -> that of today, where they differ


# Refused in commands and config files, with a sentence; translated in the config.json of old runs.
RENAMED = {"children.form": Renamed("children.backend", {"switched": "reference"})}


def key(
    default: Any, doc: str, low: float = -INF, high: float = INF, choices: tuple[str, ...] = ()
) -> Any:
    """A field of a section's dataclass: a key with its default, meaning and allowed values."""
    metadata = {"key": Key(default, doc, low, high, choices)}
    return dataclasses.field(default=default, metadata=metadata)


@functools.cache
def all_keys() -> dict[str, Key]:
    """All keys by name ("search.budget"), in the order in which they are explained."""
    return dict(_collect())


def _collect() -> Iterator[tuple[str, Key]]:
    """Every key of `registry.SECTIONS`, whose classes are imported only now."""
    registry = importlib.import_module("fnas_jax.registry")
    for section, path in registry.SECTIONS.items():
        if path == registry.TABLE:
            own = [name for name in TABLE if name.rpartition(".")[0] == section]
            yield from ((name, TABLE[name]) for name in own)
            continue
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


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """{"search.budget": 64, ..} of a ConfigDict, or of a dict read from JSON."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if hasattr(value, "items"):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = tuple(value) if isinstance(value, list | tuple) else value
    return flat


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
    """The values of an old run under the names of today."""
    found = {}
    for name, value in flat.items():
        if name in RENAMED:
            name, values = RENAMED[name]
            value = values.get(value, value)
        found[name] = value
    return found


def validate(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The same configuration, locked. Raises UserError at the first key that is not right."""
    flat = flatten(config)
    for name in flat:
        if name not in all_keys():
            raise unknown_key(name)
    for name in all_keys():
        if name not in flat:
            raise UserError(f"config key {name!r} is missing; start from core.config.default()")
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


def _check(name: str, value: Any) -> None:
    """Raises UserError unless `value` has the type and range of key `name`."""
    key = all_keys()[name]
    type_ = type(key.default)
    if not (type(value) is type_ or (type_ is float and type(value) is int)):
        raise UserError(f"{name} is {value!r}; it must be {kind(key)}")
    if key.choices and value not in key.choices:
        raise UserError(
            f"{name} is {value!r}; allowed are {', '.join(key.choices)}"
            + nearest(str(value), key.choices)
        )
    entries = value if isinstance(value, tuple) else (value,)
    for entry in entries:
        if type_ is tuple and type(entry) is not int:
            raise UserError(f"{name} is {value!r}; it must be {kind(key)}")
        if type_ in (int, float, tuple) and not key.low <= entry <= key.high:
            raise UserError(f"{name} is {value}; allowed is {allowed(key)}")
        if type_ is float and not math.isfinite(entry):
            raise UserError(f"{name} is {value}; it must be finite")


def kind(key: Key) -> str:
    """The type of the key's values in words."""
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return names.get(type(key.default), "a tuple of whole numbers such as (1, 2)")


def allowed(key: Key) -> str:
    """The allowed values in words, e.g. '1 to 7', or '' where any is."""
    if key.choices:
        return ", ".join(key.choices)
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


# Sections whose dataclasses do not stand beside their code yet (`registry.TABLE`).
TABLE: dict[str, Key] = {
    # --- tnas: Bayesian optimisation with a kernel meta-learnt on other tasks
    "tnas.transfer": Key(True, "learn from other tasks in the knowledge store"),
    "tnas.meta": Key("reptile", "how the kernel is learnt from them", choices=("reptile", "joint")),
    "tnas.iterations": Key(200, "iterations of this meta-learning", 1, 10**6),
    "tnas.tasks": Key(4, "tasks picked in each of them", 1, 1024),
    "tnas.inner": Key(5, "steps on each of these", 1, 1000),
    "tnas.batch": Key(48, "rows of each step", 4, 4096),
    "tnas.outer": Key(0.5, "reptile: fraction of the way taken at first; falls to 0", 1e-4, 1.0),
    "tnas.lr": Key(1e-3, "learning rate of encoders and fusion", 1e-7, 1.0),
    "tnas.lr_hyper": Key(1e-2, "learning rate of the kernel's hyper-parameters", 1e-7, 1.0),
    "tnas.support": Key(512, "rows of other tasks that predictions are conditioned on", 16, 8192),
    "tnas.hidden": Key(64, "units of the encoders, a multiple of 4", 4, 4096),
    "tnas.code": Key(16, "numbers of an architecture's and of a data set's code", 2, 1024),
    "tnas.fusion": Key((128, 128, 64), "units of the layers that join both codes", 1, 4096),
    "tnas.film": Key(False, "the data set modulates these layers instead of standing beside"),
    "tnas.graph_encoder": Key(True, "encode graphs; False: one-hot decisions"),
    "tnas.data_encoder": Key(True, "tell tasks apart by their data"),
    "tnas.deep": Key(True, "learnt part of the kernel; False: Hamming distance of the nodes"),
    "tnas.features": Key(
        "random_conv", "what the data set encoder sees", choices=("random_conv", "pixels")
    ),
    "tnas.images": Key(20, "images of each class that it sees", 1, 20),
    "tnas.task_vector": Key(
        "", "numbers that describe a task without images, joined by commas; kept for later searches"
    ),
    "tnas.target": Key(
        "rank", "scores: of ranks, or standardised rewards", choices=("rank", "standard")
    ),
    "tnas.start": Key(5, "architectures before the model is asked, without a history", 1, 10**4),
    "tnas.start_warm": Key(1, "the same with a history", 1, 10**4),
    "tnas.design": Key(
        "rank", "these: the best of other tasks, or random", choices=("rank", "random")
    ),
    "tnas.acquisition": Key("ei", "log expected improvement or upper bound", choices=("ei", "ucb")),
    "tnas.beta": Key(1.0, "weight of the standard deviation in the upper bound", 0.0, 100.0),
    "tnas.adapt": Key(
        "gp",
        "fitted to the task's own rows: nothing, hyper-parameters, all weights",
        choices=("none", "gp", "all"),
    ),
    "tnas.adapt_steps": Key(5, "steps of adapting all weights", 1, 1000),
    "tnas.trust": Key(0.9, "probability, before any evaluation, that history helps", 0.01, 0.99),
    "tnas.pool": Key(512, "candidates in spaces too large to list", 32, 10**6),
    # --- one-shot methods: one network for all architectures, which inherit its weights
    "oneshot.steps": Key(1000, "architectures that train it, a minibatch each", 1, 10**8),
    "oneshot.every": Key(50, "steps between two log entries", 1, 10**6),
    "oneshot.finetune": Key(
        300, "steps that train the winner on from its inherited weights; 0: none", 0, 10**7
    ),
    "pgnas.gradient": Key(
        "local",
        "estimator for the posterior; concrete and second for macro only",
        choices=("concrete", "local", "second", "score"),
    ),
    "pgnas.mc_samples": Key(1, "architectures drawn and trained in a step", 1, 1024),
    "pgnas.average": Key(False, "they move the weights once, on average; else in turn"),
    "pgnas.slots": Key(1, "local: decisions whose choices a step compares", 1, 10**4),
    "pgnas.lr": Key(0.3, "learning rate of the posterior's logits (Adam)", 1e-6, 10.0),
    "pgnas.warmup": Key(0.5, "share of the steps that train weights only", 0.0, 1.0),
    "pgnas.temperature": Key(1.0, "temperature of the relaxation at first", 0.01, 100.0),
    "pgnas.temperature_end": Key(0.1, "and at last", 0.01, 100.0),
    "pgnas.precision": Key(1e-3, "precision of the prior of all weights (lambda)", 0.0, 1e6),
    "pgnas.gamma": Key(0.0, "nats that a MFLOP costs in the prior of architectures", 0.0, 1e9),
    "pgnas.mflops": Key(0.0, "most MFLOPs; gamma rises until samples have less; 0: any", 0.0, 1e9),
    "pgnas.dual": Key(0.03, "how fast gamma rises and falls then", 0.0, 10.0),
    "pgnas.top": Key(3, "best samples that have to stay the same", 1, 1000),
    "pgnas.patience": Key(32, "samples for which they stay before the end; 0: never", 0, 10**7),
}
