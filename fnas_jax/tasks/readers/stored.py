"""Arrays in `.npy` files and in `.npz` files: small ones in memory, large ones `Mapped`."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path

import numpy as np

from fnas_jax.core import mapped, npy
from fnas_jax.core.mapped import Images
from fnas_jax.core.types import UserError
from fnas_jax.tasks.readers import objects

LOG = logging.getLogger(__name__)
_LOCAL_HEADER = 30  # bytes of a member's own header in a zip file, before name and extra field


def read_array(path: Path) -> Images:
    """The array of a file, which stays there if it is large.

    Raises:
      UserError: not there, damaged, of Python objects that are neither texts nor numbers, or large
        and in Fortran order.
    """
    try:
        with path.open("rb") as file:
            shape, fortran, dtype = npy.header(file)
            offset = file.tell()
            size = path.stat().st_size - offset
            if dtype.hasobject:
                return objects.read_array(file)
            if npy.size(shape, dtype, size) < mapped.MAPPED_FROM:
                file.seek(0)
                return np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"There is no file {path.absolute()}.") from None
    except npy.UNREADABLE as error:
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

    Raises one of `npy.UNREADABLE`.
    """
    found: dict[str, Images] = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.endswith(".npy"):
                key = info.filename.removesuffix(".npy")
                try:
                    found[key] = _member(path, archive, info)
                except npy.UNREADABLE as error:
                    message = str(error).splitlines()[0] if str(error) else type(error).__name__
                    raise ValueError(f"of '{key}', {message}") from None
    return found


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Images:
    """One array of an open file. Raises one of `npy.UNREADABLE`."""
    with archive.open(info) as member:
        shape, fortran, dtype = npy.header(member)
        header = member.tell()
        if dtype.hasobject:
            npy.check_memory(info.file_size)
            return objects.read_array(member)
    large = npy.size(shape, dtype, info.file_size - header) >= mapped.MAPPED_FROM
    if large and info.compress_type == zipfile.ZIP_STORED and not fortran:
        with path.open("rb") as file:
            file.seek(info.header_offset)
            start = file.read(_LOCAL_HEADER)
        lengths = (int.from_bytes(start[i : i + 2], "little") for i in (26, 28))
        offset = info.header_offset + _LOCAL_HEADER + sum(lengths) + header
        npy.size(shape, dtype, path.stat().st_size - offset)
        return mapped.mapped(path, offset, shape, dtype)
    npy.check_memory(info.file_size)
    if large:
        compressed = info.compress_type != zipfile.ZIP_STORED
        LOG.warning(
            "'%s' of %s is read into memory whole (%.1f GiB): %s, it could stay on disk",
            *(info.filename.removesuffix(".npy"), path, info.file_size / 2**30),
            "in files of np.savez, which does not compress"
            if compressed
            else "saved as np.ascontiguousarray of it, in C order",
        )
    with archive.open(info) as member:
        return np.lib.format.read_array(member, allow_pickle=False)
