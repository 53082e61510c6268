"""Reading tables of architectures that others have trained.

Three formats: the JSON of NAS-Bench-Macro, a CSV of NATS-Bench's topology space, and a plain CSV
with the columns decision_0, decision_1, .. (integers from 0), then metrics, of which `mflops`,
`params_m` and `latency_ms` are costs and every other one an accuracy.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fnas_jax.core.types import COSTS, UserError
from fnas_jax.spaces import base, categorical, cell, macro

FILES = {
    "macro": "nas_bench_macro_cifar10.json",
    "nats_cifar10": "nats_bench_tss.csv",
    "nats_cifar100": "nats_bench_tss.csv",
}


class Table(NamedTuple):
    """M architectures with their measured accuracies (in [0, 1]) and costs."""

    name: str
    space: base.Space
    archs: np.ndarray  # [M, T] int32
    judged: np.ndarray  # [M] float32: the accuracy that counts, the mean of `readings`
    readings: np.ndarray  # [M, R] float32: independent trainings
    latency_ms: np.ndarray  # [M] float32, NaN where unknown
    mflops: np.ndarray  # [M] float32, NaN where unknown
    params_m: np.ndarray  # [M] float32, NaN where unknown
    note: str  # what the accuracies are
    metric: str = ""  # name of the accuracies in the file


def load(name: str, data_dir: str | Path, metric: str = "") -> Table:
    """The table `name`: a key of `FILES`, looked up in `data_dir`, or the path of a plain CSV.

    `metric` is the column of a plain CSV to maximise; by default its first accuracy. Raises
    UserError for an unknown name, a missing file, a malformed row (with its line) or column.
    """
    if name in FILES:
        if not str(data_dir):
            raise UserError(f"task.data_dir is empty; give the folder that holds {FILES[name]}")
        path = Path(data_dir).expanduser() / FILES[name]
        if name == "macro":
            return _macro(path)
        return _nats(path, name, name.removeprefix("nats_") + "_test_accuracy")
    if not name.endswith(".csv"):
        raise UserError(f"unknown table {name!r}; allowed are {', '.join(FILES)} or a .csv file")
    path = Path(name).expanduser()
    if not path.is_absolute() and not path.exists() and str(data_dir):
        path = Path(data_dir).expanduser() / path
    return _plain(path, metric)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"there is no table {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None


def _macro(path: Path) -> Table:
    text = _read(path)
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
    if not isinstance(data, dict) or not data:
        raise UserError(f"{path}, line 1: expected an object with one entry per architecture")
    space = macro.make()
    archs, means, flops, params = [], [], [], []
    readings: list[list[float]] = []
    for key, row in data.items():
        try:
            archs.append(space.parse(key))
            accuracies = [_percent(value) for value in row["test_acc"]]
            if not accuracies or (readings and len(accuracies) != len(readings[0])):
                raise ValueError(f"test_acc has {len(accuracies)} readings")
            readings.append(accuracies)
            means.append(_percent(row["mean_acc"]))
            flops.append(float(row["flops"]) / 1e6)
            params.append(float(row["params"]) / 1e6)
        except (KeyError, TypeError, ValueError) as error:
            line = text.count("\n", 0, text.find(json.dumps(key))) + 1
            what = f"{error} is missing" if isinstance(error, KeyError) else error
            raise UserError(f"{path}, line {line}: bad entry {key!r}: {what}") from None
    costs = {"mflops": flops, "params_m": params}
    note = "CIFAR-10 test accuracy; NAS-Bench-Macro has no validation accuracies"
    return _table("macro", space, archs, means, readings, costs, note, "test_acc")


def _nats(path: Path, name: str, column: str) -> Table:
    space = cell.make()
    archs: list[np.ndarray] = []
    accuracies: list[float] = []
    lines: dict[bytes, int] = {}
    for line, row in _rows(path, ("architecture", column)):
        try:
            arch = space.parse(row["architecture"])
            accuracies.append(_percent(row[column]))
        except ValueError as error:
            raise UserError(f"{path}, line {line}: {error}") from None
        _once(lines, arch, path, line)
        archs.append(arch)
    dataset = "CIFAR-100" if "100" in name else "CIFAR-10"
    note = f"{dataset} test accuracy; this extract of NATS-Bench has no validation accuracies"
    return _table(name, space, archs, accuracies, [[a] for a in accuracies], {}, note, column)


def _plain(path: Path, metric: str) -> Table:
    rows = list(_rows(path, ("decision_0",)))
    columns = list(rows[0][1])
    decisions = [c for c in columns if c.startswith("decision_")]
    if decisions != [f"decision_{t}" for t in range(len(decisions))]:
        raise UserError(
            f"{path}, line 1: the decisions must be decision_0, decision_1, .. in order"
        )
    metrics = [c for c in columns if c not in decisions and c not in COSTS]
    if not metrics:
        raise UserError(f"{path}, line 1: there is no column of accuracies after the decisions")
    if metric and metric not in metrics:
        raise UserError(f"{path} has no metric {metric!r}; it has {', '.join(metrics)}")
    metric = metric or metrics[0]
    archs: list[np.ndarray] = []
    values: list[float] = []
    costs: dict[str, list[float]] = {c: [] for c in COSTS if c in columns}
    lines: dict[bytes, int] = {}
    for line, row in rows:
        try:
            arch = np.array([_decision(c, row[c]) for c in decisions], np.int32)
            values.append(_number(metric, row[metric]))
            for c, column in costs.items():
                column.append(_number(c, row[c]))
        except ValueError as error:
            raise UserError(f"{path}, line {line}: {error}") from None
        _once(lines, arch, path, line)
        archs.append(arch)
    scale = 1.0 if np.nanmax([*values, 0.0]) <= 1 else 100.0
    for (line, _), value in zip(rows, values, strict=True):
        if not (math.isnan(value) or 0 <= value <= scale):
            raise UserError(
                f"{path}, line {line}: {metric} is {value}; accuracies must lie in 0..1 or 0..100"
            )
    accuracies = [v / scale for v in values]
    space = categorical.make(np.max(archs, axis=0) + 1, name=f"categorical/{path.stem}")
    readings = [[a] for a in accuracies]
    return _table(path.stem, space, archs, accuracies, readings, costs, metric, metric)


def _rows(path: Path, required: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, {column: text}) of each row of a CSV file."""
    reader = csv.reader(_read(path).splitlines())
    header = [name.strip() for name in next(reader, [])]
    for column in required:
        if column not in header:
            raise UserError(f"{path}, line 1: there is no column {column!r}")
    if len(set(header)) != len(header):
        raise UserError(f"{path}, line 1: two columns have the same name")
    empty = True
    for row in reader:
        if not row:
            continue
        if len(row) != len(header):
            raise UserError(
                f"{path}, line {reader.line_num}: {len(row)} fields; the header has {len(header)}"
            )
        empty = False
        yield reader.line_num, dict(zip(header, map(str.strip, row), strict=True))
    if empty:
        raise UserError(f"{path}, line {reader.line_num + 1}: the table has no rows")


def _once(lines: dict[bytes, int], arch: np.ndarray, path: Path, line: int) -> None:
    first = lines.setdefault(arch.tobytes(), line)
    if first != line:
        raise UserError(f"{path}, line {line}: the architecture of line {first} again")


def _decision(column: str, text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**20:
        raise ValueError(f"{column} is {text!r}; it must be an integer from 0")
    return int(text)


def _number(column: str, text: str) -> float:
    """A finite number, or NaN written as such: that architecture's training failed."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{column} is {text!r}; it must be a number") from None
    if math.isinf(value):
        raise ValueError(f"{column} is {text!r}; it must be finite")
    return value


def _percent(value: Any) -> float:
    """Percent -> [0, 1]. Raises ValueError outside 0..100."""
    accuracy = float(value)
    if not 0 <= accuracy <= 100:
        raise ValueError(f"accuracy {value} does not lie in 0..100")
    return accuracy / 100


def _table(
    name: str,
    space: base.Space,
    archs: list[np.ndarray],
    judged: list[float],
    readings: list[list[float]],
    costs: dict[str, list[float]],
    note: str,
    metric: str,
) -> Table:
    unknown = np.full(len(archs), np.nan, np.float32)
    columns = {c: np.array(costs[c], np.float32) if c in costs else unknown for c in COSTS}
    return Table(
        name,
        space,
        np.array(archs, np.int32),
        np.array(judged, np.float32),
        np.array(readings, np.float32),
        note=note,
        metric=metric,
        **columns,
    )
