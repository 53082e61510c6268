"""How objectives are tested: their figures of outputs that come in batches."""

import jax
import numpy as np


def state_of(objective, outputs, targets, batch=7):
    """What `objective` keeps of all outputs [n, ..], given in batches, the last one padded."""
    n = len(outputs)
    state = objective.empty(n)
    collect = jax.jit(objective.collect)
    for start in range(0, n, batch):
        rows = start + np.arange(batch)
        counted, rows = rows < n, np.minimum(rows, n - 1)
        given = np.asarray(outputs)[rows], np.asarray(targets)[rows]
        state = collect(state, *given, rows, counted)
    return state


def figures_of(objective, outputs, targets, batch=7):
    """{metric: float} of all outputs [n, ..]."""
    found = jax.jit(objective.figures)(state_of(objective, outputs, targets, batch))
    return {name: float(value) for name, value in found.items()}
