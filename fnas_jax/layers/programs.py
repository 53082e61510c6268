"""What a program costs."""

from __future__ import annotations

import itertools
import math
from typing import Any


def multiply_adds(jaxpr: Any) -> int:
    """Multiply-adds of the convolutions and products of a jaxpr.

    Of the branches of a `cond` the dearest counts. Nobody knows how often a `while` loop runs: it
    counts once.
    """
    total = 0
    for step in jaxpr.eqns:
        given, made = step.invars, step.outvars[0].aval.shape
        if step.primitive.name == "conv_general_dilated":
            numbers = step.params["dimension_numbers"].rhs_spec
            weights = given[1].aval.shape
            total += math.prod(made) * math.prod(weights) // weights[numbers[0]]
        elif step.primitive.name == "dot_general":
            ((contracted, _), _) = step.params["dimension_numbers"]
            total += math.prod(made) * math.prod(given[0].aval.shape[i] for i in contracted)
        values = [v if isinstance(v, tuple | list) else (v,) for v in step.params.values()]
        inner = [getattr(p, "jaxpr", p) for p in itertools.chain(*values)]
        nested = [multiply_adds(p) for p in inner if hasattr(p, "eqns")]
        found = max(nested) if step.primitive.name == "cond" else sum(nested)
        total += found * step.params.get("length", 1)  # of a scan
    return total
