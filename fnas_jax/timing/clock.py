"""Milliseconds of compiled programs, on machines that do other work, too."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from fnas_jax.core import devices
from fnas_jax.core.types import UserError

WARM_UP = 3  # calls before the clock starts
PASSES = 3  # of a program, one after another, of which the median counts
MOST_S = 0.2  # are spent on these; a slow program has fewer
ROUNDS = 12  # of all programs of a table: so many, and more until `settled`
MOST_ROUNDS = 60
QUIET = 0.1  # quantile of the rounds that is taken for undisturbed
SHARE, CHANGE = 0.9, 0.02  # settled: so many programs have changed by less, in the last third

Call = Callable[[], Any]


def compiled(function: Callable[..., Any], args: tuple[Any, ...]) -> Call:
    """A call of `function` with `args` on JAX's default device, compiled, that is waited for."""
    args = jax.device_put(args)
    run = jax.jit(function).lower(*args).compile()
    return lambda: jax.block_until_ready(run(*args))


@contextlib.contextmanager
def enough_memory(batch: int) -> Iterator[None]:
    """Raises UserError where the device's memory does not hold what is timed within.

    `batch` is the number of images of a pass.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"the memory of {devices.describe()} does not hold what is timed with {batch} images a"
            " pass; latency.batch_size says how many"
        ) from error


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

    Of each PASSES of them counts the median, of these the QUIET quantile.
    """
    rounds = np.array_split(ms, max(1, len(ms) // PASSES))
    return float(np.quantile([np.median(part) for part in rounds], QUIET))


def interleaved(calls: Sequence[Call], tell: Callable[[int], object]) -> np.ndarray:
    """[P] milliseconds of P programs, comparable though the machine is now busy and now not.

    All are run in every round; of a round counts the median of its passes, of all rounds the QUIET
    quantile, since other work only ever adds. On a busy machine there are more rounds. `tell` hears
    how many are done.
    """
    found = np.empty((len(calls), MOST_ROUNDS))
    for r in range(MOST_ROUNDS):
        for i, call in enumerate(calls):
            if r == 0:
                warm_up(call)
            first = readings(call, 1)[0]
            more = min(PASSES - 1, int(MOST_S * 1e3 / first))
            found[i, r] = np.median([first, *readings(call, more)])
        tell(r + 1)
        if r + 1 >= ROUNDS and settled(found[:, : r + 1]):
            break
    return np.quantile(found[:, : r + 1], QUIET, axis=1)


def settled(found: np.ndarray) -> bool:
    """Whether more rounds would hardly change what the readings [P, rounds] come to."""
    before = np.quantile(found[:, : found.shape[1] * 2 // 3], QUIET, axis=1)
    change = np.abs(1 - np.quantile(found, QUIET, axis=1) / before)
    return float(np.quantile(change, SHARE)) < CHANGE
