"""The values of one configuration key: read as Python's own, checked, and explained."""

from __future__ import annotations

import math
import operator
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from fnas_jax.core.nearest import nearest
from fnas_jax.core.types import UserError

INF = math.inf
NOTHING = ("None", "none", "null")  # texts by which no folder, file or part is meant


class Key(NamedTuple):
    """One configuration key; its type is that of the default."""

    default: int | float | bool | str | tuple[int, ...] | tuple[str, ...]
    doc: str
    low: float = -INF  # smallest allowed value (of each entry of a tuple)
    high: float = INF  # largest allowed value
    choices: tuple[str, ...] = ()  # allowed strings; empty: any
    texts: bool = False  # the entries of a tuple are texts, else whole numbers


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


def suits(key: Key, value: Any) -> bool:
    """Whether `value` has the type of `key`; of a tuple, whatever its entries are."""
    type_ = type(key.default)
    return type(value) is type_ or (type_ is float and type(value) is int)


def check(name: str, key: Key, value: Any) -> None:
    """Raises UserError unless `value` has the type and range of `key`, which is called `name`."""
    type_ = type(key.default)
    if not suits(key, value):
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


def _listed(choices: Iterable[str]) -> str:
    """Allowed texts for people, the empty one among them."""
    return ", ".join(choice or "''" for choice in choices)
