"""Who wins a search: the best second reading of its finalists, where the evaluator holds finals."""

from __future__ import annotations

import jax
import numpy as np

from fnas_jax.core.clock import Clock
from fnas_jax.iteration import FINALISTS, State
from fnas_jax.tasks.base import Evaluator, Finals


def hold(evaluator: Evaluator, state: State, key: jax.Array, clock: Clock) -> Finals | None:
    """The finals after the search that ended in `state`; None: the first readings decide.

    `key` is the run's. A function of both alone, so that a run killed in between repeats it.
    """
    held = evaluator.hooks.finals
    if held is None:
        return None
    with clock.part("children"):
        return held(state.evaluator, jax.random.fold_in(key, FINALISTS))


def place(finals: Finals | None) -> int | None:
    """Of the winner among the finalists: best second reading, of equals the best first one.

    None where no finalist has a second reading.
    """
    if finals is None or not finals.ok.any():
        return None
    return int(np.argmax(np.where(finals.ok, finals.reward, -np.inf)))


def decide(state: State, finals: Finals | None) -> State:
    """`state` with the winner of the finals as its best, and its second reading as the figures."""
    i = place(finals)
    if finals is None or i is None:
        return state
    costs = (finals.first.latency_ms, finals.first.mflops, finals.first.params_m)
    figures = [float(x[i]) for x in (finals.accuracy, finals.reward, *costs)]
    return state._replace(best_arch=np.asarray(finals.archs[i], np.int32), best=np.array(figures))


def line(finals: Finals) -> str:
    """What they came to, for the terminal."""
    i, k = place(finals), len(finals.ok)
    if i is None:
        return f"finals: none of the {k} best gave a result again; the first readings decide"
    failed = k - int(finals.ok.sum())
    lost = f"; {failed} failed" if failed else ""
    return (
        f"finals: the {k} best trained again on equal terms; number {i + 1} of the first readings"
        f" wins with reward {finals.reward[i]:.4f} (at first {finals.first.reward[i]:.4f}){lost}"
    )
