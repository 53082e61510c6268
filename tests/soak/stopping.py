"""What is promised of a command that a signal ends."""

from __future__ import annotations

import signal

from fnas_jax.core import signals
from tests.soak.processes import Ended

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
PROMISED = "ended as promised"
FINISHED = "finished before"
EARLY = "before the interpreter had a handler"  # and so before it said anything
SAYS = (signals.GOES_ON, signals.AGAIN)
SOON = 1.0  # seconds of processor time after which a command that is told to end is not at its end


def judged(kind: signal.Signals, ended: Ended, after: float) -> str:
    """How a command `ended` that was sent `kind`, and spent `after` seconds after that."""
    lines = ended.said.strip().splitlines() or [""]
    if ended.code == 0:
        return FINISHED if not after > SOON else "WRONG: swallowed"
    if ended.code == -kind and not ended.said.strip():
        return EARLY
    if "Traceback" in ended.said:
        return f"WRONG: traceback of {lines[-1][:80]}"
    if ended.code != CODES[kind] or not lines[-1].endswith(SAYS):
        return f"WRONG: exit {ended.code}: {lines[-1][-200:]}"
    return PROMISED
