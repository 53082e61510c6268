"""What a callable of the user's own is known by, so that another one of its name is noticed.

A function has its text. An object that can be called, a method and a `functools.partial` have what
they hold, beside the text of their class or function: two models of one class are two. What a
function reads elsewhere, of its module or a closure, is not seen.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from fnas_jax.core import attributes, identity
from fnas_jax.core.types import UserError


def digest(function: Any) -> str:
    """16 hexadecimal digits of what `function` is. Raises UserError where that cannot be written.

    State counts as `__getstate__` has it now.
    """
    function = inspect.unwrap(function)
    if inspect.isfunction(function) or inspect.isclass(function):
        return identity.digest(_text(function))
    return identity.digest(identity.text(_described(function, ())))


def keep(function: Any) -> None:
    """Remembers the text that a function has now. Raises `attributes.Edited`."""
    function = inspect.unwrap(function)
    if inspect.isfunction(function):
        with contextlib.suppress(OSError, TypeError):  # none
            attributes.written(function)


def _text(value: Any) -> str:
    try:
        return attributes.written(value)
    except (OSError, TypeError):
        return attributes.source_of(value)  # which says so


def _described(value: Any, within: tuple[int, ...]) -> Any:
    """JSON of `value`, which objects with the ids `within` hold. Raises UserError."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        return _array(np.asarray(value))
    if isinstance(value, bytes | pathlib.PurePath):
        return [type(value).__name__, repr(value)]
    if inspect.isfunction(value) or inspect.isclass(value):
        return {"text": _text(value)}
    if id(value) in within:
        return {"within": within.index(id(value))}
    inside = (*within, id(value))
    if isinstance(value, list | tuple):
        return [_described(entry, inside) for entry in value]
    if isinstance(value, set | frozenset):
        return {"set": sorted(identity.text(_described(entry, inside)) for entry in value)}
    if isinstance(value, Mapping):
        pairs = [[_described(part, inside) for part in item] for item in value.items()]
        return {"items": sorted(pairs, key=identity.text)}
    return _object(value, inside)


def _object(value: Any, inside: tuple[int, ...]) -> Any:
    if isinstance(value, functools.partial):
        return {"partial": _described([value.func, value.args, value.keywords], inside)}
    if inspect.ismethod(value):
        return {"method": _described([value.__func__, value.__self__], inside)}
    if inspect.unwrap(value) is not value:  # e.g. by `functools.lru_cache`
        return _described(inspect.unwrap(value), inside)
    try:
        text = _text(type(value))
    except attributes.Edited:
        raise
    except UserError:
        made = f"{type(value).__module__}:{type(value).__qualname__}"
        raise UserError(
            f"a {made} cannot be written as text, so another one would not be noticed; a function,"
            " or an object whose __getstate__ says what counts, can"
        ) from None
    return {"class": text, "state": _described(value.__getstate__(), inside)}


def _array(value: np.ndarray) -> Any:
    if value.dtype.hasobject:
        return {"objects": [_described(entry, ()) for entry in value.ravel().tolist()]}
    content = hashlib.blake2b(np.ascontiguousarray(value).tobytes(), digest_size=8).hexdigest()
    return {"dtype": str(value.dtype), "shape": list(value.shape), "content": content}
