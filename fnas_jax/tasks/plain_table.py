"""Tables of the user's own: text files with a row for every architecture.

Some columns are decisions, `mflops`, `params_m` and `latency_ms` are costs, and one of the others
is what is searched for. What the file leaves open is asked for, and what is not used is said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fnas_jax.core.config import nearest
from fnas_jax.core.measure import ACCURACY, LOSS, Measure
from fnas_jax.core.types import COSTS, UserError
from fnas_jax.spaces import categorical
from fnas_jax.spaces.base import Space
from fnas_jax.tasks import delimited, table_costs
from fnas_jax.tasks.delimited import LARGEST, Content, Row


class Asked(NamedTuple):
    """What the configuration says of a table; "" and (): the file has to say it."""

    metric: str = ""
    direction: str = "maximize"
    decisions: tuple[str, ...] = ()  # columns, in order


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


def read(path: Path, asked: Asked) -> Plain:
    """The table in the file `path`.

    Raises UserError for what is wrong in the file, with its line, or left open by it.
    """
    content = delimited.read(path)
    space, archs = decide(path, content, asked.decisions)
    metric = choose_metric(path, content, space, asked.metric)
    values = read_values(path, content, metric)
    measure, unit = measure_of(path, content, metric, asked.direction, values)
    costs, unpriced = table_costs.read(path, content)
    used = {*decision_columns(content, asked.decisions), metric, *costs}
    names = [name for name in content.columns if name not in used]
    failed = int(np.isnan(values).sum())
    notes = [
        told(measure, len(values), space.names, names),
        *content.notes,
        *([f"{failed} of the rows have no {metric}, as trainings that failed"] if failed else []),
        *doubtful(measure),
    ]
    return Plain(space, archs, measure.sign * values / unit, costs, unpriced, measure, tuple(notes))


def told(measure: Measure, rows: int, decisions: Sequence[str], unused: Sequence[str]) -> str:
    """The line that says what is searched for, and in what."""
    verb = "maximising" if measure.direction == "maximize" else "minimising"
    named = ", ".join(decisions)
    if len(decisions) > 8:
        named = f"{decisions[0]}, {decisions[1]}, .., {decisions[-1]} ({len(decisions)})"
    left = f"; not used: {', '.join(unused)}" if unused else ""
    return f"{verb} {measure.name} of {rows:,} rows, decisions {named}{left}"


def doubtful(measure: Measure) -> list[str]:
    """What the name or the values of the metric give reason to ask."""
    name, found = measure.name, []
    if measure.direction == "maximize" and LOSS.search(name):
        found.append(
            f"warning: {name} is maximised, and its name says that less is better;"
            " task.direction=minimize minimises it"
        )
    if measure.direction == "minimize" and ACCURACY.search(name) and not LOSS.search(name):
        found.append(f"warning: {name} is minimised, and its name says that more is better")
    if measure.kind == "number":
        found.append(f"the scale of {name} is not known: it cannot be weighed with a cost")
    return found


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
        raise UserError(f"{path} has no column {wrong!r} (task.decisions); it has {have}{near}")
    if len(set(columns)) < len(columns):
        raise UserError(f"task.decisions names a column twice: {', '.join(columns)}")
    if not columns:
        raise UserError(
            f"{path}, line 1: there is no column 'decision_0'; task.decisions=NAME,NAME,.. says"
            f" which columns are decisions{f', of {have}' if have else ''}"
        )
    name = f"categorical/{path.stem}"
    if asked or not all(c.removeprefix("decision_").isdecimal() for c in columns):
        space, archs = _choices(path, content.rows, columns, name, content.decimal_comma)
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
        if not (text.isascii() and text.isdecimal()) or int(text) >= 2**20:
            raise UserError(
                f"{path}, line {row.line}: {column} is {text!r}; it must be an integer from 0, or"
                f" any value where task.decisions names the columns ({','.join(columns)})"
            )
        found.append(int(text))
    return found


def _choices(
    path: Path, rows: Sequence[Row], columns: Sequence[str], name: str, decimal_comma: bool
) -> tuple[Space, np.ndarray]:
    """(space, [M, T] int32) of columns in which every value that occurs is a choice."""
    options: dict[str, list[Any]] = {}
    places = np.zeros((len(rows), len(columns)), np.int32)
    for t, column in enumerate(columns):
        texts = [row.fields[column] for row in rows]
        empty = next((row.line for row in rows if not row.fields[column]), None)
        if empty is not None:
            raise UserError(f"{path}, line {empty}: {column}, a decision, is empty")
        values = _numbers(texts, decimal_comma) or texts
        options[column] = sorted(set(values))
        place = {value: i for i, value in enumerate(options[column])}
        places[:, t] = [place[value] for value in values]
    try:
        return categorical.choices(options, name), places
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def _numbers(texts: Sequence[str], decimal_comma: bool) -> list[float | int] | None:
    """`texts` as finite numbers, whole ones as such; None unless all of them are some."""
    found: list[float | int] = []
    for text in texts:
        if re.fullmatch(r"[-+]?\d+", text):
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


# ---- the metric


def choose_metric(path: Path, content: Content, space: Space, asked: str) -> str:
    """The column that is searched for: the one `asked` for, else the only one that it can be."""
    others = [c for c in content.columns if c not in space.names]
    metrics = [c for c in others if c not in COSTS]
    if asked:
        if asked in space.names:
            raise UserError(f"task.metric is {asked!r}, which is one of the decisions of {path}")
        if asked not in content.columns:
            listed = ", ".join(metrics) or "none"
            raise UserError(
                f"{path} has no metric {asked!r}; it has {listed}{nearest(asked, others)}"
            )
        return asked
    if not metrics:
        costs = ", ".join(c for c in others if c in COSTS)
        raise UserError(
            f"{path}, line 1: there is no column of accuracies beside the decisions"
            f"{f'; task.metric can name one of the costs {costs}' if costs else ''}"
        )
    numeric = [
        c for c in metrics if any(_is_number(row.fields[c], content) for row in content.rows)
    ]
    if len(metrics) > 1 and len(numeric) != 1:
        raise UserError(
            f"{path} does not say which column is searched for: task.metric=NAME names one of"
            f" {', '.join(numeric or metrics)}, and task.direction=minimize says that less is"
            " better; columns that are decisions are named by task.decisions=NAME,NAME"
        )
    return (numeric or metrics)[0]


def _is_number(text: str, content: Content) -> bool:
    try:
        delimited.number(text, content.decimal_comma)
    except ValueError:
        return False
    return True


def read_values(path: Path, content: Content, metric: str) -> np.ndarray:
    """[M] float64 of column `metric`, NaN written as such: that architecture's training failed."""
    values = []
    for row in content.rows:
        text = row.fields[metric]
        try:
            value = delimited.number(text, content.decimal_comma)
        except ValueError:
            raise UserError(
                f"{path}, line {row.line}: {metric} is {text!r}; it must be a number, or nan where"
                " the training failed"
            ) from None
        if math.isinf(value) or abs(value) > LARGEST:
            raise UserError(f"{path}, line {row.line}: {metric} is {text!r}; it must be finite")
        values.append(value)
    return np.array(values, np.float64)


def measure_of(
    path: Path, content: Content, metric: str, direction: str, values: np.ndarray
) -> tuple[Measure, float]:
    """What the metric is, by its direction and `values` [M], and what 1 of it is in the file.

    What is minimised and never below 0 is an error, in units of the table's median; what is
    maximised and lies in 0..1 or 0..100 is a share. Raises UserError for an accuracy elsewhere.
    """
    finite = values[np.isfinite(values)]
    if direction == "minimize":
        if (finite < 0).any():
            return Measure(metric, direction, "number"), 1.0
        positive = finite[finite > 0]
        middle = float(np.median(finite)) if len(finite) else 0.0
        # More than half of the errors may be 0, which is no unit.
        scale = middle or (float(positive.min()) if len(positive) else 1.0)
        return Measure(metric, direction, "error", scale), 1.0
    unit = 1.0 if finite.max(initial=0.0) <= 1 else 100.0
    outside = (finite < 0).any() or (finite > unit).any()
    if not outside:
        return Measure(metric, direction, "share"), unit
    if not ACCURACY.search(metric):
        return Measure(metric, direction, "number"), 1.0
    wrong = next(
        (row.line, value)
        for row, value in zip(content.rows, values, strict=True)
        if not (math.isnan(value) or 0 <= value <= unit)
    )
    raise UserError(
        f"{path}, line {wrong[0]}: {metric} is {wrong[1]}; accuracies must lie in 0..1 or 0..100"
    )
