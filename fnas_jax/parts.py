"""Spaces, tasks and methods of the user's own: by name, by plug-in, or as objects."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from typing import Any, NamedTuple

from fnas_jax.core import attributes, frames
from fnas_jax.core.identity import OBJECT
from fnas_jax.core.nearest import nearest
from fnas_jax.core.types import UserError
from fnas_jax.spaces.base import Space

# Groups of entry points by which packages bring parts of their own.
GROUPS = {name: f"fnas_jax.{name}s" for name in ("space", "task", "method")}


class Parts(NamedTuple):
    """Objects that stand in for what a configuration names; None: it is looked up."""

    space: Space | None = None
    # (config, space or None, knowledge) -> Task, e.g. of `tasks.from_function`
    task: Callable[..., Any] | None = None
    # (config, space, task, knowledge) -> SearchMethod, or it and an Evaluator
    method: Callable[..., Any] | None = None


def name_of(kind: str, part: Any) -> str:
    """What a configuration calls the object `part` of `kind` "space", "task" or "method"."""
    if kind == "space":
        return OBJECT + part.key
    own = getattr(part, "name", None)
    if own is None:
        part = getattr(part, "func", part)  # of a functools.partial
        named = part if hasattr(part, "__qualname__") else type(part)
        own = f"{named.__module__}:{named.__qualname__}"
    return OBJECT + own


@contextlib.contextmanager
def building(kind: str, name: str, own: bool) -> Iterator[None]:
    """Turns what is raised while the part `name` of `kind` is built into one sentence.

    Of our own parts, that is what the user's code raises that they call; of the user's `own`,
    whatever they raise. Everything else but a UserError is a bug.
    """
    try:
        yield
    except Exception as error:
        place = frames.where(error, own)
        if isinstance(error, UserError):
            if not place:
                raise
            raise UserError(f"{error} (in {place})") from error
        if own or place:
            told = frames.told(error, own)
            raise UserError(f"{kind}.name is {name!r}, which raised {told}") from error
        raise


def find(kind: str, name: str, own: Any, known: Iterable[str] = ()) -> Any:
    """The part `name` of `kind`: `own` where it is that object, a MODULE:ATTRIBUTE or a plug-in.

    Raises UserError where it is none of these, naming `known` ones, too.
    """
    key = f"{kind}.name"
    if name.startswith(OBJECT):
        if own is None:
            raise UserError(
                f"{key} is {name!r}, which was an object in Python: give it again to"
                f" fnas_jax.resume(workdir, {kind}=..), which goes on with the search; of a"
                " finished one, what it returns has retrain() and export()"
            )
        if name_of(kind, own) != name:
            raise UserError(f"this {kind} is not the one that the search began with ({name})")
        return own
    module, colon, attribute = name.removeprefix("python:").partition(":")
    if colon:
        return attributes.find(key, name, module, attribute)
    plugins = {entry.name: entry for entry in metadata.entry_points(group=GROUPS[kind])}
    if name in plugins:
        try:
            return plugins[name].load()
        except Exception as error:  # whatever that package raises
            raise UserError(
                f"{key} is {name!r}, a plug-in that cannot be loaded: {frames.told(error, True)}"
            ) from error
    allowed = [*known, *plugins]
    near = nearest(name, allowed)
    raise UserError(
        f"{key} is {name!r}; allowed are {', '.join(allowed)} or MODULE:ATTRIBUTE{near}"
    )
