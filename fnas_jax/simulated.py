"""Simulated time: what the networks of a search would have taken to train, by the task's table.

Each network that is evaluated for the first time counts, failed ones too, one after another. The
history has the seconds of each; all that is told here are sums of these.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import UserError
from fnas_jax.knowledge import history
from fnas_jax.knowledge.history import Row, Rows
from fnas_jax.spaces.base import Space
from fnas_jax.tasks.base import Task

NAME = "simulated_seconds"  # in metrics.jsonl and result.json, of figures, and of the budget


def check(search: Any, task: Task) -> None:
    """Raises UserError where the section `search` has an end that `task` knows no times for."""
    if search.simulated_seconds and not task.simulated:
        raise UserError(
            f"search.simulated_seconds is {search.simulated_seconds:g}, and {task.name} has no"
            " training times: task.time=COLUMN names those of a table, search.seconds is time of"
            " the clock"
        )


def before(task: Task, store: sqlite3.Connection, run_id: str) -> float | None:
    """Seconds that run `run_id` has spent so far; None where the task has no times."""
    return history.seconds(store, run_id) if task.simulated else None


def after(spent: float | None, rows: Iterable[Row]) -> float | None:
    """`spent` with an iteration that wrote `rows`."""
    if spent is None:
        return None
    known = (row.seconds for row in rows if row.trained and math.isfinite(row.seconds))
    return spent + math.fsum(known)


def over(search: Any, spent: float | None) -> bool:
    """Whether a search by the section `search` has spent its simulated time."""
    return spent is not None and 0 < search.simulated_seconds <= spent


def why(search: Any, spent: float | None) -> str:
    """Why the search is over, in words; "" where that is not for its simulated time."""
    if not over(search, spent):
        return ""
    return (
        f"search.simulated_seconds is {search.simulated_seconds:g}: the search ends here, after"
        f" {spent:g} s of training by the table"
    )


def result(task: Task, rows: Rows, best: np.ndarray | None) -> dict[str, float | None] | None:
    """What result.json has of it: "total", and "to_best" until `best` [T] was evaluated.

    `rows`: of the run, in their order. None where the task has no times.
    """
    if not task.simulated:
        return None
    spent = np.cumsum(np.where(rows.trained, np.nan_to_num(rows.seconds), 0.0))
    return {
        "total": float(spent[-1]) if len(spent) else 0.0,
        "to_best": None if best is None else _first(task.space, rows, best, spent),
    }


def _first(space: Space, rows: Rows, best: np.ndarray, spent: np.ndarray) -> float | None:
    """Of `spent` [R], where the network `best` [T], in any form, is evaluated first."""
    forms = np.asarray(space.canonical(jnp.asarray(np.vstack([best[None], rows.decisions]))))
    places = np.flatnonzero(rows.trained & (forms[1:] == forms[0]).all(axis=1))
    return float(spent[places[0]]) if len(places) else None
