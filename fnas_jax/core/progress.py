"""How far something is, on a terminal, in a notebook or in a file of lines."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import TextIO

from tqdm.auto import tqdm

from fnas_jax.core import pace, signals, stages

# tqdm's own without rate and rest, which it reckons with compilation in them.
BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"


def in_notebook(bar: type) -> bool:
    """Whether `bar`, what tqdm.auto has chosen, is a widget: in Jupyter, with ipywidgets."""
    return any(kind.__module__ == "tqdm.notebook" for kind in bar.__mro__)


class Progress:
    """A bar with the best so far and the time left on a terminal or in a notebook.

    Elsewhere it is a line per call, or one in `every` seconds and the last. Time that is limited
    may be over before the total is reached: `remaining` seconds, asked at each line. `compiling`:
    seconds so far that were spent on compilation, which says nothing of the rest. Raises OSError
    where nobody reads it, but for the end of a command that a signal ends.
    """

    def __init__(
        self,
        total: int,
        done: int,
        label: str,
        stream: TextIO | None = None,
        every: float = 0.0,
        remaining: Callable[[], float] = lambda: math.inf,
        compiling: Callable[[], float] = lambda: 0.0,
    ):
        self._remaining, self._compiling = remaining, compiling
        self._stream = sys.stderr if stream is None else stream
        self._total, self._done, self._label = total, done, label
        self._every, self._shown = every, time.monotonic()
        self._marks = [pace.Mark(self._shown, done, compiling())]
        self._bar = None
        # A notebook's stream is no terminal, and tqdm draws a widget there, on no other stream.
        if self._stream.isatty() or (self._stream is sys.stderr and in_notebook(tqdm)):
            self._bar = tqdm(
                total=total,
                initial=min(done, total),
                desc=label,
                file=self._stream,
                bar_format=BAR,
                dynamic_ncols=True,
            )
        stages.attach(self)

    def begin(self) -> None:
        """What was done before says nothing of how fast the rest goes."""
        self._marks = [pace.Mark(time.monotonic(), self._done, self._compiling())]

    def left(self, now: float) -> float:
        """Seconds from `now` on (`time.monotonic`) until all is done, or the time is over.

        Infinite where nothing says so.
        """
        rest = pace.left(self._marks, self._total) - (now - self._marks[-1].seconds)
        return min(max(rest, 0.0), self._remaining())

    @signals.parting()
    def show(self, done: int, text: str) -> None:
        """`done` of the total, and what to say about it."""
        now, self._done = time.monotonic(), min(done, self._total)
        mark = pace.Mark(now, done, self._compiling())
        self._marks = [*self._marks, mark][-pace.MOST :]
        left = self.left(now) if self._done < self._total else math.inf
        rest = f"{pace.text(left)} left" if math.isfinite(left) else ""
        stages.told(self._label, self._done, self._total, left, text)
        if self._bar is not None:
            # The rest first: tqdm cuts off what is too long for the terminal.
            self._bar.set_postfix_str(f"{rest}, {text}" if rest else text, refresh=False)
            self._bar.update(self._done - self._bar.n)
            return
        if now - self._shown < self._every and self._done < self._total:
            return
        self._shown = now
        stages.heard()
        rest = f", {rest}" if rest else ""
        print(f"{self._done}/{self._total} {text}{rest}", file=self._stream, flush=True)

    @signals.parting()
    def say(self, text: str) -> None:
        """A line of its own, above the bar if there is one."""
        stages.heard()
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def move(self, stage: str) -> bool:
        """Draws the bar anew, whose clock goes on, as that of `stage`.

        Named after the bar, "LABEL" or "LABEL: ..", it is what the bar shows. False where there is
        none, or it is full.
        """
        if self._bar is None or self._done >= self._total:
            return False
        own = stage.partition(":")[0] in ("search", self._label)
        label = self._label if own else f"{self._label}, {stage}"
        self._bar.set_description_str(label)
        return True

    @signals.parting()
    def close(self) -> None:
        """Leaves the bar as it stands."""
        stages.detach(self)
        if self._bar is not None:
            self._bar.close()
