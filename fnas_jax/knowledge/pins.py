"""What a run has taken of other searches when it began, in a file of its own.

Whoever shares a store writes to it while others search, and takes rows out of it, when a search
goes on from an earlier checkpoint. A run that goes on reads its own file, so that it does what it
would have done undisturbed.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fnas_jax.core import disk, identity, jsons, npy
from fnas_jax.core.types import UserError

DAMAGE = (*npy.UNREADABLE, AttributeError)  # what reading a damaged file raises


class Pin(NamedTuple):
    """R rows of Q tasks, and what describes the data of these."""

    decisions: np.ndarray  # [R, T] int32
    reward: np.ndarray  # [R] float64
    task: np.ndarray  # [R] int64 in 0..Q-1
    names: list[str]  # [Q]
    protocols: list[str]  # [Q]
    counts: dict[str, Any]  # for the log
    statistics: Sequence[dict[str, float] | None]  # [Q]
    images: Sequence[np.ndarray | None]  # [Q] uint8


def write(path: pathlib.Path, run: str, pin: Pin) -> None:
    """Writes what the run with this id has taken, in one step."""
    about = {
        "run": run,
        "digest": digest(pin),
        "names": pin.names,
        "protocols": pin.protocols,
        "counts": pin.counts,
        "statistics": pin.statistics,
    }
    arrays: dict[str, Any] = {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)}
    arrays |= {"decisions": _small(pin.decisions), "reward": pin.reward, "task": _small(pin.task)}
    arrays |= {f"images{q}": a for q, a in enumerate(pin.images) if a is not None}
    with disk.replacing(path, "wb") as file:
        np.savez(file, **arrays)


def _small(numbers: np.ndarray) -> np.ndarray:
    """`numbers` from 0 on in the smallest type that holds them, which compressing takes longer."""
    return numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))


def read(path: pathlib.Path, run: str) -> Pin | None:
    """What the run with this id has taken; None where that was not written down.

    Raises UserError where it is damaged.
    """
    if not path.exists():
        return None
    try:
        arrays = npy.members(path)
        about = jsons.parse(arrays.pop("about").tobytes())
        if about["run"] != run:  # of one that never began
            return None
        images = [arrays.get(f"images{q}") for q in range(len(about["names"]))]
        for name, kind in (("decisions", np.int32), ("task", np.int64)):
            if arrays[name].dtype.kind not in "iu":
                raise ValueError(f"its {name} are {arrays[name].dtype}")
            arrays[name] = arrays[name].astype(kind)
        given = arrays | about | {"images": images}
        pin = Pin(**{name: given[name] for name in Pin._fields})
        if digest(pin) != about["digest"]:
            raise ValueError("its digest differs")
    except DAMAGE as error:
        raise UserError(
            f"{str(path)!r}, what the search has taken of other searches, is damaged ({error}): put"
            " a copy of before in its place, or start a new workdir"
        ) from error
    return pin


def digest(pin: Pin) -> str:
    """16 hexadecimal digits of all but the counts."""
    texts = json.dumps([pin.names, pin.protocols, pin.statistics], sort_keys=True)
    arrays = [pin.decisions, pin.reward, pin.task, *(a for a in pin.images if a is not None)]
    return identity.digest(texts + identity.of_arrays(arrays))
