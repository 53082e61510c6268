"""`best/`: a trained network on disk, as a folder that is there as a whole or not at all.

weights.safetensors holds the variables of the plain Flax network, named by their paths
("params/stem/kernel"); architecture.json all that is needed to rebuild and to use it; README.md
says the same to people.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from fnas_jax.core import disk, jsons
from fnas_jax.core.logging import finite
from fnas_jax.core.types import UserError

NAME = "best"
WEIGHTS, ARCHITECTURE, CARD = "weights.safetensors", "architecture.json", "README.md"
FORMAT = 1  # of architecture.json; to be counted up whenever earlier versions would misread it


def write(
    folder: pathlib.Path, architecture: dict[str, Any], variables: dict[str, Any], card: str
) -> pathlib.Path:
    """Writes `folder`/best, in place of what is there; returns its path.

    As `replace` does. Adds to `architecture` the digest of the weights, so that files of two
    networks are not taken for one.
    """
    weights = to_bytes(variables)
    entry = {"file": WEIGHTS, "digest": digest(weights)}
    record = json.dumps(finite(architecture | {"weights": entry}), indent=2, allow_nan=False)
    files = {WEIGHTS: weights, ARCHITECTURE: f"{record}\n".encode(), CARD: card.encode()}
    return replace(folder / NAME, files)


def replace(
    target: pathlib.Path,
    files: dict[str, bytes],
    check: Callable[[pathlib.Path], object] = lambda folder: None,
) -> pathlib.Path:
    """Makes `target` the folder of these files, in place of what is there; returns it.

    Killed at any moment, or where `check` of the new folder raises, it leaves the old one or the
    new one, whole. The folder in which `target` stands has to be there. Raises UserError where
    `target` is not one of these folders, and `disk.Refused`.
    """
    with disk.at(target):
        return _replace(target, files, check)


def _replace(
    target: pathlib.Path, files: dict[str, bytes], check: Callable[[pathlib.Path], object]
) -> pathlib.Path:
    new, old = _beside(target, "new"), _beside(target, "old")
    if old.exists() and not target.exists():  # killed between the two renames below
        old.rename(target)
    refuse_foreign(target)
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    new.mkdir()
    try:
        for name, content in files.items():
            write_bytes(new / name, content)
        _sync(new)
        check(new)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    if target.exists():
        target.rename(old)
    new.rename(target)
    _sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)
    return target


def refuse_foreign(target: pathlib.Path) -> None:
    """Raises UserError where `target` is something that was not written here: it stays as it is."""
    if target.is_dir() and ((target / ARCHITECTURE).exists() or not any(target.iterdir())):
        return
    if target.exists() or target.is_symlink():
        raise UserError(
            f"{str(target)!r} is in the way: it holds no {ARCHITECTURE}, so fnas_jax has not"
            " written it; move it, or choose another folder"
        )


def _beside(target: pathlib.Path, what: str) -> pathlib.Path:
    """A name while one folder takes the place of another."""
    return target.with_name(f".{target.name}.{what}")


def read(path: str | pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(content of architecture.json, {"params": .., "batch_stats": ..}) of a `best/`.

    `path` is that folder, or the one in which it stands. Raises UserError where it is missing, not
    whole, damaged, or of a later version.
    """
    folder = locate(pathlib.Path(path).expanduser())
    missing = [name for name in (ARCHITECTURE, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{str(folder)!r} is not whole: it lacks {' and '.join(missing)}")
    architecture = jsons.read(folder / ARCHITECTURE)
    where = repr(str(folder / ARCHITECTURE))
    jsons.record(architecture, {"format": int}, where)
    if architecture.get("format", 1) > FORMAT:
        raise UserError(
            f"{where} was written by a later version of fnas_jax (format"
            f" {architecture['format']} there, {FORMAT} here): use that version"
        )
    jsons.record(architecture, {"weights": {"digest": str}}, where, ("weights",))
    jsons.record(architecture["weights"], {}, where, ("digest",))
    weights = _read_bytes(folder / WEIGHTS)
    if digest(weights) != architecture["weights"]["digest"]:
        raise UserError(
            f"{str(folder / WEIGHTS)!r} is damaged, or not the one that {ARCHITECTURE} describes"
        )
    return architecture, from_bytes(weights, str(folder / WEIGHTS))


def locate(path: pathlib.Path) -> pathlib.Path:
    """The folder with a network that `path` names. Raises UserError where there is none."""
    if (path / ARCHITECTURE).exists() or (path / WEIGHTS).exists():
        return path
    for place in (path / NAME, _beside(path / NAME, "old")):  # the second: a write was killed
        if place.is_dir():
            return place
    if not path.is_dir():
        raise UserError(f"there is no folder {str(path)!r}")
    if (path / "result.json").exists():
        raise UserError(
            f"the search in {str(path)!r} has left no {NAME}/; where its task trains networks,"
            f" python -m fnas_jax.retrain --workdir={path} trains the winner again and keeps it"
        )
    if (path / "config.json").exists():
        raise UserError(
            f"the search in {str(path)!r} is not finished, so it has no {NAME}/ yet; the command"
            " that began it goes on with it, or fnas_jax.resume in Python"
        )
    raise UserError(
        f"{str(path)!r} is neither the workdir of a finished search nor its {NAME}/ folder"
    )


def flat(variables: Any) -> dict[str, Any]:
    """Nested dicts -> {"params/stem/kernel": .., ..}."""
    return traverse_util.flatten_dict(variables, sep="/")


def to_bytes(variables: dict[str, Any]) -> bytes:
    """The content of a safetensors file with `variables`, in float32."""
    tensors = {
        name: np.ascontiguousarray(leaf, np.float32) for name, leaf in flat(variables).items()
    }
    return safetensors.numpy.save(tensors, {"format": "flax"})


def from_bytes(content: bytes, where: str) -> dict[str, Any]:
    """The inverse of `to_bytes`. Raises UserError, which names `where`, for anything else."""
    try:
        tensors = safetensors.numpy.load(content)
    except safetensors.SafetensorError as error:
        raise UserError(f"{where!r} is no safetensors file: {error}") from None
    return traverse_util.unflatten_dict(tensors, sep="/")


def digest(content: bytes) -> str:
    """32 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes a file; returns when it is safe on disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _read_bytes(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read: {error.strerror or error}") from None


def _sync(folder: pathlib.Path) -> None:
    """Returns when the names of files in `folder` are safe on disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
