"""What something is, as one canonical text and a short digest of it: equal texts, equal things."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

# How names in a configuration begin whose content was in memory, in Python.
ARRAYS = "arrays-"  # of image sets
OBJECT = "object:"  # of spaces, tasks and methods
IMAGES = "x_train, y_train, .."  # the arguments that arrays are


def in_memory(settings: Mapping[str, Any]) -> list[str]:
    """The arguments that have to be given again to go on with a run of these flat `settings`.

    As fnas_jax.resume and fnas_jax.search call them; [] for a run that its configuration says all
    of.
    """
    arrays = settings["task.name"].startswith(f"images/{ARRAYS}")
    kinds = (kind for kind in ("space", "task", "method") if _is_object(settings, kind))
    return [*([IMAGES] if arrays else []), *(f"{kind}=.." for kind in kinds)]


def _is_object(settings: Mapping[str, Any], kind: str) -> bool:
    return settings[f"{kind}.name"].startswith(OBJECT)


def text(value: Any) -> str:
    """The canonical JSON of dicts, sequences, NamedTuples (as dicts), numbers, texts and None.

    Raises TypeError for anything else: what cannot be written cannot be told apart.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(identity: str) -> str:
    """16 hexadecimal digits of a canonical text."""
    return hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()


def of_arrays(tree: Any) -> str:
    """16 hexadecimal digits of the bytes, types and shapes of the arrays of a pytree."""
    seen = hashlib.blake2b(digest_size=8)
    for leaf in jax.tree.leaves(tree):
        array = np.ascontiguousarray(leaf)
        seen.update(f"{array.dtype}{array.shape}".encode())
        seen.update(array.data)
    return seen.hexdigest()


def extend(identity: str, **more: Any) -> str:
    """The canonical text of a dict with `more` entries; '' stays '', which means unknown."""
    return text(json.loads(identity) | more) if identity else ""


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value.item() if isinstance(value, np.generic) else value
