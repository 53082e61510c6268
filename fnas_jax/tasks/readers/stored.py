"""Arrays in `.npy` files and in `.npz` files: small ones in memory, large ones `Mapped`."""

from __future__ import annotations

import logging
import lzma
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from fnas_jax.core import mapped, memory
from fnas_jax.core.mapped import Images
from fnas_jax.core.types import UserError
from fnas_jax.tasks.readers import objects

LOG = logging.getLogger(__name__)
_LOCAL_HEADER = 30  # bytes of a member's own header in a zip file, before name and extra field


# What zipfile, its decompressors and numpy raise for files that are damaged, or of a kind that they
# do not know: an encrypted one is a RuntimeError.
UNREADABLE = (
    *(OSError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, RuntimeError),
    *(SyntaxError, struct.error, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)


def read_array(path: Path) -> Images:
    """The array of a file, which stays there if it is large.

    Raises:
      UserError: not there, damaged, of Python objects that are neither texts nor numbers, or large
        and in Fortran order.
    """
    try:
        with path.open("rb") as file:
            shape, fortran, dtype = _header(file)
            offset = file.tell()
            size = path.stat().st_size - offset
            if dtype.hasobject:
                return objects.read_array(file)
            if _bytes(shape, dtype, size) < mapped.MAPPED_FROM:
                file.seek(0)
                return np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"There is no file {path.absolute()}.") from None
    except UNREADABLE as error:
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read as an .npy file: {message}.") from None
    if fortran:
        raise UserError(
            f"{path} is in Fortran order, in which the rows of a large file cannot be read one by"
            " one: save np.ascontiguousarray of it."
        )
    return mapped.mapped(path, offset, shape, dtype)


def members(path: Path) -> dict[str, Images]:
    """The arrays of an `.npz` file; large ones stay there unless they are compressed.

    Raises one of UNREADABLE.
    """
    found: dict[str, Images] = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.endswith(".npy"):
                key = info.filename.removesuffix(".npy")
                try:
                    found[key] = _member(path, archive, info)
                except UNREADABLE as error:
                    message = str(error).splitlines()[0] if str(error) else type(error).__name__
                    raise ValueError(f"of '{key}', {message}") from None
    return found


def check_memory(needed: int) -> None:
    """Raises ValueError where an array of so many bytes does not fit into memory."""
    if needed > (most := memory.host_bytes()):
        raise ValueError(
            f"an array in it takes {needed / 2**30:,.1f} GiB, and memory has {most / 2**30:,.1f}"
        )


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Images:
    """One array of an open file. Raises one of UNREADABLE."""
    with archive.open(info) as member:
        shape, fortran, dtype = _header(member)
        header = member.tell()
        if dtype.hasobject:
            check_memory(info.file_size)
            return objects.read_array(member)
    large = _bytes(shape, dtype, info.file_size - header) >= mapped.MAPPED_FROM
    if large and info.compress_type == zipfile.ZIP_STORED and not fortran:
        with path.open("rb") as file:
            file.seek(info.header_offset)
            start = file.read(_LOCAL_HEADER)
        lengths = (int.from_bytes(start[i : i + 2], "little") for i in (26, 28))
        offset = info.header_offset + _LOCAL_HEADER + sum(lengths) + header
        _bytes(shape, dtype, path.stat().st_size - offset)
        return mapped.mapped(path, offset, shape, dtype)
    check_memory(info.file_size)
    if large:
        LOG.warning(
            "'%s' of %s is read into memory whole (%.1f GiB): in files of np.savez, which"
            " does not compress, it could stay on disk",
            *(info.filename.removesuffix(".npy"), path, info.file_size / 2**30),
        )
    with archive.open(info) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _bytes(shape: tuple[int, ...], dtype: np.dtype, there: int) -> int:
    """How many an array takes. Raises ValueError where not so many are `there`."""
    needed = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0:
        raise ValueError(f"its shape is {list(shape)}")
    if not dtype.itemsize and 0 not in shape:
        raise ValueError(f"its entries are of the type {dtype}, which holds nothing")
    if needed > there:
        raise ValueError(f"it ends after {there:,} of the {needed:,} bytes of its array")
    return needed


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
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
