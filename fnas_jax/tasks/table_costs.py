"""Costs of the rows of a table: which of them are none, and what becomes of such rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fnas_jax.core.types import COSTS, UserError
from fnas_jax.tasks import delimited
from fnas_jax.tasks.delimited import LARGEST, SMALLEST, Content, Row

ABSENT = ("", "nan", "na", "n/a", "null", "none", "-")  # texts of what nobody has measured
WAYS = ("leave_out", "refuse")  # of `task.missing_costs`


def read(path: Path, content: Content) -> tuple[dict[str, np.ndarray], dict[str, tuple[str, ...]]]:
    """([M] float64 of each column of costs, NaN where there is none; where and what that is).

    Raises UserError for a text that is neither a number nor one of ABSENT.
    """
    costs: dict[str, np.ndarray] = {}
    unpriced: dict[str, tuple[str, ...]] = {}
    for name in (c for c in COSTS if c in content.columns):
        comma = delimited.commas(content, name)
        found = [_cost(path, row, name, comma) for row in content.rows]
        costs[name] = np.array(found, np.float64)
        unpriced[name] = tuple(
            f"line {row.line}: {row.fields[name]!r}"
            for row, cost in zip(content.rows, found, strict=True)
            if math.isnan(cost)
        )
    return costs, unpriced


def _cost(path: Path, row: Row, name: str, decimal_comma: bool) -> float:
    """A cost above 0, or NaN for what can be none: -1 and 0 often stand for "not measured"."""
    text = row.fields[name]
    if text.lower() in ABSENT:
        return math.nan
    try:
        value = delimited.number(text, decimal_comma)
    except ValueError:
        raise UserError(
            f"{path}, line {row.line}: {name} is {text!r}; it must be a number"
        ) from None
    return value if SMALLEST <= value <= LARGEST else math.nan


def kept(
    name: str,
    costs: Mapping[str, np.ndarray],
    unpriced: Mapping[str, Sequence[str]],
    wanted: Mapping[str, str],
    way: str,
) -> tuple[np.ndarray, list[str]]:
    """([M] bool, the rows with every cost that is `wanted`; what is to be said of the others).

    `costs`: [M] of each cost of the table `name`; `wanted`: the key that needs a cost, by the cost;
    `way`: one of WAYS. A cost that no row has is left to the caller. Raises UserError where a row
    lacks one and `way` is "refuse", and where no row has all of them.
    """
    rows = np.ones(len(next(iter(costs.values()))), bool)
    said = []
    for cost, values in costs.items():
        missing, where = np.isnan(values), unpriced.get(cost, ())
        if not missing.any() or (cost in wanted and missing.all() and not where):
            continue
        of = f"{missing.sum():,} of {len(missing):,} rows ({examples(where)})" if where else ""
        if cost not in wanted:
            said += [f"{cost} is no number above 0 in {of}, and unknown there"] if of else []
            continue
        if way == "refuse":
            raise UserError(
                f"table {name} has no {cost} in {of}, which {wanted[cost]} needs;"
                " task.missing_costs=leave_out leaves such rows out"
            )
        rows &= ~missing
        said.append(f"left out, because {wanted[cost]} needs their {cost}: {of}")
    if not rows.any():
        raise UserError(f"no row of table {name} has {' and '.join(wanted)}: {'; '.join(said)}")
    return rows, said


def examples(places: Sequence[str], most: int = 3) -> str:
    """The first of some places, in words."""
    more = f", and {len(places) - most:,} more" if len(places) > most else ""
    return ", ".join(places[:most]) + more
