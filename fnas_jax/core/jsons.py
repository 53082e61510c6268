"""JSON that is read back: damaged, it is told and not taken for something else."""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from fnas_jax.core.types import UserError

NUMBER = (int, float)
MAYBE_NUMBER = (*NUMBER, type(None))


def parse(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError for whatever Python cannot read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it has lists within lists too deep to read") from None


def read(path: pathlib.Path) -> Any:
    """The content of a JSON file. Raises UserError where it is missing or damaged."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{str(path)!r} cannot be read: {reason}") from None


def read_record(
    path: pathlib.Path, kinds: Mapping[str, Any], needed: Iterable[str] = ()
) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError as `read`, and where it does not fit `kinds`."""
    return record(read(path), kinds, repr(str(path)), needed)


def record(
    value: Any, kinds: Mapping[str, Any], what: str, needed: Iterable[str] = ()
) -> dict[str, Any]:
    """`value`, an object whose entries by the names of `kinds`, where it has them, are of these.

    A kind is a type, a tuple of types, a mapping of kinds of an object's own entries, or a list of
    one kind, of all entries of a list. It has all that is `needed`. Raises UserError, which calls
    it `what`.
    """
    if not isinstance(value, dict):
        raise UserError(f"{what} is damaged: it holds {type(value).__name__}, no object")
    lacking = [name for name in needed if name not in value]
    if lacking:
        raise UserError(f"{what} is damaged: it has no {lacking[0]!r}")
    for name, kind in kinds.items():
        if name in value and not fits(value[name], kind):
            raise UserError(f"{what} is damaged: its {name!r} is {value[name]!r}")
    return value


def fits(value: Any, kind: Any) -> bool:
    """Whether `value` is of a kind of `record`; true and false are no numbers.

    Nor is what no float can hold a number: whoever prints or computes with it takes it as one.
    """
    if isinstance(kind, Mapping):
        return isinstance(value, dict) and all(
            fits(value[name], own) for name, own in kind.items() if name in value
        )
    if isinstance(kind, list):
        return isinstance(value, list) and all(fits(entry, kind[0]) for entry in value)
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if any(isinstance(own, Mapping | list) for own in kinds):
        return any(fits(value, own) for own in kinds)
    if isinstance(value, int) and float in kinds and abs(value) > sys.float_info.max:
        return False
    return isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)
