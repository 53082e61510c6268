"""Milliseconds of compiled programs, on machines that do other work, too."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

WARM_UP = 3  # calls before the clock starts
ROUNDS = 12  # of a table
PASSES = 5  # of a program in a round
MOST_S = 0.2  # of a round are spent on a program; a slow one has fewer passes

Call = Callable[[], Any]


def compiled(function: Callable[..., Any], args: tuple[Any, ...]) -> Call:
    """A call of `function` with `args` on JAX's default device, compiled, that is waited for."""
    args = jax.device_put(args)
    run = jax.jit(function).lower(*args).compile()
    return lambda: jax.block_until_ready(run(*args))


def readings(call: Call, passes: int) -> np.ndarray:
    """[passes] milliseconds of calls, one after another."""
    spent = np.empty(passes)
    for i in range(passes):
        start = time.perf_counter()
        call()
        spent[i] = time.perf_counter() - start
    return spent * 1e3


def warm_up(call: Call) -> None:
    """Runs it until first calls are over."""
    for _ in range(WARM_UP):
        call()


def undisturbed(ms: np.ndarray) -> float:
    """The same of one program that was run alone: passes [n], one after another, n >= 1.

    Of each PASSES of them counts the median, of all the least of these.
    """
    rounds = np.array_split(ms, max(1, len(ms) // PASSES))
    return float(min(np.median(part) for part in rounds))


def interleaved(
    calls: Sequence[Call],
    rounds: int,
    passes: int,
    tell: Callable[[int], object],
) -> np.ndarray:
    """[P] milliseconds of P programs, comparable though the machine is now busy and now not.

    All are run in every round; of a round counts the median of its passes, of all rounds the least
    of these, since other work only ever adds. `tell` hears how many rounds are done.
    """
    found = np.empty((len(calls), rounds))
    for r in range(rounds):
        for i, call in enumerate(calls):
            if r == 0:
                warm_up(call)
            first = readings(call, 1)[0]
            more = min(passes - 1, int(MOST_S * 1e3 / first))
            found[i, r] = np.median([first, *readings(call, more)])
        tell(r + 1)
    return found.min(axis=1)
