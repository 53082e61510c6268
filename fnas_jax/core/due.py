"""When checkpoints are taken: often enough to lose little, and seldom enough to cost little."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

from fnas_jax.core import signals

T = TypeVar("T")


class Paced:
    """Takes the checkpoints of a run, and spends at most a tenth of its time on them.

    With 0 `seconds`, however long it takes: the next one is always due.
    """

    def __init__(self, seconds: float):
        """`seconds`: the least time between two of them."""
        self._seconds = seconds
        self._due = -math.inf  # when the next one is to be taken
        self._taken = time.monotonic()  # the last one; at first, when there was nothing to keep

    @property
    def due(self) -> bool:
        """Whether it is time for the next one: also before the process ends, as it was told to."""
        return time.monotonic() >= self._due or bool(signals.asked())

    def overdue(self, seconds: float) -> bool:
        """Whether it is, and the last one was taken so long ago."""
        late = time.monotonic() >= self._taken + seconds
        return self.due and (late or bool(signals.asked()))

    def take(self, store: Callable[[], T]) -> T:
        """Calls `store`, which takes one, and returns what it returns."""
        start = time.monotonic()
        found = store()
        self._taken = now = time.monotonic()  # large states take long to write
        self._due = now + (max(self._seconds, 9 * (now - start)) if self._seconds else 0.0)
        return found
