"""Which column of a table is searched for, what its texts say, and which way is better.

Nothing is guessed that could be meant otherwise: it is asked for, with what can be given.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fnas_jax.core.measure import ACCURACY, LOSS, Measure
from fnas_jax.core.nearest import nearest
from fnas_jax.core.types import COSTS, UserError
from fnas_jax.spaces.base import Space
from fnas_jax.tasks import delimited
from fnas_jax.tasks.delimited import LARGEST, Content, Row
from fnas_jax.tasks.table_costs import ABSENT, examples


def _words(*words: str) -> str:
    """A pattern of any of `words`, between what is no letter."""
    return rf"(^|[^a-z])({'|'.join(words)})([^a-z]|$)"


# Names of what is a share, as accuracies are, which cannot lie elsewhere than in 0..1 or 0..100; of
# costs; and of what says how a training was done, not how well.
SHARE = re.compile(
    f"{ACCURACY.pattern}|au(roc|prc|pr|c)([^a-z]|$)|"
    + _words("f1", "m?ap", "precision", "recall", "m?iou", "jaccard", "dice"),
    re.IGNORECASE,
)
COST = re.compile(
    _words("latency", "times?", "seconds", "[mgt]?flops", "[mg]?macs", "params?", "parameters"),
    re.IGNORECASE,
)
ASIDE = re.compile(
    _words("seed", "epochs?", "steps?", "iters?", "iterations?", "ids?", "index"), re.IGNORECASE
)


class Column(NamedTuple):
    """The metric, as the file has it."""

    name: str
    values: np.ndarray  # [M] float64; NaN: that training failed
    percent: bool  # written with "%"
    notes: tuple[str, ...]  # how it was read


def choose(path: Path, content: Content, space: Space, asked: str, time: str = "") -> str:
    """The column that is searched for: the one `asked` for, else the only one that it can be.

    `time`: the column of training times, which is none unless it is asked for.

    Raises UserError where there are several, where the only one is named like something else, and
    where one that is named like a metric holds no numbers.
    """
    others = [c for c in content.columns if c not in space.names]
    metrics = [c for c in others if c not in (*COSTS, time)]
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
        costs = ", ".join(c for c in others if c in (*COSTS, time))
        raise UserError(
            f"{path}, line 1: there is no column of accuracies beside the decisions"
            f"{f'; task.metric can name one of the costs {costs}' if costs else ''}"
        )
    numeric = [c for c in metrics if _holds_numbers(content, c)]
    if len(metrics) > 1:
        _refuse_texts(path, content, [c for c in metrics if c not in numeric])
        if len(numeric) != 1:
            raise UserError(
                f"{path} does not say which column is searched for: task.metric=NAME names one of"
                f" {', '.join(numeric or metrics)}, and task.direction=minimize says that less is"
                " better; columns that are decisions are named by task.decisions=NAME,NAME"
            )
    (found,) = numeric or metrics
    if not (SHARE.search(found) or LOSS.search(found)) and (
        ASIDE.search(found) or COST.search(found)
    ):
        raise UserError(
            f"{path} does not say which column is searched for: beside the decisions there is only"
            f" {found}, by its name no metric; task.metric={found} says that it is"
        )
    return found


def _holds_numbers(content: Content, column: str) -> bool:
    comma = delimited.commas(content, column)
    return any(_number(text, comma) is not None for text in _texts(content, column))


def _refuse_texts(path: Path, content: Content, columns: Iterable[str]) -> None:
    """Raises UserError where one of `columns`, which hold no numbers, is named like a metric.

    Unless it is empty: that has not been measured.
    """
    for column in (c for c in columns if SHARE.search(c) or LOSS.search(c)):
        for row in content.rows:
            text = row.fields[column]
            if text.lower() not in ABSENT:
                raise UserError(
                    f"{path}, line {row.line}: {column} is {text!r}, which is no number, and"
                    " its name is that of a metric; task.metric=NAME names what is searched for"
                )


def _texts(content: Content, column: str) -> list[str]:
    """What the rows hold there, without what is absent."""
    found = (row.fields[column] for row in content.rows)
    return [text for text in found if text.lower() not in ABSENT]


def _number(text: str, comma: bool) -> float | None:
    """The number of a metric, of percents without their sign; None where it is none."""
    text = text.removesuffix("%").rstrip()
    return delimited.number(text, comma) if delimited.is_number(text, comma) else None


def direction(path: Path, metric: str, asked: str) -> str:
    """Which way is better, one of DIRECTIONS. Raises UserError where the name makes that doubtful.

    `asked`: "" where it is left to the name.
    """
    if not asked and (LOSS.search(metric) or (COST.search(metric) and not SHARE.search(metric))):
        raise UserError(
            f"{path}: by its name, less of {metric} is better; task.direction=minimize searches"
            " for the least of it, and task.direction=maximize for the most"
        )
    return asked or Measure().direction


def read(path: Path, content: Content, metric: str, costs: Mapping[str, np.ndarray]) -> Column:
    """The column `metric`, which may be one of the `costs`, [M] float64 each.

    Raises UserError, with the line, for what is neither a finite number nor one of ABSENT, and
    where only some numbers have the sign of percents.
    """
    comma = delimited.commas(content, metric)
    percent = any(text.endswith("%") for text in _texts(content, metric))
    if metric in costs:
        values, percent = costs[metric], False
    else:
        values = np.array([_value(path, row, metric, comma, percent) for row in content.rows])
    notes = []
    if comma and not content.decimal_comma:
        notes.append(f"{metric} is read with decimal commas")
    failed = [
        f"line {row.line}: {row.fields[metric]!r}"
        for row, value in zip(content.rows, values, strict=True)
        if math.isnan(value)
    ]
    if failed:
        notes.append(
            f"no {metric} in {len(failed):,} of {len(values):,} rows ({examples(failed)}):"
            " trainings that failed"
        )
    return Column(metric, values, percent, tuple(notes))


def _value(path: Path, row: Row, metric: str, comma: bool, percent: bool) -> float:
    """The number in a row, or NaN for a training that failed."""
    text = row.fields[metric]
    if text.lower() in ABSENT:
        return math.nan
    value = _number(text, comma)
    if value is None:
        raise UserError(
            f"{path}, line {row.line}: {metric} is {text!r}; it must be a number, or nan where"
            " the training failed"
        )
    if percent and not text.endswith("%"):
        raise UserError(
            f"{path}, line {row.line}: {metric} is {text!r}, and other rows have it with %"
        )
    if math.isinf(value) or abs(value) > LARGEST:
        raise UserError(f"{path}, line {row.line}: {metric} is {text!r}; it must be finite")
    return value


def measure_of(
    path: Path, content: Content, column: Column, direction: str
) -> tuple[Measure, float]:
    """What the metric is, by its direction, name and values, and what 1 of it is in the file.

    What is minimised and never below 0 is an error, in units of the table's median. What is
    maximised is a share where it lies in 0..1, or in 0..100 if its name or its sign says so. Raises
    UserError for what its name says to be a share, elsewhere.
    """
    metric, finite = column.name, column.values[np.isfinite(column.values)]
    if direction == "minimize":
        if (finite < 0).any():
            return Measure(metric, direction, "number"), 1.0
        positive = finite[finite > 0]
        middle = float(np.median(finite)) if len(finite) else 0.0
        # More than half of the errors may be 0, which is no unit.
        scale = middle or (float(positive.min()) if len(positive) else 1.0)
        return Measure(metric, direction, "error", scale), 1.0
    named = SHARE.search(metric) is not None and LOSS.search(metric) is None
    unit = 1.0 if finite.max(initial=0.0) <= 1 and not column.percent else 100.0
    outside = (finite < 0).any() or (finite > unit).any()
    if not outside and (unit == 1 or named or column.percent):
        return Measure(metric, direction, "share"), unit
    if not named:
        return Measure(metric, direction, "number"), 1.0
    wrong = next(
        (row.line, value)
        for row, value in zip(content.rows, column.values, strict=True)
        if not (math.isnan(value) or 0 <= value <= unit)
    )
    raise UserError(
        f"{path}, line {wrong[0]}: {metric} is {wrong[1]}; by its name, it must lie in 0..1 or"
        " 0..100"
    )


def doubtful(content: Content, column: Column, measure: Measure, unit: float) -> Sequence[str]:
    """What the name or the values of the metric give reason to ask."""
    name, found = measure.name, []
    if measure.direction == "maximize" and LOSS.search(name):
        found.append(
            f"warning: {name} is maximised, and its name says that less is better;"
            " task.direction=minimize minimises it"
        )
    if measure.direction == "minimize" and SHARE.search(name) and not LOSS.search(name):
        found.append(f"warning: {name} is minimised, and its name says that more is better")
    if measure.kind == "share" and unit > 1 and not column.percent:
        small = [
            f"line {row.line}: {row.fields[name]!r}"
            for row, value in zip(content.rows, column.values, strict=True)
            if 0 < value <= 1
        ]
        if small:
            found.append(
                f"warning: {name} is read as percents, and not above 1 in {len(small):,} of"
                f" {len(column.values):,} rows ({examples(small)}), as if these were shares"
            )
    if measure.kind == "number":
        found.append(f"the scale of {name} is not known: it cannot be weighed with a cost")
    return found
