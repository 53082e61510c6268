"""Reader of IDX files, in which MNIST and its family come: a folder of them, gzipped or not.

Their names are `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and, for the test set, the same
with `t10k` or `test`; a dot may stand for the last hyphen, and a name of the set before all of it
(`emnist-letters-train-images-idx3-ubyte`). The format: two zero bytes, a code of the type, the
number of axes, the length of each as big-endian uint32, and then the array in C order
(Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits").
"""

from __future__ import annotations

import gzip
import math
import os
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fnas_jax.core import mapped, npy
from fnas_jax.core.mapped import Images
from fnas_jax.core.types import UserError
from fnas_jax.tasks.readers.examples import Source, reason
from fnas_jax.tasks.readers.npz import read_arrays

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts it
# H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST", 2017, arXiv 1708.07747.
FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_NAME = re.compile(
    r"(?:(?P<set>.+)[-_.])?(?P<part>train|t10k|test|val|valid|validation)[-_.]"
    r"(?P<kind>images|labels)[-_.]idx\d(?:[-_.]ubyte)?(?:\.gz)?",
    re.IGNORECASE,
)
_PARTS = {"t10k": "test", "valid": "val", "validation": "val"}
_GZIP = b"\x1f\x8b"
_MOST_ZIPPED = 1032  # bytes that deflate makes of one, at most


class _File(NamedTuple):
    """What the name of an IDX file says."""

    path: Path
    set: str  # "" where the name is that of MNIST
    part: str  # "train", "val" or "test"
    kind: str  # "images" or "labels"


def is_idx(path: Path) -> bool:
    """Whether a file has the name of an IDX file, or a folder holds one."""
    return bool(_files([path] if os.path.isfile(path) else _listed(path)))


def read_idx(path: Path, image_size: int) -> Source:
    """Reads a folder of IDX files, or the set of which one file is given.

    Images of EMNIST are turned upright. Its `..-mapping.txt` names the classes where it is there.

    Raises:
      UserError: files that are damaged, absent, or of several sets in one folder.
    """
    folder = path if os.path.isdir(path) else path.parent
    files = _files(_listed(folder))
    sets = sorted({file.set for file in files})
    if os.path.isfile(path):
        sets = [file.set for file in _files([path])]
    if len(sets) > 1:
        example = next(f.path.name for f in files if f.set == sets[0])
        raise UserError(
            f"{folder} holds IDX files of {len(sets)} sets ({', '.join(s or 'MNIST' for s in sets)}"
            f"): name a file of the one that is meant, as images/{folder / example}."
        )
    return read_arrays(_arrays(folder, sets[0], files), str(folder), image_size)


def read_fashion_mnist(image_size: int) -> Source:
    """Fashion-MNIST as Debian's package has it: 60,000 + 10,000 images, 28x28x1, uint8, 10 classes.

    Raises:
      UserError: the package is not installed, or its files are damaged.
    """
    if not is_idx(FASHION_MNIST):
        raise UserError(
            f"The data set 'fashion_mnist' is read from {FASHION_MNIST}, which is not there:"
            " install it (Debian, Ubuntu: apt-get install dataset-fashion-mnist), or give the"
            " folder of its four IDX files, as images/FOLDER."
        )
    arrays = _arrays(FASHION_MNIST, "", _files(_listed(FASHION_MNIST)))
    arrays |= {"class_names": np.asarray(FASHION_CLASSES)}
    return read_arrays(arrays, "fashion_mnist", image_size)


def read_array(path: Path) -> Images:
    """The array of an IDX file, gzipped or not; a large one that is not stays in its file.

    Raises:
      UserError: damaged, cut short, or no IDX file.
    """
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == _GZIP
        with gzip.open(path) if zipped else path.open("rb") as file:
            shape, dtype, header = _header(file)
            needed = math.prod(shape) * dtype.itemsize
            if not zipped:
                found = path.stat().st_size - header
                if found == needed >= mapped.MAPPED_FROM:
                    return mapped.mapped(path, header, shape, dtype)
            # Not more than there is, whatever a damaged header says: found by reading on.
            npy.check_memory(min(needed, _MOST_ZIPPED * path.stat().st_size))
            content = _up_to(file, needed + 1)
    except FileNotFoundError:
        raise UserError(f"There is no file {path.absolute()}.") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{path} cannot be read as an IDX file: {reason(error)}") from None
    if len(content) != needed:
        what = f"ends after {len(content):,}" if len(content) < needed else "holds more than the"
        raise UserError(
            f"{path} cannot be read as an IDX file: an array of shape {list(shape)} takes"
            f" {needed:,} bytes, and it {what}{' bytes' if len(content) > needed else ''}."
        )
    array = np.frombuffer(content, dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="))


def _up_to(file: Any, most: int) -> bytes:
    pieces, left = [], most
    while left and (piece := file.read(min(left, mapped.CHUNK))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype, int]:
    """(shape, dtype, bytes of the header). Raises ValueError for anything else."""
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or not magic[3]:
        raise ValueError(f"it begins with {magic.hex(' ') or 'nothing'}, not with 00 00 TYPE AXES.")
    sizes = file.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise ValueError("it ends within its header.")
    shape = tuple(int(n) for n in np.frombuffer(sizes, ">u4"))
    return shape, np.dtype(_TYPES[magic[2]]), 4 + len(sizes)


def _listed(folder: Path) -> list[Path]:
    """The files of a folder; [] where it is none."""
    return (
        sorted(path for path in folder.iterdir() if path.is_file()) if os.path.isdir(folder) else []
    )


def _files(paths: Iterable[Path]) -> list[_File]:
    found = []
    for path in paths:
        match = _NAME.fullmatch(path.name)
        if match:
            part = match["part"].lower()
            found.append(
                _File(path, match["set"] or "", _PARTS.get(part, part), match["kind"].lower())
            )
    return found


def _arrays(folder: Path, name: str, files: list[_File]) -> dict[str, Any]:
    """The arrays of a set by the keys of an `.npz` file. Raises UserError where one lacks."""
    paths: dict[tuple[str, str], Path] = {}
    for file in files:
        if file.set == name:
            # Where a file lies beside its gzipped one, they are the same.
            paths.setdefault((file.part, file.kind), file.path)
    for part in sorted({"train", *(part for part, _ in paths)}):
        for kind in ("images", "labels"):
            if (part, kind) not in paths:
                there = ", ".join(path.name for path in paths.values())
                axes = {"images": 3, "labels": 1}[kind]
                wanted = f"{part.replace('test', 't10k')}-{kind}-idx{axes}-ubyte"
                raise UserError(
                    f"{folder} lacks the {kind} of its '{part}' part: such a file is called"
                    f" {wanted}, gzipped or not; there are {there}."
                )
    arrays: dict[str, Any] = {}
    turned = name.lower().startswith("emnist")
    names = _mapping(folder / f"{name}-mapping.txt") if turned else {}
    for (part, kind), path in paths.items():
        array = read_array(path)
        wanted = {"images": "3 axes (or 4)", "labels": "1 axis"}[kind]
        if (array.ndim not in (3, 4)) if kind == "images" else array.ndim != 1:
            raise UserError(f"{path} holds shape {list(array.shape)}: {kind} have {wanted}.")
        if kind == "images" and turned:
            # Its images are stored column by column (as TensorFlow Datasets says of "emnist", too).
            array = np.swapaxes(mapped.whole(array), 1, 2)
        if kind == "labels":
            array = _named(mapped.whole(array), names)
        arrays[f"{'x' if kind == 'images' else 'y'}_{part}"] = array
    return arrays


def _mapping(path: Path) -> dict[int, str]:
    """Names of classes by EMNIST's file of lines "number code ..", the first code being ASCII."""
    if not path.is_file():
        return {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [list(map(int, line.split())) for line in lines if line]
        return {row[0]: chr(row[1]) for row in rows}
    except (OSError, ValueError, IndexError, OverflowError):
        raise UserError(f"{path} cannot be read: each line is a class number and codes.") from None


def _named(labels: np.ndarray, names: dict[int, str]) -> np.ndarray:
    """Labels [n] as texts where each has a name."""
    found = np.unique(labels)
    if not names or not all(int(label) in names for label in found):
        return labels
    texts = np.asarray([names[int(label)] for label in found])
    return texts[np.searchsorted(found, labels)]
