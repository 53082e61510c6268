"""A space's spec, all of it that networks depend on, in architecture.json.

So a network can be rebuilt where its space is the user's own, or made by other options since.
"""

from __future__ import annotations

from typing import Any

from fnas_jax.core.types import UserError
from fnas_jax.networks import mobile_spaces
from fnas_jax.spaces import cells

SPECS: dict[str, Any] = {kind.__name__: kind for kind in (*mobile_spaces.MODULES, *cells.SPECS)}


def described(spec: Any) -> dict[str, Any]:
    """`spec` as architecture.json has it; the inverse of `parse`."""
    return {"spec": type(spec).__name__, "options": spec._asdict()}


def parse(entry: dict[str, Any]) -> Any:
    """The inverse of `described`. Raises KeyError or TypeError for anything else.

    And UserError where a version has written it that named no spec, before the first release.
    """
    if "spec" not in entry and "key" in entry:
        raise UserError(
            "the network was kept by an early version of fnas_jax, which did not write down all of"
            " its space: use that version, or train the winner again with fnas_jax.retrain"
        )
    options = {name: _tuples(value) for name, value in entry["options"].items()}
    return SPECS[entry["spec"]](**options)


def _tuples(value: Any) -> Any:
    """Lists of JSON as the tuples that they were."""
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
