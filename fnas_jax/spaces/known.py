"""Spaces by what histories say of them, which is all of a space but its functions."""

from __future__ import annotations

import json
from collections.abc import Callable

from fnas_jax.core.types import UserError
from fnas_jax.spaces import categorical, cell, macro, mixed_cell, mixed_chain, mnas, mobilenetv3
from fnas_jax.spaces.base import Space


def alike(identity: str) -> Space | None:
    """A space whose decisions have the same words as that of this `identity`; None: unknown.

    It has the `spec` of its networks where that is the same, too, and none otherwise.
    """
    said = json.loads(identity or "{}")
    if "choices" in said:
        options = dict(zip(said["names"], said["choices"], strict=True))
        return categorical.choices(options, said["name"])
    stacks = len({name.partition("/")[0] for name in said.get("names", ())})
    makers: dict[str, Callable[[], Space]] = {
        "mnas": lambda: mnas.make(stacks),
        "mobilenetv3": lambda: mobilenetv3.make(stacks),
        "macro": macro.make,
        "cell": cell.make,
        "mixed_cell": mixed_cell.make,
        "mixed_chain": mixed_chain.make,
    }
    if said.get("name") not in makers:
        return None
    try:
        found = makers[said["name"]]()
    except UserError:  # a later version may have more of them
        return None
    if (list(found.names), list(found.cardinalities)) != (said["names"], said["cardinalities"]):
        return None
    return found if found.identity == identity else found._replace(spec=None)
