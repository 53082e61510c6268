"""Decoded images on disk: what has taken long to read is read again in seconds.

An entry is a folder of arrays and an index, known by the files that it was made of (path, size,
times of change and inode of each) and by how they were read. It is written under another name and
renamed when it is whole; one that is damaged, or of other files, is made anew. Of a folder that has
changed, the entry before is removed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fnas_jax.core import disk, jsons, mapped
from fnas_jax.core.identity import digest, text
from fnas_jax.core.types import UserError
from fnas_jax.tasks.readers import stored, tree
from fnas_jax.tasks.readers.examples import Note, Part, Source

LOG = logging.getLogger(__name__)
VERSION = 2  # of the readers and of this format: another one, another entry
WORTH = 2000  # files, below which reading again takes no time
ABANDONED = 86400.0  # seconds without a new file: nobody makes such an entry any more
_INDEX = "index.json"
_PARTS = ("train", "val", "test")


def source(root: Path, options: dict[str, Any], cache: str, read: Callable[[], Source]) -> Source:
    """What `read()` returns of the files below `root`, from `cache` where it is there.

    Args:
      root: an existing folder.
      options: all that `read` depends on beside the files; canonical JSON (`identity.text`).
      cache: folder of entries (~ allowed); "" means none.
      read: raises UserError for a set that cannot be read, of which nothing is kept.
    """
    if not cache:
        return read()
    listing, count = _listing(root)
    if count < WORTH:
        return read()
    whole = {"root": str(root.resolve()), "version": VERSION, **options}
    # Entries of one folder, read alike, begin alike, whatever its files were.
    alike = digest(text(whole))
    place = Path(cache).expanduser() / f"{alike}-{listing}"
    found = _load(place)
    if found is not None:
        LOG.info("the images of %s were decoded before: they come from %s", root, place)
        return found
    found = read()
    try:
        _save(found, place)
        for old in place.parent.glob(f"{alike}-*"):
            if old != place:
                shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        LOG.warning("decoded images cannot be kept in %s: %s", place, error.strerror or error)
    return found


def _listing(root: Path) -> tuple[str, int]:
    """(digest of what `_facts` says of all files below `root`, how many)."""
    seen, count = hashlib.blake2b(digest_size=16), 0
    for place, _, files, _ in tree.folders(root):
        for name in files:
            entry = (os.path.relpath(place / name, root), *_facts(place / name))
            seen.update(repr(entry).encode("utf-8", "surrogateescape"))
            count += 1
    return seen.hexdigest(), count


def _facts(path: Path) -> tuple[int, ...]:
    """What tells a file from another of its name, or from itself with other content.

    The time of change of the content can be set, as `cp -p`, `rsync` and `tar` do; that of the
    entry (ctime) and the number of the inode cannot.
    """
    try:
        found = os.stat(path)
    except OSError:  # a broken link
        return ()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _save(found: Source, place: Path) -> None:
    """Writes an entry, in one step for readers. Raises OSError."""
    temporary = place.with_name(f".{place.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    for old in disk.drafts(place.parent, place.name):
        if disk.age(old) > ABANDONED:
            shutil.rmtree(old, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        sums: dict[str, int] = {}
        for part, of in zip(_PARTS, found[:3], strict=True):
            if of is None:
                continue
            ids = np.frombuffer(b"".join(of.ids), np.uint8).reshape(len(of.ids), -1)
            for kind, array in (("images", of.images), ("labels", of.labels), ("ids", ids)):
                name = f"{part}.{kind}.npy"
                with (temporary / name).open("wb") as file:
                    np.save(file, np.asarray(array))
                    file.flush()
                    os.fsync(file.fileno())
                sums[name] = _sum(temporary / name)
        index = {
            "entry": place.name,
            "sums": sums,
            "class_names": found.class_names,
            "notes": found.notes,
            "bits": found.bits,
            "objective": found.objective,
            "sizes": {p: of.sizes for p, of in zip(_PARTS, found[:3], strict=True) if of},
        }
        said = text(index)
        with (temporary / _INDEX).open("w", encoding="utf-8") as file:
            json.dump({"digest": digest(said), "index": said}, file)
            file.flush()
            os.fsync(file.fileno())
        if place.exists():  # damaged, or another process was faster
            shutil.rmtree(place)
        temporary.rename(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _load(place: Path) -> Source | None:
    """An entry; None where there is none that is whole."""
    if not place.is_dir():
        return None
    try:
        kept = jsons.parse((place / _INDEX).read_text(encoding="utf-8"))
        if digest(kept["index"]) != kept["digest"]:
            raise ValueError("its index has changed")
        index = json.loads(kept["index"])
        if index["entry"] != place.name:
            raise ValueError("it is of other files")
        for name, wanted in index["sums"].items():
            if _sum(place / name) != wanted:
                raise ValueError(f"{name} has changed")
        parts = {part: _part(place, part, sizes) for part, sizes in index["sizes"].items()}
        return Source(
            parts["train"],
            parts.get("val"),
            parts.get("test"),
            tuple(index["class_names"]),
            tuple(Note(**note) for note in index["notes"]),
            index["bits"],
            index["objective"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        LOG.warning("%s is damaged (%s): its images are decoded anew", place, error)
        return None


def _part(place: Path, part: str, sizes: list[list[int]]) -> Part:
    images, labels, ids = (
        stored.read_array(place / f"{part}.{kind}.npy") for kind in ("images", "labels", "ids")
    )
    names = [row.tobytes() for row in mapped.whole(ids)]
    return Part(images, mapped.whole(labels), names, tuple((h, w) for h, w in sizes))


def _sum(path: Path) -> int:
    """CRC-32 of a file."""
    found = 0
    with path.open("rb") as file:
        while piece := file.read(mapped.CHUNK):
            found = zlib.crc32(piece, found)
    return found
