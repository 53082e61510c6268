"""Reader of Parquet files and of what Hugging Face's `datasets` saves (`save_to_disk`).

Images are encoded files: bytes, or a struct of bytes and path, as `datasets` writes them. Labels
are whole numbers, with their names where the schema has them (`ClassLabel`), or texts. Parts are
told by the files' names (`train-00000-of-00002.parquet`) or by those of their folders.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fnas_jax.core import jsons
from fnas_jax.core.types import UserError
from fnas_jax.tasks.readers import table
from fnas_jax.tasks.readers.examples import PART_NAMES, Note, Source, reason
from fnas_jax.tasks.readers.table import Row, Table

SUFFIXES = (".parquet", ".arrow")
_BATCH = 64  # rows of encoded images in memory
# Types of the fields of a struct; of such that are empty in all rows null.
_BYTES = ("binary", "large_binary", "binary_view", "null")
_TEXTS = ("string", "large_string", "string_view", "null")
_SHARD = re.compile(r"(?P<name>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})")


def is_set(folder: Path) -> bool:
    """Whether a folder holds Parquet files, or what `save_to_disk` writes."""
    if not os.path.isdir(folder):
        return False
    saved = any(os.path.isfile(folder / name) for name in ("dataset_dict.json", "state.json"))
    return saved or any(_visible(folder, "*.parquet"))


def read_arrow(
    path: Path, image_size: int, alpha: str, objective: str = "classification"
) -> Source:
    """Reads one file, or all of a folder and its sub-folders.

    A test part whose labels are withheld (-1) is left out. So are files of other parts than train,
    validation and test, where there are such; the notes of the `Source` say it.

    Raises:
      UserError: pyarrow is not installed, files are damaged or missing among numbered ones, or no
        column of images or labels is clear.
    """
    pyarrow = _library(path)
    try:
        return _read(path, image_size, alpha, objective)
    except (pyarrow.ArrowException, UnicodeDecodeError, OverflowError) as error:
        # Of names and texts that are no UTF-8 in what is else whole.
        raise UserError(f"{path} cannot be read: {reason(error)}.") from None


def _read(path: Path, image_size: int, alpha: str, objective: str) -> Source:
    """As `read_arrow`, but for what pyarrow raises of single values."""
    parts, others = _parts(path)
    schema = _schema(parts["train"][0])
    image, label, names = _columns(schema, path, objective)
    notes = []
    if others:
        notes.append(Note(f"left out: {len(others)} files of other parts ({others[0]})"))
    tables = {}
    for part, files in parts.items():
        labels = _labels(files, image, label)
        if part == "test" and labels.dtype.kind == "i" and (labels < 0).all():
            notes.append(Note(f"left out: the test part of {path}, whose labels are withheld (-1)"))
            continue
        tables[part] = Table(functools.partial(_rows, files, image), labels)
    source = table.read(tables, image_size, alpha, str(path), names, objective)
    return source._replace(notes=(*notes, *source.notes))


def _library(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            f"{path} is read by pyarrow, which cannot be imported ({reason(error)}):"
            " pip install fnas-jax[parquet]."
        ) from None
    return pyarrow


def _visible(folder: Path, pattern: str) -> Iterator[Path]:
    """The files below `folder`, in order, but for hidden ones."""
    for path in sorted(folder.rglob(pattern)):
        if not any(name.startswith(".") for name in path.relative_to(folder).parts):
            yield path


def _parts(path: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """(files of each part, files of others); 'train' is always among the parts."""
    if os.path.isfile(path):
        return {"train": [path]}, []
    files = list(_visible(path, "*.parquet")) or _saved(path)
    _check_shards(files)
    parts: dict[str, list[Path]] = {}
    others = []
    for file in files:
        part = _part(file, path)
        if part:
            parts.setdefault(part, []).append(file)
        else:
            others.append(file)
    if not parts and others:
        return {"train": others}, []
    if "train" not in parts:
        found = ", ".join(file.name for file in files) or "none"
        raise UserError(f"{path} has no files of a part 'train'; there are {found}.")
    return parts, others


def _part(file: Path, root: Path) -> str:
    """The part of a file: train, val, test, or "" for another."""
    folders = file.relative_to(root).parts[:-1]
    # A shard's own name first, but files of `save_to_disk` are all called "data".
    for name in (re.split(r"[-_.]", file.stem)[0], *reversed(folders)):
        for part, spellings in PART_NAMES.items():
            if name.lower() in spellings:
                return part
    return ""


def _saved(root: Path) -> list[Path]:
    """The Arrow files that the state.json of each part names."""
    found = []
    for state in _visible(root, "state.json"):
        try:
            content = jsons.parse(state.read_text(encoding="utf-8"))
            kinds = {"_data_files": [{"filename": str}]}
            known = jsons.record(content, kinds, str(state), kinds)
            named = [entry["filename"] for entry in known["_data_files"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{state} cannot be read: {reason(error)}.") from None
        files = [state.parent / name for name in named]
        lost = [file for file in files if not os.path.isfile(file)]
        if lost:
            raise UserError(f"{state} names {lost[0].name}, which is not there.")
        found += files
    return found


def _check_shards(files: Iterable[Path]) -> None:
    """Raises UserError where one of files numbered 00000-of-00002 is missing."""
    seen: dict[tuple[Path, str, int], set[int]] = {}
    for file in files:
        match = _SHARD.fullmatch(file.stem)
        if match:
            key = (file.parent, match["name"], int(match["count"]))
            seen.setdefault(key, set()).add(int(match["number"]))
    for (folder, name, count), numbers in seen.items():
        missing = sorted(set(range(count)) - numbers)
        if missing:
            raise UserError(
                f"{len(missing)} of the {count} files '{name}-..-of-{count:05d}' are not in"
                f" {folder}; the first is number {missing[0]:05d}."
            )


def _batches(file: Path, columns: list[str]) -> Iterator[Any]:
    """Record batches of some columns. Raises UserError for a damaged file, or without them."""
    import pyarrow
    import pyarrow.parquet

    try:
        if file.suffix == ".parquet":
            with pyarrow.parquet.ParquetFile(file) as opened:
                for batch in opened.iter_batches(_BATCH, columns=columns):
                    batch.validate(full=True)
                    yield batch
            return
        with pyarrow.memory_map(str(file)) as source, pyarrow.ipc.open_stream(source) as stream:
            for batch in stream:
                # Offsets of a damaged file lead out of memory, which would end the process.
                batch.validate(full=True)
                for first in range(0, batch.num_rows, _BATCH):
                    yield batch.slice(first, _BATCH).select(columns)
    except (pyarrow.ArrowException, OSError, KeyError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {reason(error)}.") from None


def _schema(file: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        if file.suffix == ".parquet":
            return pyarrow.parquet.read_schema(file)
        with pyarrow.memory_map(str(file)) as source, pyarrow.ipc.open_stream(source) as stream:
            return stream.schema
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {reason(error)}.") from None


def _columns(schema: Any, path: Path, objective: str) -> tuple[str, str, tuple[str, ...]]:
    """(column of images, column of labels, class names or ())."""
    from pyarrow import types

    def encoded(kind: Any) -> bool:
        if types.is_struct(kind):
            fields = {kind.field(i).name: str(kind.field(i).type) for i in range(kind.num_fields)}
            return fields.get("bytes") in _BYTES and fields.get("path", "null") in _TEXTS
        return types.is_binary(kind) or types.is_large_binary(kind)

    def label(kind: Any) -> bool:
        if types.is_integer(kind) or types.is_boolean(kind):
            return True
        if objective == "regression":
            return types.is_floating(kind)
        if types.is_dictionary(kind):
            return label(kind.value_type) or types.is_floating(kind.value_type)
        return types.is_string(kind) or types.is_large_string(kind)

    pictures = [field.name for field in schema if encoded(field.type)]
    image = pictures[0] if len(pictures) == 1 else ""
    if not image:
        image = table.column(pictures or schema.names, table.IMAGES, "images", str(path))
    if image not in pictures:
        raise UserError(
            f"The column '{image}' of {path} is {schema.field(image).type}: encoded images are"
            " needed, as bytes or as a struct of bytes and, if any, a path."
        )
    known = _class_labels(schema)
    others = [field.name for field in schema if label(field.type) and field.name != image]
    found = next(iter(known)) if len(known) == 1 else ""
    if not found:
        wanted = list(known) or others
        found = table.column(wanted or schema.names, table.LABELS, "labels", str(path))
    if found not in others:
        raise UserError(
            f"The column '{found}' of {path} is {schema.field(found).type}: class numbers or names"
            " are needed."
        )
    return image, found, known.get(found, ())


def _class_labels(schema: Any) -> dict[str, tuple[str, ...]]:
    """Names of the classes of each ClassLabel column, as `datasets` writes them down."""
    try:
        features = jsons.parse((schema.metadata or {})[b"huggingface"].decode())["info"]["features"]
        return {
            name: tuple(map(str, feature["names"]))
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _labels(files: list[Path], image: str, label: str) -> np.ndarray:
    """[n] int64, float64 or texts. Raises UserError for a row without label."""
    found: list[Any] = []
    for file in files:
        before = len(found)
        for batch in _batches(file, [label]):
            found += batch.column(0).to_pylist()
        for i, value in enumerate(found[before:]):
            if value is None:
                raise UserError(f"Row {i} of {file} has no label.")
    if any(isinstance(value, str) for value in found):
        return np.asarray(found, np.str_)
    return np.asarray(found, np.float64 if any(isinstance(v, float) for v in found) else np.int64)


def _rows(files: list[Path], image: str) -> Iterator[Row]:
    for file in files:
        count = 0
        for batch in _batches(file, [image]):
            for value in batch.column(0).to_pylist():
                yield Row(file / f"row {count}", _content(value, file.parent))
                count += 1


def _content(value: Any, folder: Path) -> Path | bytes:
    """The bytes of an image, or its file. b"" where there is neither: no image by its content."""
    if isinstance(value, dict):
        if value.get("bytes") is None and value.get("path"):
            return folder / value["path"]
        value = value.get("bytes")
    return value or b""
