"""Arrays in `.npy` files and in `.npz` files: small ones in memory, large ones `Mapped`."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from fnas_jax.core import mapped
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
            shape, fortran, dtype = _header(file)
            offset, size = file.tell(), path.stat().st_size
        needed = offset + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if dtype.hasobject:
            with path.open("rb") as file:
                return objects.read_array(file)
        if size < needed:
            raise ValueError(f"it ends after {size:,} of {needed:,} bytes")
        if needed - offset < mapped.MAPPED_FROM:
            return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"There is no file {path.absolute()}.") from None
    except (OSError, ValueError, EOFError) as error:
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read as an .npy file: {message}.") from None
    if fortran:
        raise UserError(
            f"{path} is in Fortran order, in which the rows of a large file cannot be read one by"
            " one: save np.ascontiguousarray of it."
        )
    return mapped.mapped(path, offset, shape, dtype)


def mapped_members(path: Path) -> Mapping[str, Images]:
    """The arrays of an `.npz` file; large ones stay there unless they are compressed.

    Raises whatever `np.load` and `zipfile` raise.
    """
    found: dict[str, Images] = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for info in archive.infolist():
            key = info.filename.removesuffix(".npy")
            with archive.open(info) as member:
                shape, fortran, dtype = _header(member)
                header = member.tell()
            large = info.file_size >= mapped.MAPPED_FROM and not dtype.hasobject
            if large and info.compress_type == zipfile.ZIP_STORED and not fortran:
                file.seek(info.header_offset)
                start = file.read(_LOCAL_HEADER)
                lengths = (int.from_bytes(start[i : i + 2], "little") for i in (26, 28))
                offset = info.header_offset + _LOCAL_HEADER + sum(lengths) + header
                found[key] = mapped.mapped(path, offset, shape, dtype)
                continue
            if large:
                LOG.warning(
                    "'%s' of %s is read into memory whole (%.1f GiB): in files of np.savez, which"
                    " does not compress, it could stay on disk",
                    *(key, path, info.file_size / 2**30),
                )
            with archive.open(info) as member:
                found[key] = (
                    objects.read_array(member)
                    if dtype.hasobject
                    else np.lib.format.read_array(member, allow_pickle=False)
                )
    return found


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, whether in Fortran order, dtype) of an array; `file` then stands at its data."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"it has format {version[0]}.{version[1]}, of arrays with fields")
