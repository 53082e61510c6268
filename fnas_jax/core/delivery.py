"""Rows of a table as text, CSV, JSON and Parquet: to a stream, or to a file in one step."""

from __future__ import annotations

import contextlib
import csv
import importlib
import importlib.util
import itertools
import json
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TextIO

from fnas_jax.core import disk
from fnas_jax.core.types import UserError

CHUNK = 50_000  # rows of a group in a Parquet file
PARQUET = "parquet"


@contextlib.contextmanager
def place(out: pathlib.Path | None, mode: str = "w") -> Iterator[Any]:
    """Where rows are written to: `out`, which appears when it is whole, or standard output.

    Devices and pipes are written to as they are, links stay, and what they lead to is replaced.
    """
    if out is None:
        yield sys.stdout
        return
    try:
        with disk.at(out), written(out, mode) as file:
            yield file
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(f"{str(out)!r} cannot be written: {error.strerror}") from None


def written(out: pathlib.Path, mode: str = "w") -> contextlib.AbstractContextManager[Any]:
    """The open file `out` where it is none that could be replaced, or the draft of a new one."""
    if out.exists() and not out.is_file():
        return out.open(mode, encoding=None if "b" in mode else "utf-8")
    return disk.replacing(pathlib.Path(os.path.realpath(out)), mode)


def write_csv(file: TextIO, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """With a line of names; lists as JSON, "" where nothing is known."""
    names = list(columns)
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        values = (row[name] for name in names)
        writer.writerow([json.dumps(v) if isinstance(v, list) else v for v in values])


def write_json(file: TextIO, rows: Iterable[Mapping[str, Any]]) -> None:
    """A list of objects, one a line."""
    start = "["
    for row in rows:
        file.write(f"{start}{json.dumps(dict(row), allow_nan=False)}")
        start = ",\n "
    file.write("[]\n" if start == "[" else "]\n")


def write_parquet(
    file: Any, columns: Mapping[str, type], rows: Iterable[Mapping[str, Any]]
) -> None:
    """Columns of these types: text, whole and other numbers, truth; lists of whole numbers."""
    arrow, parquet = (importlib.import_module(name) for name in ("pyarrow", "pyarrow.parquet"))
    types = {
        str: arrow.string(),
        int: arrow.int64(),
        float: arrow.float64(),
        bool: arrow.bool_(),
        list: arrow.list_(arrow.int32()),
    }
    schema = arrow.schema([(name, types[kind]) for name, kind in columns.items()])
    waiting = iter(rows)
    with parquet.ParquetWriter(file, schema) as writer:
        while chunk := list(itertools.islice(waiting, CHUNK)):
            arrays = {name: [row[name] for row in chunk] for name in columns}
            writer.write_table(arrow.table(arrays, schema=schema))


def check_parquet(out: pathlib.Path | None) -> None:
    """Raises UserError where Parquet cannot be written."""
    if out is None:
        raise UserError("Parquet is no text for a terminal: --out=FILE.parquet says where it goes")
    if importlib.util.find_spec("pyarrow") is None:
        raise UserError("for Parquet pyarrow is needed: pip install 'fnas-jax[parquet]'")
