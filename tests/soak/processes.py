"""Commands in processes of their own, which start at once: JAX is loaded before they are forked."""

from __future__ import annotations

import multiprocessing
import os
import pathlib
import sys
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from typing import NamedTuple

from fnas_jax import __main__

# The server is a fresh process, whatever the one that asks has done with JAX.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["fnas_jax.main", "fnas_jax.retrain", "tests.soak.processes"])
PATIENCE = 600.0  # seconds after which a command hangs


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


def start(said: pathlib.Path, name: str, *arguments: str) -> Running:
    """`fnas-jax NAME` with `arguments`; what it says goes to the end of `said`."""
    process = CONTEXT.Process(target=_run, args=(str(said), name, arguments))
    process.start()
    return Running(process, said)


def ended(running: Running) -> Ended:
    """Waits for a command. One that hangs is killed."""
    running.process.join(PATIENCE)
    if running.process.exitcode is None:
        running.process.kill()
        running.process.join()
    code = running.process.exitcode
    return Ended(1 if code is None else code, running.said.read_text())


def call(said: pathlib.Path, name: str, *arguments: str) -> Ended:
    """`start`, and waits."""
    said.unlink(missing_ok=True)
    return ended(start(said, name, *arguments))


def _run(said: str, name: str, arguments: Sequence[str]) -> None:
    """In the process: what the command would do."""
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    keep_often()
    sys.exit(__main__.main([name, *arguments]))
