"""Rows of tables in text files, as other programs write them.

Spreadsheets, pandas and people differ in encoding (UTF-8, with or without a byte order mark,
UTF-16, Windows-1252), in what stands between columns (comma, semicolon, tab, bar), in decimals
(where that is no comma, a number may be 0,5), in line ends and in quotes. All of these are read;
what was guessed is said.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fnas_jax.core.types import UserError

LARGEST = float(np.finfo(np.float32).max)  # numbers beyond it are infinite where they are used
SMALLEST = float(np.finfo(np.float32).tiny)  # and those nearer to 0 are 0
DELIMITERS = (",", ";", "\t", "|")
_COMMA = r"[-+]?\d*,\d+([eE][-+]?\d+)?"  # a number with a decimal comma
BOMS = (  # the longer ones first: that of UTF-16 is the beginning of that of UTF-32
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Row(NamedTuple):
    """A row of a file."""

    line: int  # in the file, from 1
    fields: dict[str, str]  # by column, without blanks around them


class Content(NamedTuple):
    """What a file holds."""

    columns: tuple[str, ...]
    rows: list[Row]
    decimal_comma: bool  # numbers may be written with one
    notes: tuple[str, ...]  # what a user should know of how it was read


def read(path: Path) -> Content:
    """The rows of the file `path`, whose first line names the columns.

    Columns without a name that hold nothing, or the row numbers that pandas writes, are left out;
    so are rows of empty fields. Raises UserError for a file that is no such table, with the line.
    """
    text, notes = text_of(path)
    first, text = _without_separator_line(text)
    delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        found = [(reader.line_num + first, [field.strip() for field in row]) for row in reader]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num + first}: {error}") from None
    rows = [(line, row) for line, row in found if any(row)]
    for line, row in rows:
        if len(row) != len(header):
            raise UserError(f"{path}, line {line}: {len(row)} fields; the header has {len(header)}")
    kept, left_out = _named(header, [row for _, row in rows])
    columns = tuple(header[i] for i in kept)
    if len(set(columns)) != len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise UserError(
            f"{path}, line {1 + first}: two columns have the same name,"
            f" {twice!r}{unlabelled(columns)}"
        )
    if not rows and columns:
        line = max((line for line, _ in found), default=1 + first) + 1
        raise UserError(f"{path}, line {line}: the table has no rows")
    return Content(
        columns,
        [Row(line, {header[i]: row[i] for i in kept}) for line, row in rows],
        delimiter != ",",
        (*notes, *left_out),
    )


def text_of(path: Path) -> tuple[str, tuple[str, ...]]:
    """The text of a file, and what was guessed of its encoding. Raises UserError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"there is no table {path.absolute()}") from None
    except OSError as error:
        raise UserError(f"cannot read {path.absolute()}: {error.strerror or error}") from None
    encoding = next((name for bom, name in BOMS if data.startswith(bom)), "")
    if not encoding and b"\0" in data[:1000]:
        # Text without a mark: of two bytes of a letter of most languages, one is zero.
        encoding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
    try:
        text = data.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding:
            raise UserError(f"cannot read {path.absolute()}: {error}") from None
        return data.decode("cp1252", errors="replace"), (
            f"{path.name} is not in UTF-8, and was read as Windows-1252 (Latin-1)",
        )
    if "\0" in text:
        raise UserError(f"cannot read {path.absolute()}: it holds bytes of no text")
    return text, ()


def commas(content: Content, column: str) -> bool:
    """Whether numbers of `column` are written with decimal commas.

    Between commas they are quoted, and clear if one of them can be no thousands ("0,95", "0,950",
    "12,5") and none has a point.
    """
    if content.decimal_comma:
        return True
    texts = [row.fields[column] for row in content.rows]
    found = [text for text in texts if re.fullmatch(_COMMA, text)]
    clear = any(not re.fullmatch(r"[-+]?[1-9]\d{0,2},\d{3}", text) for text in found)
    return clear and not any(re.search(r"\d\.\d", text) for text in texts)


def unlabelled(columns: Sequence[str]) -> str:
    """The end of an error where the first line of a file holds numbers; else ""."""
    named = not any(is_number(name) for name in columns)
    return "" if named else "; its first line names no columns, as it has to"


def is_number(text: str, decimal_comma: bool = False) -> bool:
    """Whether `number` reads `text`."""
    try:
        number(text, decimal_comma)
    except ValueError:
        return False
    return True


def number(text: str, decimal_comma: bool = False) -> float:
    """The number that `text` is, NaN and infinities among them. Raises ValueError."""
    if decimal_comma and re.fullmatch(_COMMA, text):
        text = text.replace(",", ".")
    if "_" in text:  # which Python reads in numbers, and no one else
        raise ValueError(f"{text!r} is no number")
    return float(text)


def _without_separator_line(text: str) -> tuple[int, str]:
    """(lines before the header, the text from there); spreadsheets write "sep=;" and blank ones."""
    found = re.match(r"(?:[ \t]*(?:sep=.)?[ \t]*(?:\r\n|\r|\n))+", text)
    before = "" if found is None else found[0]
    return len(before.splitlines()), text[len(before) :]


def _delimiter(text: str) -> str:
    """What divides the header into most columns; a comma where nothing does."""
    header = io.StringIO(text, newline="").readline()
    return max(DELIMITERS, key=lambda d: len(next(csv.reader([header], delimiter=d), [])))


def _named(header: list[str], rows: list[list[str]]) -> tuple[list[int], list[str]]:
    """The places of the columns to keep, and what is said of those that are left out."""
    kept, notes = [], []
    for i, name in enumerate(header):
        values = [row[i] for row in rows]
        unnamed = not name or re.fullmatch(r"Unnamed: \d+", name) is not None
        if not name and not any(values):
            continue  # of a delimiter at the end of every line
        if unnamed and sorted(values) == sorted(map(str, range(len(rows)))):
            notes.append("the row numbers in the column without a name are not used")
        elif not name:
            notes.append(f"column {i + 1}, which has no name, is not used")
        else:
            kept.append(i)
    return kept, notes
