"""Reader of a CSV file of paths and labels, beside the images that it names.

A header names the columns: one of the path (`path`, `file`, `image`, ..), one of the label
(`label`, `class`, ..), and, if there is one, `split` with train, val or test in it. Paths are
relative to the folder of the file, or to its one sub-folder that has them. For objectives whose
targets are no classes, all other columns are targets: numbers, whose names are the columns'.
"""

from __future__ import annotations

import csv
import functools
import io
import os
from pathlib import Path

import numpy as np

from fnas_jax.core.types import UserError
from fnas_jax.tasks.readers import table
from fnas_jax.tasks.readers.examples import PART_NAMES, Note, Source
from fnas_jax.tasks.readers.table import Row, Table

NAMES = ("labels.csv", "labels.tsv", "metadata.csv")  # of such a file in a folder of images
SUFFIXES = (".csv", ".tsv")


def read_listed(
    path: Path,
    image_size: int,
    alpha: str,
    objective: str = "classification",
    root: Path | None = None,
) -> Source:
    """Reads the images that `path` names, which lie under `root` (None: beside it).

    Raises:
      UserError: no such file, columns that are not clear, rows that lack something, paths of files
        that are not there, or images that cannot be read.
    """
    header, rows = _parsed(path)
    names = [name for name in header if name]
    image = header.index(table.column(names, table.IMAGES, "paths", str(path)))
    has_split = any(name.lower() in table.SPLITS for name in names)
    split = header.index(table.column(names, table.SPLITS, "split", str(path))) if has_split else -1
    if objective == "classification":
        wanted = [header.index(table.column(names, table.LABELS, "labels", str(path)))]
    else:
        wanted = [i for i, name in enumerate(header) if name and i not in (image, split)]
    files = [row[image].strip() for _, row in rows]
    for line, row in rows:
        lacking = [header[i] for i in (image, *wanted) if not row[i].strip()]
        if lacking:
            raise UserError(f"Line {line} of {path} has no {lacking[0]}.")
    folder = _folder(path, root or path.parent, files, [line for line, _ in rows])
    parts: dict[str, list[int]] = {}
    for i, (line, row) in enumerate(rows):
        part = "train" if split < 0 else _part(row[split], line, path)
        parts.setdefault(part, []).append(i)
    if "train" not in parts:
        raise UserError(f"The column '{header[split]}' of {path} has no row of train.")
    columns: tuple[str, ...] = ()
    if objective == "classification":
        labels = _labels([row[wanted[0]].strip() for _, row in rows])
    else:
        labels = _numbers(header, wanted, rows, path)
        columns = tuple(header[i] for i in wanted)
    tables = {
        part: Table(functools.partial(_rows, folder, [files[i] for i in own]), labels[own])
        for part, own in sorted(parts.items())
    }
    source = table.read(tables, image_size, alpha, str(path), columns, objective)
    said = Note(f"labels are those of {path}, for images in {folder}", loud=False)
    return source._replace(notes=(said, *source.notes))


def in_folder(folder: Path) -> Path | None:
    """The file of labels of a folder; None where there is none with the columns that it needs."""
    for file in (folder / name for name in NAMES if os.path.isfile(folder / name)):
        try:
            header, _ = _parsed(file)
            for spellings in (table.IMAGES, table.LABELS):
                table.column(header, spellings, "", "")
        except UserError:  # notes of another kind, beside class folders
            continue
        return file
    return None


def _parsed(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """(the header, (line, row) of each row); comma, semicolon or tab, whichever the header has."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"There is no file {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a CSV file in UTF-8: {error}") from None
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise UserError(f"{path} cannot be read as a CSV file: {error}") from None
    if len(rows) < 2:
        raise UserError(f"{path} has no rows below its header.")
    header = [name.strip() for name in rows[0][1]]
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise UserError(
                f"Line {line} of {path} has {len(row)} fields, and its header {len(header)}."
            )
    return header, rows[1:]


def _folder(path: Path, root: Path, files: list[str], lines: list[int]) -> Path:
    """Where the files lie: `root`, or its only sub-folder with the first of them."""
    if not os.path.isfile(root / files[0]) and os.path.isdir(root):
        inside = [p for p in sorted(root.iterdir()) if p.is_dir() and os.path.isfile(p / files[0])]
        root = inside[0] if len(inside) == 1 else root
    lost = [i for i, file in enumerate(files) if not os.path.isfile(root / file)]
    if lost:
        raise UserError(
            f"{len(lost)} of the {len(files)} images that {path} names are not there; the first is"
            f" {root / files[lost[0]]} of line {lines[lost[0]]}."
        )
    return root


def _rows(folder: Path, files: list[str]) -> list[Row]:
    return [Row(folder / file, folder / file) for file in files]


def _part(text: str, line: int, path: Path) -> str:
    for part, spellings in PART_NAMES.items():
        if text.strip().lower() in spellings:
            return part
    raise UserError(f"Line {line} of {path} has the split {text!r}: train, val or test is needed.")


def _numbers(
    header: list[str], wanted: list[int], rows: list[tuple[int, list[str]]], path: Path
) -> np.ndarray:
    """[n, R] float64 of the columns `wanted`. Raises UserError for any other content, or none."""
    if not wanted:
        raise UserError(f"{path} has no column of targets beside those of paths and splits.")
    found = np.empty((len(rows), len(wanted)))
    for i, (line, row) in enumerate(rows):
        for j, place in enumerate(wanted):
            try:
                found[i, j] = float(row[place])
            except ValueError:
                raise UserError(
                    f"Line {line} of {path} has {row[place]!r} as {header[place]}: a number is"
                    " needed; columns that are no targets have to go, or to have no name."
                ) from None
    return found


def _labels(texts: list[str]) -> np.ndarray:
    """[n] whole numbers where all are, else texts."""
    try:
        return np.asarray([int(text) for text in texts], np.int64)
    except (ValueError, OverflowError):
        return np.asarray(texts)
