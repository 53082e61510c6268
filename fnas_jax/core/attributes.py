"""Objects of the user's own modules, by MODULE:ATTRIBUTE, and the text of a class."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import sys
import textwrap
import time
import weakref
from typing import Any

from fnas_jax.core import frames, identity, live
from fnas_jax.core.nearest import nearest
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
        near = nearest(attribute, [n for n in vars(found) if n[0] != "_"])
        raise UserError(f"{key} is {name!r}: {module} has no {attribute!r}{near}")
    return getattr(found, attribute)


# Of classes and functions, as it was when they were first asked for: a file that is edited while
# what it defined goes on running says another thing than what runs.
_TEXTS: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
_STARTED = time.time()  # what was written before this, nobody has edited since


class Edited(UserError):
    """The file of a class or function has changed since it was imported."""


def written(part: Any) -> str:
    """The text of a class or function, as it was when this was first called for it.

    Raises OSError or TypeError where it has none, and Edited where the file says another one since.
    """
    part = getattr(part, "__func__", part)  # of a method
    if part not in _TEXTS:
        text = inspect.getsource(part)
        file = "".join(inspect.findsource(part)[0])
        if _edited(part) and not live.agrees(part, textwrap.dedent(text), file):
            raise Edited(
                f"the file of {part.__module__}:{part.__qualname__} has changed since it was"
                " imported; reload the module, or start Python anew"
            )
        _TEXTS[part] = text
    return _TEXTS[part]


def _edited(part: Any) -> bool:
    try:
        return os.stat(inspect.getsourcefile(part) or "").st_mtime > _STARTED
    except OSError:  # a cell of a notebook
        return False


def source_of(cls: Any) -> str:
    """The text of a class or function. Raises UserError where it has none, or as `written` does."""
    try:
        return textwrap.dedent(written(cls))
    except (OSError, TypeError):
        raise UserError(
            f"{cls.__module__}:{cls.__qualname__} has no text to be known by; put it into a file"
        ) from None


def text_of(cls: type) -> str:
    """Digest of what a class's text says, whatever its comments and layout."""
    return identity.digest(ast.unparse(ast.parse(source_of(cls))))
