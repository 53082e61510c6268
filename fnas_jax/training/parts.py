"""Trainings in parts of about two seconds, between which they are shown and kept.

Where a training is cut changes no number: what is drawn is a function of the step.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from fnas_jax.core import hosts, signals
from fnas_jax.core.keep import Keep

T = TypeVar("T")
LOG = logging.getLogger(__name__)
SECONDS = 2.0  # of a part: how often a training is shown, and could be kept
FASTER = 8  # times as many steps as the last part had, at most: the first one also compiles
GOES_ON, KEEPS, ENDS = range(3)  # what follows a part; the last, on all hosts: kept, then the end
APART = 9  # times as long as a state takes to write there is none: a tenth of the time at most


class Training(NamedTuple):
    """A training of one network or of several at once; nothing that changes."""

    name: str  # as it is kept
    of: str  # as `Keep.load` has it
    label: str  # as it is shown
    steps: int  # in all
    # (data, progress, its first step, the one after its last, an epoch's first) -> progress, which
    # it overwrites
    advance: Callable[[Any, Any, int, int, int], Any]
    host: Callable[[Any], Any] = jax.device_get  # of a progress, as it is kept
    # (progress, steps of the last part) -> what is shown beside the number of steps
    text: Callable[[Any, int], str] = lambda progress, count: ""
    quiet: float = 0.0  # seconds for which nothing is shown
    together: bool = False  # by all hosts, of which the first decides where it is cut and kept
    # Whether more steps cannot make anything of a progress, on all hosts alike: none are made
    lost: Callable[[Any], bool] = lambda progress: False
    # Whether a progress is what was asked for, on all hosts alike: no more steps are made
    over: Callable[[Any], bool] = lambda progress: False
    edges: tuple[int, ...] = ()  # steps behind which a part ends in any case, rising


class Kept(NamedTuple):
    """A training in progress, as it is kept."""

    step: int
    seconds: float  # that it has taken so far
    progress: Any


def run(training: Training, start: Kept, spans: Iterable[tuple[Any, int, int]], keep: Keep) -> Any:
    """The progress after all `spans` (data, first step, the one after the last) that are left.

    Or after fewer, where the training is `lost`, which is told.
    `start` is what was kept, with its progress on the devices, which is overwritten.
    """
    began = saved = time.monotonic()
    wait, progress, bar = keep.seconds, start.progress, None
    done, size = start.step, 1
    kept = math.isfinite(keep.seconds)  # where nothing is, to end on the way would lose all
    with contextlib.ExitStack() as stack:
        stack.callback(getattr(spans, "close", int))  # of a generator, which may read ahead
        if kept:
            stack.enter_context(signals.deferred())
        for data, first, last in spans:
            while done < last:
                edge = next((step for step in training.edges if step > done), last)
                upto = _agreed(training, min(done + size, last, edge))
                before, count = time.monotonic(), upto - done
                progress = training.advance(data, progress, done, upto, first)
                jax.block_until_ready(progress)
                now, done = time.monotonic(), upto
                if training.lost(progress):
                    LOG.warning(
                        "%s: no number is finite after %d of %d steps, and no more are made",
                        *(training.label, done, training.steps),
                    )
                    return progress
                if training.over(progress):
                    return progress
                size = steps_of_part(size, (now - before) / count)
                if bar is not None:
                    bar.show(done, f"steps of {training.label}{training.text(progress, count)}")
                elif keep.progress is not None and now - began >= training.quiet:
                    bar = keep.progress(training.steps, done, training.label)  # what was compiled
                    stack.callback(bar.close)  # is no part of the time that is left
                # The end is kept, too, for those that come after it; not where that is seconds.
                due = now - saved > wait * (0.1 if done == training.steps else 1.0)
                stops = kept and signals.asked()
                what = _agreed(training, ENDS if stops else KEEPS if due else GOES_ON)
                if what != GOES_ON:
                    state = Kept(done, start.seconds + now - began, training.host(progress))
                    keep.save(training.name, training.of, done, state)
                    saved = time.monotonic()
                    wait = max(keep.seconds, APART * (saved - now))
                if what == ENDS:
                    (hosts.end if training.together else hosts.end_if_asked)()
    return progress


def steps_of_part(size: int, seconds: float) -> int:
    """How many steps the part after one of `size` steps has, each of which took so long."""
    return min(max(1, round(SECONDS / max(seconds, 1e-9))), FASTER * size)


def timed(steps: Callable[[], T]) -> tuple[T, float]:
    """(what `steps` gives, once it is computed, and the seconds that it took)."""
    start = time.monotonic()
    found = jax.block_until_ready(steps())
    return found, time.monotonic() - start


def _agreed(training: Training, value: int) -> int:
    """The first host's `value`, where all train together."""
    return int(hosts.broadcast(np.int32(value))) if training.together else value
