"""A run's folder: one process at a time, one configuration for ever."""

from __future__ import annotations

import json
import pathlib
import platform
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import filelock
import jax
import ml_collections

import fnas_jax
from fnas_jax.core import config as config_lib
from fnas_jax.core.logging import write_json
from fnas_jax.core.types import UserError


@contextmanager
def opened(
    workdir: str | pathlib.Path, config: ml_collections.ConfigDict
) -> Iterator[pathlib.Path]:
    """The folder, created where it is missing and held until the end of the context.

    Raises UserError where it cannot be written, another process runs in it, or it belongs to a run
    with another configuration.
    """
    folder = pathlib.Path(workdir).expanduser()
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lock").touch()  # the lock would take a refusal for another process
        lock.acquire()
    except filelock.Timeout:
        raise UserError(f"another process is running in workdir {str(folder)!r}") from None
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"workdir {str(folder)!r} cannot be written: {reason}") from None
    try:
        _same_config(folder / "config.json", config)
        yield folder
    finally:
        lock.release()


def read_json(path: pathlib.Path) -> Any:
    """The content of a JSON file of a run. Raises UserError where it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{str(path)!r} cannot be read: {reason}") from None


def read_config(workdir: str | pathlib.Path) -> ml_collections.ConfigDict:
    """The configuration of the run in `workdir`. Raises UserError where there is none."""
    path = pathlib.Path(workdir).expanduser() / "config.json"
    if not path.exists():
        raise UserError(f"{str(workdir)!r} is not the workdir of a run: it has no config.json")
    return config_lib.validate(config_lib.nest(config_lib.flatten(read_json(path))))


def began(folder: pathlib.Path) -> float:
    """When the run in `folder` was first started, in seconds since 1970; now, if it never was."""
    path = folder / "run.json"
    return read_json(path).get("began", 0.0) if path.exists() else time.time()


def start(folder: pathlib.Path, config: ml_collections.ConfigDict, began: float) -> tuple[str, int]:
    """(id of the run in `folder`, how often it has been started before), counting this start.

    From here on the folder belongs to `config`: to be called once everything could be built, so
    that a mistyped first command does not claim the folder.
    """
    if not (folder / "config.json").exists():
        write_json(folder / "config.json", config.to_dict())
    path = folder / "run.json"
    known = read_json(path) if path.exists() else {}
    run_id, starts = known.get("id", uuid.uuid4().hex), known.get("starts", 0)
    write_json(path, {"id": run_id, "starts": starts + 1, "began": began})
    return run_id, starts


def versions() -> dict[str, str]:
    """Versions of what the results depend on, and the platform of the devices."""
    packages = {
        name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")
    }
    own = {"fnas_jax": fnas_jax.__version__, "python": platform.python_version()}
    return own | packages | {"platform": jax.default_backend()}


def _same_config(path: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Raises UserError if the run whose config.json is `path` has another configuration."""
    if not path.exists():
        return
    new = config_lib.flatten(config)
    old = config_lib.flatten(read_json(path))
    missing = "not set"
    differences = [
        f"{name} ({old.get(name, missing)} there, {new.get(name, missing)} now)"
        for name in sorted(old.keys() | new.keys())
        if old.get(name, missing) != new.get(name, missing)
    ]
    if differences:
        raise UserError(
            f"workdir {str(path.parent)!r} belongs to a run with another configuration:"
            f" {', '.join(differences)}"
        )
