"""Objects of the user's own modules, by MODULE:ATTRIBUTE."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from fnas_jax.core import config as config_lib
from fnas_jax.core import frames
from fnas_jax.core.types import UserError


def find(key: str, name: str, module: str, attribute: str) -> Any:
    """The attribute of a module that can be imported from here, as the current folder's can.

    Raises UserError, which says that the configuration's `key` is `name`.
    """
    if os.getcwd() not in sys.path:  # as `python -m` has it, for the console script
        sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
    except Exception as error:  # whatever the user's module raises
        reason = frames.told(error, own=True)
        raise UserError(f"{key} is {name!r}: {module} cannot be imported: {reason}") from error
    if not hasattr(found, attribute):
        near = config_lib.nearest(attribute, [n for n in vars(found) if n[0] != "_"])
        raise UserError(f"{key} is {name!r}: {module} has no {attribute!r}{near}")
    return getattr(found, attribute)
