"""Commands in processes of their own, which start at once: JAX is loaded before they are forked.

Moments and patience are counted in processor time, so that a busy machine changes neither: a
process that computes is waited for, and one that does not for `IDLE` seconds hangs.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from typing import NamedTuple

import jax

from fnas_jax import __main__

# The server is a fresh process, whatever the one that asks has done with JAX.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["fnas_jax.main", "fnas_jax.retrain", "tests.soak.processes"])
IDLE = 180.0  # seconds in which a process has to compute for LEAST; locks are waited for for 60
LEAST = 0.2
MOST = 900.0  # seconds of processor time, which none of these commands takes
HANGS = "hangs"
TICK = 0.01  # seconds between two looks


class Running(NamedTuple):
    """A command that runs, and where it writes what it says."""

    process: BaseProcess
    said: pathlib.Path


class Ended(NamedTuple):
    """How a command ended."""

    code: int  # negative: the signal that ended it
    said: str  # on stdout and stderr


def keep_often() -> None:
    """A training that takes seconds is kept as often as one of hours is not."""
    from fnas_jax.core import keep
    from fnas_jax.tasks import long_batches
    from fnas_jax.training import parts

    keep.LEAST_SECONDS, parts.SECONDS, parts.APART, long_batches.SECONDS = 0.0, 0.1, 0, 0.0


def on_devices(count: int) -> None:
    """As `keep_often`, where JAX sees so many devices."""
    keep_often()
    jax.config.update("jax_num_cpu_devices", count)


def start(
    said: pathlib.Path, name: str, *arguments: str, before: Callable[[], object] = keep_often
) -> Running:
    """`fnas-jax NAME` with `arguments`; what it says goes to `said`.

    `before` is called in the process at first, and has to be picklable.
    """
    said.parent.mkdir(parents=True, exist_ok=True)
    said.unlink(missing_ok=True)
    process = CONTEXT.Process(target=_run, args=(str(said), before, name, arguments))
    process.start()
    return Running(process, said)


def spent(pid: int) -> float:
    """The processor time of a process until now, in seconds; NaN where it is gone."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return math.nan
    user, system = text.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def watch(pid: int, over: Callable[[float], bool], until: float = math.inf) -> tuple[bool, float]:
    """(whether a process ended before it had spent `until` seconds, what it spent).

    `over` waits so many seconds at most, and says whether it has ended. One that hangs is killed.
    """
    last, before, since = 0.0, 0.0, time.monotonic()
    while not over(TICK):
        now = spent(pid)
        last = last if math.isnan(now) else now
        if last >= until:
            return False, last
        if last >= before + LEAST:
            before, since = last, time.monotonic()
        if time.monotonic() - since > IDLE or last > MOST:
            os.kill(pid, signal.SIGKILL)
            raise TimeoutError(f"{HANGS} after {last:.0f} s of processor time")
    return True, last


def over(running: Running) -> Callable[[float], bool]:
    """As `watch` asks for it."""

    def ended(seconds: float) -> bool:
        running.process.join(seconds)
        return running.process.exitcode is not None

    return ended


def reached(running: Running, seconds: float) -> tuple[bool, float]:
    """(whether a command still runs that has spent `seconds`, what it spent). It may hang."""
    pid = running.process.pid
    assert pid is not None
    try:
        gone, took = watch(pid, over(running), seconds)
    except TimeoutError as error:
        with running.said.open("a") as said:
            said.write(f"\n{error}\n")
        running.process.join()
        return False, math.nan
    return not gone, took


def happens(running: Running, seen: Callable[[], bool]) -> bool:
    """Waits until something was `seen`, or a command is over; whether it was seen before.

    Raises TimeoutError of a command that hangs, which is killed.
    """
    pid, gone = running.process.pid, over(running)
    assert pid is not None
    found = [False]

    def enough(seconds: float) -> bool:
        found[0] = seen()
        return found[0] or gone(seconds)

    watch(pid, enough)
    return found[0]


def ended(running: Running) -> Ended:
    """Waits for a command. One that hangs is killed, and the last that it says is that."""
    reached(running, math.inf)
    code = running.process.exitcode
    assert code is not None
    return Ended(code, running.said.read_text() if running.said.exists() else "")


def call(said: pathlib.Path, name: str, *arguments: str) -> Ended:
    """`start`, and waits."""
    return ended(start(said, name, *arguments))


def _run(said: str, before: Callable[[], object], name: str, arguments: Sequence[str]) -> None:
    """In the process: what the command would do."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # what is started in the background heeds no Ctrl-C
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    before()
    sys.argv = ["fnas-jax", name, *arguments]
    __main__.entry()
