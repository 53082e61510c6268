"""Values that a user gives in Python, of the type that is needed."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np

from fnas_jax.core.types import UserError


def whole(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """`value`, an integer, as Python's. Raises UserError for any other, about `name`."""
    allowed = f"{least} to {most}" if most is not None else f"{least} or more"
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        number = int(value)
        if number >= least and (most is None or number <= most):
            return number
    raise UserError(f"{name} is {value!r}; allowed is an integer, {allowed}")


def truth(name: str, value: Any) -> bool:
    """`value` as Python's. Raises UserError where it is neither true nor false, about `name`."""
    if not isinstance(value, bool | np.bool_):
        raise UserError(f"{name} is {value!r}; allowed are True and False")
    return bool(value)
