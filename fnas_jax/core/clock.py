"""Where a run's time goes: total, compile, children, method, disk."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jax import monitoring

# Tracing, lowering and compiling, as JAX reports them; tracing nests, so only its outermost part
# would be right, and it is left to the part of the run that it happens in.
COMPILE_EVENTS = (
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)
PARTS = ("total", "compile", "children", "method")  # which checkpoints keep
SHOWN = (*PARTS, "disk")


class Clock:
    """Seconds per part of SHOWN; none but `compile` contains the compilation within it."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(SHOWN, 0.0)
        self._earlier = 0.0  # total of earlier processes
        self._start = time.monotonic()
        _listen()
        _RUNNING.append(self)

    def compiled(self, seconds: float) -> None:
        """Counts a compilation."""
        self._seconds["compile"] += seconds

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds the time spent inside, compilation aside, to `name`."""
        start, compile_ = time.monotonic(), self._seconds["compile"]
        try:
            yield
        finally:
            compiled = self._seconds["compile"] - compile_
            self._seconds[name] += max(time.monotonic() - start - compiled, 0.0)

    def seconds(self) -> dict[str, float]:
        """The seconds so far, those of earlier processes of the run included."""
        return self._seconds | {"total": self._earlier + time.monotonic() - self._start}

    def kept(self) -> dict[str, float]:
        """Those of PARTS."""
        seconds = self.seconds()
        return {name: seconds[name] for name in PARTS}

    def resume(self, seconds: dict[str, float]) -> None:
        """Adds what earlier processes of the run have spent; what is not told of, nothing."""
        for name in SHOWN[1:]:
            self._seconds[name] += seconds.get(name, 0.0)
        self._earlier += seconds["total"]

    def close(self) -> None:
        """Counts no more compilations."""
        _RUNNING.remove(self)


_RUNNING: list[Clock] = []


@functools.cache  # once for all clocks: earlier versions of JAX know no way to stop listening
def _listen() -> None:
    monitoring.register_event_duration_secs_listener(_heard)


def _heard(event: str, duration_secs: float, **_: Any) -> None:
    if event in COMPILE_EVENTS:
        for clock in _RUNNING:
            clock.compiled(duration_secs)
