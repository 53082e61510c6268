"""Tables of architectures that others have trained.

Three formats: the JSON of NAS-Bench-Macro, a CSV of NATS-Bench's topology space, and text files of
the user's own (`plain_table.py`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from fnas_jax.core.measure import DIRECTIONS, Measure
from fnas_jax.core.types import COSTS, UserError
from fnas_jax.spaces import base, cell, macro
from fnas_jax.tasks import delimited, plain_table, table_times
from fnas_jax.tasks.delimited import LARGEST, SMALLEST
from fnas_jax.tasks.plain_table import ANYTHING, Asked

FILES = {
    "macro": "nas_bench_macro_cifar10.json",
    "nats_cifar10": "nats_bench_tss.csv",
    "nats_cifar100": "nats_bench_tss.csv",
}


class Table(NamedTuple):
    """M architectures with what was measured of them, and costs.

    Figures are as `Metrics.accuracy` has them: of a metric that is minimised, the negatives.
    """

    name: str
    space: base.Space
    archs: np.ndarray  # [M, T] int32
    judged: np.ndarray  # [M] float32: the figure that counts, the mean of `readings`
    readings: np.ndarray  # [M, R] float32: independent trainings
    latency_ms: np.ndarray  # [M] float32, NaN where unknown
    mflops: np.ndarray  # [M] float32, NaN where unknown
    params_m: np.ndarray  # [M] float32, NaN where unknown
    note: str  # what the figures are
    metric: str = ""  # name of the figures in the file
    measure: Measure = Measure()
    notes: tuple[str, ...] = ()  # what a user should know; the first says what is searched for
    # Of each column of costs, where the file has none, and what it has there
    unpriced: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    seconds: np.ndarray | None = None  # [M] float32 that the training of each took; None: unknown


def load(name: str, data_dir: str | Path, asked: Asked = ANYTHING) -> Table:
    """The table `name`: a key of `FILES`, looked up in `data_dir`, or the path of a file of yours.

    `asked` says what is searched for in such a file, as far as it does not say so itself. Raises
    UserError for an unknown name, a missing file, a malformed row (with its line) or column.
    """
    if asked.direction not in ("", *DIRECTIONS):
        raise UserError(
            f"task.direction is {asked.direction!r}; allowed are {', '.join(DIRECTIONS)}"
        )
    if name in FILES:
        _refuse(name, asked)
        if not str(data_dir):
            raise UserError(f"task.data_dir is empty; give the folder that holds {FILES[name]}")
        path = Path(data_dir).expanduser() / FILES[name]
        if name == "macro":
            return _macro(path)
        return _nats(path, name, asked.time)
    if not name.lower().endswith((".csv", ".tsv", ".txt")):
        raise UserError(f"unknown table {name!r}; allowed are {', '.join(FILES)} or a .csv file")
    return _plain(find(name, data_dir), asked)


def find(name: str, data_dir: str | Path) -> Path:
    """The file `name`, from here or from `data_dir`. Raises UserError with where it looked."""
    path = Path(name).expanduser()
    places = [path]
    if not path.is_absolute() and str(data_dir):
        places.append(Path(data_dir).expanduser() / path)
    found = next((place for place in places if place.exists()), None)
    if found is None:
        looked = " nor at ".join(str(place.absolute()) for place in places)
        raise UserError(f"there is no table {name}, at {looked}")
    return found


def _refuse(name: str, asked: Asked) -> None:
    """Raises UserError where what is `asked` is for tables of the user's own."""
    for key, value, usual in zip(Asked._fields, asked, ANYTHING, strict=True):
        if key == "time" and name != "macro":  # a text file, which may have more columns
            continue
        if value != usual and (key, value) != ("direction", Measure().direction):
            raise UserError(
                f"task.{key} is {value!r}, and the table {name} has what it has: that key is for"
                " .csv files of yours"
            )


def _macro(path: Path) -> Table:
    text, notes = delimited.text_of(path)
    data = _parse(path, text)
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
            flops.append(_millions("flops", row["flops"]))
            params.append(_millions("params", row["params"]))
        except (KeyError, TypeError, ValueError, UserError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else error
            raise UserError(f"{path}, line {_line(text, key)}: bad entry {key!r}: {what}") from None
    costs = {"mflops": flops, "params_m": params}
    note = "CIFAR-10 test accuracy; NAS-Bench-Macro has no validation accuracies"
    table = _table("macro", space, archs, means, readings, costs, note, "test_acc")
    return table._replace(notes=(*table.notes, *notes))


def _parse(path: Path, text: str) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError for anything else."""
    try:
        data = json.loads(text, object_pairs_hook=_once_each)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
    except RecursionError:
        raise UserError(
            f"{path}: not such a table, but lists within lists too deep to read"
        ) from None
    except _Twice as error:
        line = _line(text, error.key, last=True)
        raise UserError(
            f"{path}, line {line}: the entry {error.key!r} stands there twice"
        ) from None
    except ValueError:  # all that JSON itself allows, and Python does not read
        raise UserError(
            f"{path}: not such a table: it has a number of thousands of digits"
        ) from None
    if not isinstance(data, dict) or not data:
        raise UserError(f"{path}, line 1: expected an object with one entry per architecture")
    return data


class _Twice(ValueError):
    """A key of an object that stands there twice, of which JSON would keep the last."""

    def __init__(self, key: str):
        super().__init__(key)
        self.key = key


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Twice(key)
        found[key] = value
    return found


def _line(text: str, key: str, last: bool = False) -> int:
    """Where an entry of a JSON file stands."""
    find = text.rfind if last else text.find
    return text.count("\n", 0, max(find(json.dumps(key)), 0)) + 1


def _float(value: Any) -> float:
    """A number, infinite where float64 ends. Raises ValueError, TypeError for what is none."""
    try:
        return float(value)
    except OverflowError:  # of JSON's integers, which may have any number of digits
        return math.inf


def _millions(name: str, value: Any) -> float:
    """A cost in millions. Raises ValueError for what is none."""
    cost = _float(value) / 1e6
    if not SMALLEST <= cost <= LARGEST:
        raise ValueError(f"{name} is {value}; a cost is a finite number above 0")
    return cost


def _nats(path: Path, name: str, time: str) -> Table:
    space, dataset = cell.make(), name.removeprefix("nats_")
    column = f"{dataset}_test_accuracy"
    archs: list[np.ndarray] = []
    accuracies: list[float] = []
    lines: dict[bytes, int] = {}
    content = delimited.read(path)
    for needed in ("architecture", column):
        if needed not in content.columns:
            raise UserError(f"{path}, line 1: there is no column {needed!r}")
    for line, fields in content.rows:
        try:
            arch = space.parse(fields["architecture"])
            accuracies.append(_percent(delimited.number(fields[column], content.decimal_comma)))
        except (ValueError, UserError) as error:
            raise UserError(f"{path}, line {line}: {error}") from None
        plain_table.once(lines, arch, path, line)
        archs.append(arch)
    taken = {"architecture": "the architecture", column: "what is searched for"}
    usual = f"{dataset}_{table_times.USUAL}"
    found = table_times.column(path, content, time, taken, usual)
    seconds, notes = table_times.read(path, content, found, bool(time))
    title = "CIFAR-100" if "100" in name else "CIFAR-10"
    note = f"{title} test accuracy; this extract of NATS-Bench has no validation accuracies"
    readings = [[accuracy] for accuracy in accuracies]
    table = _table(name, space, archs, accuracies, readings, {}, note, column)
    return _timed(table, seconds)._replace(notes=(*table.notes, *notes))


def _timed(table: Table, seconds: np.ndarray | None) -> Table:
    """`table` with the training times of its rows, [M] float64, where they are known."""
    return table if seconds is None else table._replace(seconds=seconds.astype(np.float32))


def _plain(path: Path, asked: Asked) -> Table:
    found = plain_table.read(path, asked)
    metric = found.measure.name
    values = found.values.tolist()
    table = _table(
        path.stem,
        found.space,
        list(found.archs),
        values,
        [[value] for value in values],
        {name: costs.tolist() for name, costs in found.costs.items()},
        metric,
        metric,
    )
    table = _timed(table, found.seconds)
    return table._replace(measure=found.measure, notes=found.notes, unpriced=found.unpriced)


def _percent(value: Any) -> float:
    """Percent -> [0, 1]. Raises ValueError outside 0..100."""
    accuracy = _float(value)
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
    latency_ms, mflops, params_m = (
        np.array(costs[c], np.float32) if c in costs else unknown for c in COSTS
    )
    return Table(
        name,
        space,
        np.array(archs, np.int32),
        np.array(judged, np.float32),
        np.array(readings, np.float32),
        latency_ms,
        mflops,
        params_m,
        note,
        metric,
        notes=(plain_table.told(Measure(metric), len(archs), space.names, ()),),
    )
