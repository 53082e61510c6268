"""Makes a table of latencies on this device, and judges it by networks that it has not seen."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from fnas_jax.core.progress import Progress
from fnas_jax.core.types import UserError
from fnas_jax.spaces.base import Space, distinct
from fnas_jax.timing import clock, fit, lookup, operations, table, units, whole
from fnas_jax.timing.table import Table
from fnas_jax.timing.units import Unit
from fnas_jax.timing.whole import Images

FEWEST = 4  # networks, half of them to judge by
_TRIED = 3  # programs of a kind by which the time is estimated

Held = dict[tuple[tuple[int, ...], np.dtype], Any]  # arguments by shape and type
# A function and its arguments, which are zeros
Program = Callable[[], tuple[Callable[..., Any], tuple[Any, ...]]]


def make(
    space: Space,
    images: Images,
    batch: int,
    networks: int,
    say: Callable[[str], object],
) -> Table:
    """The table of `space` for batches of `batch` images, on JAX's default device.

    Every operation is timed by itself, and `networks` random networks whole, by which the times of
    operations are fitted (`fit.fit`); `networks` others say how well it predicts. All are timed in
    turn. `say` is told what is going to be done, and how long it will take. Raises UserError for a
    space with too few networks, and where memory does not suffice.
    """
    classes = units.of_images(images.classes)
    rows = lookup.of_space(space, images.shape, classes)
    archs = chosen(space, 2 * networks)
    half = len(archs) // 2
    consists = [units.of_network(space, arch, images.shape, classes) for arch in archs]
    single: list[Program] = [operations.nothing]
    single += [functools.partial(operations.program, unit, batch) for unit in rows]
    entire = [functools.partial(whole.program, space, arch, images, batch) for arch in archs]
    say(f"{len(rows)} operations, {half} networks to fit and {len(archs) - half} to judge by")
    with clock.enough_memory(batch):
        ms = timed((single, entire), say)
    call, alone = ms[0], (ms[1 : len(single)] - ms[0]) / operations.CHAIN
    measured = ms[len(single) :]
    own = dict(zip(rows, np.maximum(alone, 0.0).tolist(), strict=True))
    found = fit.fit(own, consists[:half], measured[:half], float(call))
    return Table(
        **table.here(space, images.shape, classes, batch),
        fixed_ms=found.fixed,
        operations_ms={unit.key: value for unit, value in found.units.items()},
        made={
            "networks": half,
            "passes": clock.PASSES,
            "statistic": f"quantile {clock.QUIET} of the medians of the passes of each round",
        },
        validation=judged(space, archs[half:], consists[half:], measured[half:], found),
    )


def chosen(space: Space, count: int) -> np.ndarray:
    """[count, T] distinct random networks in canonical form; all where there are no more."""
    archs = distinct(space, jax.random.key(1), 8 * count)
    if len(archs) < FEWEST:
        raise UserError(
            f"the space {space.name!r} has {len(archs)} networks; a table of latencies is made and"
            f" judged by {FEWEST} or more"
        )
    return archs[:count]


def timed(kinds: Sequence[Sequence[Program]], say: Callable[[str], object]) -> np.ndarray:
    """[P] milliseconds of all programs of all kinds, compiled and then timed in turn."""
    programs = [program for kind in kinds for program in kind]
    # The median, because the very first program takes longer.
    expected = sum(np.median([trial(p) for p in some(kind)]) * len(kind) for kind in kinds)
    say(f"about {max(1, round(expected / 60))} min")
    compiling = Progress(len(programs), 0, "compiled")
    held: Held = {}
    calls = [shared(program, held) for program in shown(programs, compiling)]
    compiling.close()
    timing = Progress(clock.MOST_ROUNDS, 0, "rounds timed")
    found = clock.interleaved(calls, functools.partial(tell_round, timing))
    timing.close()
    return found


def shared(program: Program, held: Held) -> clock.Call:
    """The compiled call of `program`, whose arguments are `held` by all programs together.

    They are zeros, which nobody writes to. Of the 737 operations of MnasNet at 224x224 with 32
    images, arguments of their own would take 19 GiB, and these take 1.5.
    """
    function, args = program()
    own = (held.setdefault((x.shape, x.dtype), x) for x in args)
    return clock.compiled(function, tuple(own))


def tell_round(progress: Progress, done: int) -> None:
    """Shows every fourth of them, of at most so many."""
    if done % 4 == 0:
        progress.show(done, "rounds timed, fewer where the machine is not busy")


def some(programs: Sequence[Program]) -> list[Program]:
    """A few of them, small and large ones."""
    return [programs[i] for i in np.linspace(0, len(programs) - 1, _TRIED).round().astype(int)]


def trial(program: Program) -> float:
    """Seconds that a program takes, from compilation to its last round."""
    start = time.monotonic()
    call = clock.compiled(*program())
    call()
    compilation = time.monotonic() - start
    once = clock.readings(call, 1)[0] / 1e3
    passes = max(once, min(clock.PASSES * once, clock.MOST_S))
    return compilation + clock.ROUNDS * passes


def shown(programs: Sequence[Program], progress: Progress) -> Iterator[Program]:
    """`programs`, one by one; every tenth part of them is told."""
    every = max(1, len(programs) // 10)
    for done, program in enumerate(programs, start=1):
        yield program
        if done % every == 0 or done == len(programs):
            progress.show(done, "programs compiled")


def judged(
    space: Space,
    archs: np.ndarray,
    consists: Sequence[Sequence[Unit]],
    measured: np.ndarray,
    prediction: fit.Prediction,
) -> dict[str, Any]:
    """What the table says of networks [V] that it was not made with, and what the clock says."""
    predicted = np.asarray([fit.total(prediction, network) for network in consists])
    return {
        "networks": len(archs),
        **fit.quality(predicted, measured)._asdict(),
        "texts": [space.describe(arch)["text"] for arch in archs],
        "measured_ms": measured.tolist(),
        "predicted_ms": predicted.tolist(),
    }
