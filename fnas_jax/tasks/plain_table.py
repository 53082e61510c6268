"""Tables of the user's own: text files with a row for every architecture.

Some columns are decisions, `mflops`, `params_m` and `latency_ms` are costs, one of the others is
what is searched for, and one may have the seconds that trainings took. What the file leaves open is
asked for, and what is not used is said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fnas_jax.core.measure import Measure
from fnas_jax.core.nearest import nearest
from fnas_jax.core.types import UserError
from fnas_jax.spaces import categorical
from fnas_jax.spaces.base import Space
from fnas_jax.tasks import delimited, table_costs, table_metric, table_times
from fnas_jax.tasks.delimited import Content, Row

DIGITS = 4000  # of a whole number: of more Python makes none


class Asked(NamedTuple):
    """What the configuration says of a table; "" and (): the file has to say it."""

    metric: str = ""
    direction: str = ""
    decisions: tuple[str, ...] = ()  # columns, in order
    time: str = ""  # column of the seconds that trainings took; "": the usual one, if any


ANYTHING = Asked()


class Plain(NamedTuple):
    """A table of M rows as it was read."""

    space: Space
    archs: np.ndarray  # [M, T] int32
    values: np.ndarray  # [M] float64 as `Metrics.accuracy` has them; NaN: that training failed
    costs: dict[str, np.ndarray]  # [M] float64 of each cost column, NaN where there is none
    unpriced: dict[str, tuple[str, ...]]  # of each, where and what, e.g. "line 2: '-1'"
    measure: Measure
    notes: tuple[str, ...]  # what a user should know; the first says what is searched for
    seconds: np.ndarray | None = None  # [M] float64 that the training of each took; None: unknown


def read(path: Path, asked: Asked) -> Plain:
    """The table in the file `path`.

    Raises UserError for what is wrong in the file, with its line, or left open by it.
    """
    content = delimited.read(path)
    space, archs = decide(path, content, asked.decisions)
    columns = decision_columns(content, asked.decisions)
    taken = dict.fromkeys(columns, "one of the decisions")
    taken |= {asked.metric: "what is searched for"} if asked.metric else {}
    time = table_times.column(path, content, asked.time, taken)
    metric = table_metric.choose(path, content, space, asked.metric, time)
    direction = table_metric.direction(path, metric, asked.direction)
    costs, unpriced = table_costs.read(path, content)
    column = table_metric.read(path, content, metric, costs)
    measure, unit = table_metric.measure_of(path, content, column, direction)
    seconds, times = table_times.read(path, content, time, bool(asked.time))
    used = {*columns, metric, *costs, *([time] if times else [])}
    notes = [
        told(measure, len(archs), space.names, [c for c in content.columns if c not in used]),
        *content.notes,
        *column.notes,
        *table_metric.doubtful(content, column, measure, unit),
        *times,
    ]
    values = measure.sign * column.values / unit
    return Plain(space, archs, values, costs, unpriced, measure, tuple(notes), seconds)


def told(measure: Measure, rows: int, decisions: Sequence[str], unused: Sequence[str]) -> str:
    """The line that says what is searched for, and in what."""
    verb = "maximising" if measure.direction == "maximize" else "minimising"
    named = ", ".join(decisions)
    if len(decisions) > 8:
        named = f"{decisions[0]}, {decisions[1]}, .., {decisions[-1]} ({len(decisions)})"
    left = f"; not used: {', '.join(unused)}" if unused else ""
    amount = "1 row" if rows == 1 else f"{rows:,} rows"
    return f"{verb} {measure.name} of {amount}, decisions {named}{left}"


# ---- decisions


def decision_columns(content: Content, asked: Sequence[str]) -> list[str]:
    """The columns that are decisions: those `asked` for, else those named decision_.."""
    return list(asked) or [c for c in content.columns if c.startswith("decision_")]


def decide(path: Path, content: Content, asked: Sequence[str]) -> tuple[Space, np.ndarray]:
    """The space of the table's decisions, and its rows there, [M, T] int32.

    Columns decision_0, decision_1, .. hold integers from 0, if `asked` names none; in others, every
    value that occurs is a choice.
    """
    columns, have = decision_columns(content, asked), ", ".join(content.columns)
    wrong = next((name for name in columns if name not in content.columns), None)
    if wrong is not None:
        near = nearest(wrong, content.columns)
        raise UserError(
            f"{path} has no column {wrong!r} (task.decisions); it has"
            f" {have}{delimited.unlabelled(content.columns) or near}"
        )
    if len(set(columns)) < len(columns):
        raise UserError(f"task.decisions names a column twice: {', '.join(columns)}")
    if not columns:
        raise UserError(
            f"{path}, line 1: there is no column 'decision_0'; task.decisions=NAME,NAME,.. says"
            f" which columns are decisions{f', of {have}' if have else ''}"
            f"{delimited.unlabelled(content.columns)}"
        )
    name = f"categorical/{path.stem}"
    if asked or not all(c.removeprefix("decision_").isdecimal() for c in columns):
        space, archs = _choices(path, content, columns, name)
    else:
        if columns != [f"decision_{t}" for t in range(len(columns))]:
            raise UserError(
                f"{path}, line 1: the decisions must be decision_0, decision_1, .. in order, or be"
                " named by task.decisions"
            )
        archs = np.array([_integers(path, row, columns) for row in content.rows], np.int32)
        space = categorical.make(archs.max(axis=0) + 1, name)
    lines: dict[bytes, int] = {}
    for row, arch in zip(content.rows, archs, strict=True):
        once(lines, arch, path, row.line)
    return space, archs


def once(lines: dict[bytes, int], arch: np.ndarray, path: Path, line: int) -> None:
    """Raises UserError where one of `lines` before has the architecture; else adds it."""
    first = lines.setdefault(arch.tobytes(), line)
    if first != line:
        raise UserError(
            f"{path}, line {line}: the architecture of line {first} again; keep one row of each, or"
            " name the column that tells them apart as one more of task.decisions"
        )


def _integers(path: Path, row: Row, columns: Sequence[str]) -> list[int]:
    found = []
    for column in columns:
        text = row.fields[column]
        if not (text.isascii() and text.isdecimal()) or len(text) > DIGITS or int(text) >= 2**20:
            raise UserError(
                f"{path}, line {row.line}: {column} is {text!r}; it must be an integer from 0, or"
                f" any value where task.decisions names the columns ({','.join(columns)})"
            )
        found.append(int(text))
    return found


def _choices(
    path: Path, content: Content, columns: Sequence[str], name: str
) -> tuple[Space, np.ndarray]:
    """(space, [M, T] int32) of columns in which every value that occurs is a choice."""
    options: dict[str, list[Any]] = {}
    rows = content.rows
    places = np.zeros((len(rows), len(columns)), np.int32)
    for t, column in enumerate(columns):
        texts = [row.fields[column] for row in rows]
        empty = next((row.line for row in rows if not row.fields[column]), None)
        if empty is not None:
            raise UserError(f"{path}, line {empty}: {column}, a decision, is empty")
        values = _numbers(texts, delimited.commas(content, column)) or texts
        options[column] = sorted(set(values))
        place = {value: i for i, value in enumerate(options[column])}
        places[:, t] = [place[value] for value in values]
    try:
        return categorical.choices(options, name), places
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _numbers(texts: Sequence[str], decimal_comma: bool) -> list[float | int] | None:
    """`texts` as finite numbers, whole ones as such; None unless all of them are some."""
    found: list[float | int] = []
    for text in texts:
        if re.fullmatch(r"[-+]?\d+", text):
            if len(text) > DIGITS:
                return None
            found.append(int(text))
            continue
        try:
            value = delimited.number(text, decimal_comma)
        except ValueError:
            return None
        if not math.isfinite(value):
            return None
        found.append(int(value) if value.is_integer() else value)
    return found
