"""The `Knowledge` that a method's builder is handed."""

from __future__ import annotations

import sqlite3
from typing import Any, NamedTuple


class Knowledge(NamedTuple):
    """The only things that outlive a run."""

    history: sqlite3.Connection  # see knowledge.history
    pool: Any = None  # weights of trained blocks; None: none kept
