"""The same space with wider or narrower networks."""

from __future__ import annotations

from typing import Any

from fnas_jax.spaces import base, cell, layered, mnas


def widen(space: base.Space, width: float) -> base.Space:
    """The space with all channel numbers multiplied by `width` and rounded to multiples of 8.

    Decisions keep their meaning; 1.0 changes nothing. Raises ValueError for a space without
    networks.
    """
    if width == 1.0:
        return space
    spec = space.spec
    if {"stem", "head", "channels"} <= set(getattr(spec, "_fields", ())):
        stem, head, channels = (_wide(n, width) for n in (spec.stem, spec.head, spec.channels))
        return space._replace(spec=spec._replace(stem=stem, head=head, channels=channels))
    if isinstance(spec, cell.CellSpec):
        return space._replace(spec=spec._replace(channels=_wide(spec.channels, width)))
    if isinstance(spec, layered.LayeredSpec):
        stages = tuple(s._replace(width=_wide(s.width, width)) for s in layered.stages_of(spec))
        stem, head = _wide(spec.stem, width), _wide(spec.head, width)
        return space._replace(spec=spec._replace(stem=stem, head=head, stages=stages))
    raise ValueError(f"the space {space.name!r} has no networks")


def _wide(value: Any, width: float) -> Any:
    if isinstance(value, tuple):
        return tuple(_wide(v, width) for v in value)
    return mnas.round_channels(value * width) if value else 0
