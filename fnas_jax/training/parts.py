"""Trainings in parts of about two seconds, between which they can be shown and kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import jax

T = TypeVar("T")
SECONDS = 2.0  # of a part: how often a training is shown, and could be kept
FASTER = 8  # times as many steps as the last part had, at most: the first one also compiles


def steps_of_part(size: int, seconds: float) -> int:
    """How many steps the part after one of `size` steps has, each of which took so long."""
    return min(max(1, round(SECONDS / max(seconds, 1e-9))), FASTER * size)


def timed(steps: Callable[[], T]) -> tuple[T, float]:
    """(what `steps` gives, once it is computed, and the seconds that it took)."""
    start = time.monotonic()
    found = jax.block_until_ready(steps())
    return found, time.monotonic() - start
