"""Texts that numpy has stored as objects, which is by pickle, read without running anything.

A pickle may call any function of any module, so that numpy refuses to load arrays of objects. Here
names in a pickle never reach a module: the three that numpy writes stand for the classes below,
which keep what they are given, and all others are refused.
"""

from __future__ import annotations

import io
import math
import pickle
from typing import IO, Any

import numpy as np

from fnas_jax.tasks.readers.examples import reason


class _Stored:
    """In place of an array of objects: its shape and its entries."""

    shape: tuple[int, ...] = ()
    entries: Any = None

    def __setstate__(self, state: Any) -> None:
        _, self.shape, _, _, self.entries = state


class _Type:
    """In place of a dtype, which is that of objects."""

    def __init__(self, *state: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _stored(*_: Any) -> _Stored:
    return _Stored()


_NAMES = {"_reconstruct": _stored, "ndarray": _Stored, "dtype": _Type}
_MODULES = {"numpy", "numpy.core.multiarray", "numpy._core.multiarray"}


class _Refused(Exception):
    """A name in a pickle that is not one of `_NAMES`."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in _MODULES and name in _NAMES:
            return _NAMES[name]
        raise _Refused(
            f"it holds objects of {module}.{name}; of objects, only texts and numbers are read,"
            " because others may run programs"
        )


def read_array(file: IO[bytes]) -> np.ndarray:
    """The array of objects in a `.npy` file, behind its header, as texts or whole numbers.

    Raises:
      ValueError: other objects, or a damaged file.
    """
    try:
        found = _Unpickler(io.BytesIO(file.read())).load()
    except _Refused as error:
        raise ValueError(str(error)) from None
    except Exception as error:  # a damaged one may say anything
        raise ValueError(f"its objects cannot be read: {reason(error)}") from None
    if not isinstance(found, _Stored) or not isinstance(found.entries, list):
        raise ValueError("it holds objects that are neither texts nor numbers")
    entries, shape = plain(found.entries), found.shape
    whole = isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape)
    if not whole or math.prod(shape) != len(entries):
        raise ValueError(f"it has {len(entries)} objects in the shape {shape}")
    return entries.reshape(shape)


def plain(entries: list[Any]) -> np.ndarray:
    """[n] texts, or whole numbers, of Python's objects; bytes are UTF-8. Raises ValueError."""
    if all(isinstance(entry, str | bytes) for entry in entries):
        texts = [entry.decode() if isinstance(entry, bytes) else entry for entry in entries]
        return np.asarray(texts, str)
    if all(isinstance(entry, int) for entry in entries):
        return np.asarray(entries, np.int64)
    kinds = sorted({type(entry).__name__ for entry in entries})
    raise ValueError(f"it holds objects ({', '.join(kinds)}); texts or whole numbers are needed")
