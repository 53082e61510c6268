"""The same space with wider or narrower networks."""

from __future__ import annotations

import functools
from typing import Any

from fnas_jax.spaces import base, cells, layered, mnas

CHANNELS = 8  # numbers of channels are multiples of it, as those of MobileNets
_WIDTHS = ("stem", "head", "channels", "mix")  # fields of specs


def widen(space: base.Space, width: float, multiple: int = CHANNELS) -> base.Space:
    """The space with all channel numbers multiplied by `width` and rounded to such multiples.

    Decisions keep their meaning; 1.0 changes nothing. Raises ValueError for a space without
    networks.
    """
    if width == 1.0:
        return space
    spec, wide = space.spec, functools.partial(_wide, width, multiple)
    if {"stem", "head", "channels"} <= set(getattr(spec, "_fields", ())):
        found = {name: wide(getattr(spec, name)) for name in _WIDTHS if name in spec._fields}
        return space._replace(spec=spec._replace(**found))
    if isinstance(spec, cells.SPECS):
        return space._replace(spec=spec._replace(channels=wide(spec.channels)))
    if isinstance(spec, layered.LayeredSpec):
        stages = tuple(s._replace(width=wide(s.width)) for s in layered.stages_of(spec))
        stem, head = wide(spec.stem), wide(spec.head)
        return space._replace(spec=spec._replace(stem=stem, head=head, stages=stages))
    raise ValueError(f"the space {space.name!r} has no networks")


def _wide(width: float, multiple: int, value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_wide(width, multiple, v) for v in value)
    return mnas.round_channels(value * width, multiple) if value else 0
