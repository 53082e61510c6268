"""Image sets that are a table: image files (or their bytes) in one column, labels in another."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fnas_jax.core.types import UserError
from fnas_jax.tasks.readers import decode, targets
from fnas_jax.tasks.readers.decode import Files, Header
from fnas_jax.tasks.readers.examples import (
    Example,
    Part,
    Source,
    Tally,
    collect,
    reason,
    since,
    source_of,
)
from fnas_jax.tasks.readers.folder import Found, left_out, told

IMAGES = ("image", "img", "images", "path", "file", "file_name", "filename", "filepath", "pixels")
LABELS = ("label", "labels", "class", "target", "category", "fine_label", "class_name")
SPLITS = ("split", "part", "subset")


class Row(NamedTuple):
    """An image that is not decoded yet."""

    where: Path  # a file, or the file and the place in it, for messages
    content: Path | bytes


class Table(NamedTuple):
    """The rows of a part, and their labels."""

    rows: Callable[[], Iterable[Row]]  # read anew at each call
    labels: (
        np.ndarray
    )  # [n] whole numbers or texts, or numbers [n, R], as `targets.read` takes them


def read(
    tables: Mapping[str, Table],
    image_size: int,
    alpha: str,
    source: str,
    class_names: Sequence[str] = (),
    objective: str = "classification",
) -> Source:
    """The image set of tables by "train", "val" and "test", whose images are files of any format.

    Args:
      tables: "train" is among them.
      image_size: as `collect` has it.
      alpha: as `decode.Files` has it.
      source: name of the set for messages.
      class_names: of class numbers, or of several labels or values, where the table knows them.
      objective: what labels are for.

    Raises:
      UserError: no readable image, images of different size with `image_size` 0, or labels that
        are no classes.
    """
    columns = [table.labels for table in tables.values()]
    numbers, names = targets.read(objective, columns, source)
    if class_names and tables["train"].labels.dtype.kind not in "US":
        if len(class_names) < len(names):
            raise UserError(
                f"The labels of {source} go up to {len(names) - 1}, but it names"
                f" {len(class_names)} classes only."
            )
        names = tuple(class_names)
    left = Tally()
    headers = {part: list(_headers(table.rows(), left)) for part, table in tables.items()}
    for part, table in tables.items():
        if len(headers[part]) != len(table.labels):  # columns of a damaged file
            raise UserError(
                f"{source} is damaged: its part {part} has {len(headers[part])} images and"
                f" {len(table.labels)} labels."
            )
    good = [Found(where, "", h) for rows in headers.values() for where, h in rows if h]
    if not good:
        raise UserError(f"{source} holds no images{since(left)}.")
    mode, files = decode.files_of((one.header for one in good), alpha)
    parts: dict[str, Part] = {}
    for (part, table), labels in zip(tables.items(), numbers, strict=True):
        known = [header is not None for _, header in headers[part]]
        rows = _decoded(table.rows(), labels, known, mode, files, left)
        parts[part] = collect(rows, image_size, f"{source} ({part})", left, sum(known))
    notes = (*left_out(left), *told(good, mode, files))
    return source_of(parts, names, notes, files.bits, objective)


def column(names: Sequence[str], spellings: Sequence[str], what: str, source: str) -> str:
    """The one column of `names` that has one of the `spellings`.

    Raises:
      UserError: none, or several, of which none is meant for sure.
    """
    found = [name for name in names if name.strip().lower() in spellings]
    if len(found) != 1:
        several = f"has several columns that could be the {what} ({', '.join(found)})"
        none = f"has no column of {what}, which is called one of {', '.join(spellings)}"
        raise UserError(
            f"{source} {several if found else none}: name one of them so and no other; its columns"
            f" are {', '.join(names)}."
        )
    return found[0]


def _headers(rows: Iterable[Row], left: Tally) -> Iterator[tuple[Path, Header | None]]:
    for where, content in rows:
        try:
            yield where, decode.header(_opened(content))
        except decode.UNREADABLE as error:
            left.add("unreadable images", where, _why(error))
            yield where, None


def _decoded(
    rows: Iterable[Row],
    labels: np.ndarray,
    known: Sequence[bool],
    mode: str,
    files: Files,
    left: Tally,
) -> Iterator[Example]:
    for (where, content), label, ok in zip(rows, labels, known, strict=True):
        if not ok:
            continue
        try:
            pixels = decode.pixels_of(_opened(content), mode, files)
        except decode.UNREADABLE as error:
            left.add("damaged images", where, _why(error))
            continue
        yield Example(str(where), pixels, label if label.ndim else int(label))


def _opened(content: Path | bytes) -> Any:
    return io.BytesIO(content) if isinstance(content, bytes) else content


def _why(error: BaseException) -> str:
    return "no image by its content" if isinstance(error, decode.NoImage) else reason(error)
