"""Results of earlier work, from a table in a text file, as rows of a knowledge store.

Searches learn from them as from those of other searches: their task is another one, and so is their
protocol, which says that they were imported.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fnas_jax.core import identity
from fnas_jax.core import measure as measures
from fnas_jax.core.measure import Measure
from fnas_jax.core.nearest import nearest
from fnas_jax.core.types import COSTS, UserError
from fnas_jax.knowledge import history, listing, store
from fnas_jax.spaces.base import Space
from fnas_jax.tasks import delimited, plain_table, table_costs, table_metric, table_times
from fnas_jax.tasks.delimited import Content, Row

TEXT = ("text", "architecture")  # columns of whole architectures, as `Space.describe` says them
NO = ("false", "0", "no")  # in columns `trained` and `ok`, as `fnas-jax trials` writes them


class Earlier(NamedTuple):
    """M results of one task."""

    space: Space
    archs: np.ndarray  # [M, T] int32
    values: np.ndarray  # [M] float64 as `Metrics.accuracy` has them; NaN: that training failed
    costs: dict[str, np.ndarray]  # [M] float64, NaN where unknown
    measure: Measure
    notes: tuple[str, ...]
    seconds: np.ndarray | None = None  # [M] float64 that each training took; None: unknown


def read(path: pathlib.Path, asked: plain_table.Asked, space: Space | None, name: str) -> Earlier:
    """The results in the file `path`, whose decisions are those of `space`.

    None: the file's own, as of a table that is searched on, under this `name` where one is given.
    Raises UserError for what is wrong in the file, with its line.
    """
    if space is None:
        plain = plain_table.read(path, asked)
        own = plain.space._replace(name=name) if name else plain.space
        known = (plain.archs, plain.values, plain.costs, plain.measure, plain.notes)
        return Earlier(own, *known, plain.seconds)
    content = delimited.read(path)
    notes = [*content.notes]
    measured = [row for row in content.rows if row.fields.get("trained", "").lower() not in NO]
    if predicted := len(content.rows) - len(measured):
        notes.append(f"{predicted:,} rows are left out, which were predicted and not measured")
        content = content._replace(rows=measured)
    if not content.rows:
        raise UserError(f"{path} has no measured row")
    archs, used = decide(path, content, space)
    others = content._replace(columns=tuple(c for c in content.columns if c not in used))
    taken = dict.fromkeys(used, "one of the decisions")
    taken |= {asked.metric: "what is searched for"} if asked.metric else {}
    time = table_times.column(path, content, asked.time, taken)
    metric = table_metric.choose(path, others, space, asked.metric, time)
    direction = table_metric.direction(path, metric, asked.direction)
    costs, _ = table_costs.read(path, content)
    column = table_metric.read(path, content, metric, costs)
    measure, unit = table_metric.measure_of(path, content, column, direction)
    seconds, times = table_times.read(path, content, time, bool(asked.time))
    failed = [row.fields.get("ok", "").lower() in NO for row in content.rows]
    values = np.where(failed, np.nan, measure.sign * column.values / unit)
    notes += [*column.notes, *table_metric.doubtful(content, column, measure, unit), *times]
    return Earlier(space, archs, values, costs, measure, tuple(notes), seconds)


def decide(path: pathlib.Path, content: Content, space: Space) -> tuple[np.ndarray, set[str]]:
    """([M, T] int32 of `space`, the columns that say them). Raises UserError with the line."""
    whole = next((name for name in TEXT if name in content.columns), None)
    lacking = [name for name in space.names if name not in content.columns]
    if lacking and whole is None:
        raise UserError(
            f"{path} has no column {lacking[0]!r}, a decision of the space {space.name}, nor a"
            f" column {' or '.join(TEXT)} of whole architectures; it has"
            f" {', '.join(content.columns)}{nearest(lacking[0], content.columns)}"
        )
    found, lines = [], {}  # type: ignore[var-annotated]
    for row in content.rows:
        arch = _parsed(path, row, space, whole) if lacking and whole else _chosen(path, row, space)
        plain_table.once(lines, arch, path, row.line)
        found.append(arch)
    return np.array(found, np.int32), {whole, *TEXT} if lacking and whole else set(space.names)


def _parsed(path: pathlib.Path, row: Row, space: Space, column: str) -> np.ndarray:
    try:
        return np.asarray(space.parse(row.fields[column]), np.int32)
    except UserError as error:
        raise UserError(f"{path}, line {row.line}: {column}: {error}") from None


def _chosen(path: pathlib.Path, row: Row, space: Space) -> np.ndarray:
    """[T] int32 of a row that has a column for each decision: a choice in words, or its number."""
    arch = []
    for name, labels in zip(space.names, space.labels, strict=True):
        text = row.fields[name]
        if text in labels:
            arch.append(labels.index(text))
        elif text.isascii() and text.isdecimal() and len(text) < 9 and int(text) < len(labels):
            arch.append(int(text))
        else:
            raise UserError(
                f"{path}, line {row.line}: {name} is {text!r}; allowed are"
                f" {', '.join(labels)}, or their numbers from 0{nearest(text, labels)}"
            )
    return np.array(arch, np.int32)


def protocol(earlier: Earlier, source: str) -> str:
    """As `Evaluator.protocol`, of numbers of which is known only where they come from."""
    numbers = [earlier.archs, earlier.values, *earlier.costs.values()]
    return identity.text(
        {
            "kind": listing.IMPORTED,
            "source": source,
            "measure": earlier.measure._asdict(),
            "data": identity.of_arrays(numbers),
        }
    )


def write(earlier: Earlier, task: str, source: str, folder: pathlib.Path) -> tuple[int, int]:
    """(rows that are new in the store in `folder`, rows that were there), of the task `task`.

    All or none; the store is made where there is none. The same file once more changes nothing.
    """
    text = protocol(earlier, source)
    run = history.Run(
        id=identity.digest(identity.text([task, earlier.space.identity, text])),
        space=earlier.space.name,
        task=task,
        steps=0,
        seed=0,
        versions={listing.IMPORTED: source},
        space_identity=earlier.space.identity,
        protocol=text,
        method=listing.IMPORTED,
    )
    with store.opened(folder) as known:
        there = history.count(known, run.id)
        if not there:
            history.record(known, run, 0, rows(earlier))
    return (0, there) if there else (len(earlier.values), 0)


def rows(earlier: Earlier) -> Sequence[history.Row]:
    """A row of the history for each result; failed ones as those of a search are."""
    ok = np.isfinite(earlier.values)
    accuracy = np.where(ok, earlier.values, 0.0)
    score = np.asarray(measures.score(earlier.measure, jnp.asarray(accuracy)), np.float64)
    reward = np.where(ok, score, 0.0)
    seconds = np.full(len(ok), np.nan) if earlier.seconds is None else earlier.seconds
    costs = {name: earlier.costs.get(name, np.full(len(ok), np.nan)) for name in COSTS}
    numbers = {"accuracy": accuracy, "reward": reward, "seconds": seconds, **costs}
    rows = []
    for i, arch in enumerate(earlier.archs):
        figures: dict[str, Any] = {name: float(values[i]) for name, values in numbers.items()}
        rows.append(history.Row(i, arch.tolist(), trained=True, ok=bool(ok[i]), **figures))
    return rows
