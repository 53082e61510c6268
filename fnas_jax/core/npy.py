"""Arrays in the `.npy` format, of files that may be damaged: none takes more than its file holds.

NumPy takes the memory that a header asks for before it reads anything.
"""

from __future__ import annotations

import lzma
import math
import pathlib
import struct
import sys
import zipfile
import zlib
from typing import IO

import numpy as np

from fnas_jax.core import memory

LARGEST_ENTRY = 8  # bytes of what whole numbers and floats are made of
# What zipfile, its decompressors and numpy raise for files that are damaged, or of a kind that they
# do not know: an encrypted one is a RuntimeError.
UNREADABLE = (
    *(OSError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, RuntimeError),
    *(SyntaxError, struct.error, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)


def load(path: pathlib.Path) -> np.ndarray:
    """The array of an `.npy` file. Raises one of UNREADABLE."""
    with path.open("rb") as file:
        return read(file, path.stat().st_size)


def members(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file by their names. Raises one of UNREADABLE."""
    found = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            check_memory(info.file_size)
            with archive.open(info) as member:
                found[info.filename.removesuffix(".npy")] = read(member, info.file_size)
    return found


def read(file: IO[bytes], there: int) -> np.ndarray:
    """The array of an open file of so many bytes, which may be in an archive.

    Raises one of UNREADABLE.
    """
    shape, _, dtype = header(file)
    size(shape, dtype, there - file.tell())
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, whether in Fortran order, dtype) of an array; `file` then stands at its data.

    Raises ValueError for anything else.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"it has format {version[0]}.{version[1]}, of arrays with fields")
    try:
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(file)
        return np.lib.format.read_array_header_2_0(file)
    except Exception as error:  # it is read as Python: whatever Python's parsers raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"its header cannot be read: {reason}") from None


def size(shape: tuple[int, ...], dtype: np.dtype, there: int) -> int:
    """How many bytes an array takes. Raises ValueError where not so many are `there`."""
    needed = math.prod(shape) * dtype.itemsize
    # Of no entries at all, too: what is made of these has a size that NumPy computes by the others.
    most = math.prod(n for n in shape if n) * max(dtype.itemsize, LARGEST_ENTRY)
    if min(shape, default=0) < 0 or most > sys.maxsize:
        raise ValueError(f"its shape is {list(shape)}")
    if not dtype.itemsize and 0 not in shape:
        raise ValueError(f"its entries are of the type {dtype}, which holds nothing")
    if needed > there:
        raise ValueError(f"it ends after {there:,} of the {needed:,} bytes of its array")
    return needed


def check_memory(needed: int) -> None:
    """Raises ValueError where an array of so many bytes does not fit into memory."""
    if needed > (most := memory.host_bytes()):
        raise ValueError(
            f"an array in it takes {needed / 2**30:,.1f} GiB, and memory has {most / 2**30:,.1f}"
        )
