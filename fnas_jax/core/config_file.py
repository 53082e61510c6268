"""Configurations in Python files: by their path, or by the name of one that comes with fnas_jax."""

from __future__ import annotations

import os
import pathlib
import re
import runpy
import traceback
from collections.abc import Sequence

import ml_collections

import fnas_jax
from fnas_jax.core import config as config_lib
from fnas_jax.core.nearest import nearest
from fnas_jax.core.types import UserError


def load(path: str) -> ml_collections.ConfigDict:
    """The result of `get_config()` in the Python file `path`, or in one of `shipped` by its name.

    Raises UserError.
    """
    path = find(path)
    try:
        config = runpy.run_path(path)["get_config"]()
    except Exception as error:  # whatever the user's file raises
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
        line = error.lineno if isinstance(error, SyntaxError) else (lines or [None])[-1]
        where = f"{path}, line {line}" if line else path
        raise UserError(f"{where}: {_message(error)}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(f"{path}: get_config() returned {type(config).__name__}, not a ConfigDict")
    return config


def find(path: str) -> str:
    """`path` where it is a file, else what comes with fnas_jax by that name. Raises UserError."""
    if os.path.isfile(path):
        return path
    known = shipped()
    name = path.removesuffix(".py")
    if name in known:
        return str(known[name])
    listed = f"; with fnas_jax come {', '.join(known)}" if known else ""
    near = nearest(name, known)
    raise UserError(f"config file {path!r} does not exist{listed}{near}")


def shipped() -> dict[str, pathlib.Path]:
    """The documented configurations by name: beside the package in a checkout, else within it."""
    package = pathlib.Path(fnas_jax.__file__).parent
    for folder in (package / "experiments", package.parent / "experiments"):
        found = sorted(folder.glob("*.py"))
        if found:
            return {path.stem: path for path in found if path.stem != "__init__"}
    return {}


def take(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """The FILE of --config=FILE or --config FILE, and the other arguments."""
    path, rest, arguments = None, [], iter(argv)
    for arg in arguments:
        if re.match(r"--?config=", arg):
            path = arg.split("=", 1)[1]
        elif arg in ("--config", "-config"):
            path = next(arguments, None)
            if path is None:
                raise UserError("--config needs the name of a file")
        else:
            rest.append(arg)
    return path, rest


def _message(error: Exception) -> str:
    """A sentence for what a config file raised; ConfigDict's own texts list every key."""
    text = str(error.args[0]) if error.args else ""
    frames = traceback.extract_tb(error.__traceback__)
    unknown = re.match(r"""[\\'"]*(?:Key ")?(\w+)""", text)
    if isinstance(error, KeyError) and text == "get_config":
        return "the file defines no get_config()"
    of_config = bool(frames) and "ml_collections" in frames[-1].filename
    if of_config and isinstance(error, AttributeError | KeyError) and unknown:
        return str(config_lib.unknown_key(unknown[1]))
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"
