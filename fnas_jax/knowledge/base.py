"""The `Knowledge` that a method's builder is handed."""

from __future__ import annotations

import math
import pathlib
import sqlite3
from typing import NamedTuple

from fnas_jax.core.keep import NOWHERE, Keep


class Knowledge(NamedTuple):
    """The only things that outlive a run, or a process of it.

    A run looks at what was known when it was first started, so that a resumed one sees the same.
    """

    history: sqlite3.Connection  # see knowledge.history
    until: float = math.inf  # seconds since 1970; what was written later is not to be looked at
    pool: pathlib.Path | None = None  # folder of trained blocks; see knowledge.pool_store
    run: str = "0"  # id of the run, hexadecimal
    begun: bool = False  # the run was started before, and goes on
    keep: Keep = NOWHERE  # trainings of the run, until it has a result; what it has measured
    # File of what the run has taken of other searches (`knowledge.pins`); None: nothing outlives it
    pinned: pathlib.Path | None = None
