"""Where in the user's own code an exception was raised."""

from __future__ import annotations

import pathlib
import sysconfig
import traceback

import jax

import fnas_jax

PACKAGE = pathlib.Path(fnas_jax.__file__).resolve().parent
# The standard library and installed packages, in which errors end that began in the user's code.
INSTALLED = tuple(
    pathlib.Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")
)


def where(error: BaseException, own: bool = False) -> str:
    """FILE:LINE of the innermost frame of the user's own files; "" where there is none.

    `own`: the part that raised it is the user's, and may be an installed package.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    outside = [
        (pathlib.Path(frame.filename).resolve(), frame)
        for frame in traceback.extract_tb(error.__traceback__)
        if pathlib.Path(frame.filename).is_file()
    ]
    outside = [(path, frame) for path, frame in outside if not path.is_relative_to(PACKAGE)]
    found = [frame for path, frame in outside if not any(map(path.is_relative_to, INSTALLED))]
    if not found and own and outside:  # of what the package called, its own files
        found = [frame for path, frame in outside if path.parent == outside[0][0].parent]
    return f"{found[-1].filename}:{found[-1].lineno}" if found else ""


def ask_to_report(error: BaseException) -> None:
    """Adds what to do about it to the traceback of `error`, which is no wrong input.

    What the system refuses (space on a disk, memory) and what the user's own code raises is no
    mistake of this package.
    """
    if isinstance(error, OSError | MemoryError):
        return
    place = where(error)
    if place:
        error.add_note(f"This was raised in {place}, which fnas_jax called.")
        return
    error.add_note(
        "This is a mistake of fnas_jax, and not of what it was given: please report it, with all of"
        " the lines above."
    )
    folder = getattr(jax.config, "jax_compilation_cache_dir", None)
    if isinstance(error, jax.errors.JaxRuntimeError) and folder:
        error.add_note(f"If it is gone once {folder} is deleted, a compiled program was damaged.")


def told(error: BaseException, own: bool = False) -> str:
    """What `error` says in one line, with its kind and `where`."""
    place = where(error, own)
    lines = str(error.msg if isinstance(error, SyntaxError) else error).splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return f"{text} (in {place})" if place else text
