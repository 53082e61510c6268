"""What a run writes while it goes: metrics.jsonl, and TensorBoard's events beside it.

A line of metrics.jsonl is one step: {"step": 3, "trained": 24, ..}, numbers finite or null. A
run that resumes at step k first drops every line of a step >= k, so that each step stands once.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fnas_jax.core import disk, jsons
from fnas_jax.core.tensorboard import Events, numbers
from fnas_jax.core.tracking import NOWHERE, Tracked

BLOCK = 64 * 1024  # bytes of a file that are read at once, from its end
SHOWN = ("search/best_accuracy", "search/best_reward", "winner/accuracy")  # beside settings


def finite(value: Any) -> Any:
    """`value` for JSON: arrays become lists, NaN and infinities None, at any depth."""
    if isinstance(value, Mapping):
        return {str(name): finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    if hasattr(value, "tolist"):  # numpy and JAX arrays and scalars
        return finite(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes `value` as JSON in one step: a reader sees the old file or the new one."""
    with disk.replacing(path) as file:
        json.dump(finite(value), file, indent=2, allow_nan=False)
        file.write("\n")


def metric_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, [] where there is none; what is no line of a step is left out.

    As the last one may be, which a killed process has torn, or which is still being written.
    """
    return [*_steps(path.read_bytes().split(b"\n") if path.is_file() else ())]


def from_the_end(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """As `metric_lines`, the last line first; the file is read as far as lines are asked for."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        place, begun = file.seek(0, os.SEEK_END), b""
        while place:
            size = min(BLOCK, place)
            place -= size
            file.seek(place)
            begun, *whole = (file.read(size) + begun).split(b"\n")
            yield from _steps(reversed(whole))
    yield from _steps([begun])


def is_iteration(line: Mapping[str, Any]) -> bool:
    """Whether a line is of an iteration of the search; stages before it may count theirs, too."""
    return "iteration" in line and "stage" not in line


def _steps(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            known = jsons.parse(line)
        except ValueError:
            continue
        if isinstance(known, dict) and _whole(known.get("step")):
            yield known


def _whole(number: Any) -> bool:
    return type(number) is int and number >= 0


def truncate_metrics(path: pathlib.Path, step: int) -> int:
    """Drops the lines of `path` whose step is `step` or later, and damaged ones; how many stay."""
    kept = [json.dumps(line) + "\n" for line in metric_lines(path) if line["step"] < step]
    if path.exists():
        with disk.replacing(path) as file:
            file.writelines(kept)
    return len(kept)


def last_line(path: pathlib.Path) -> dict[str, Any]:
    """The last line of an iteration in a metrics.jsonl; empty where there is none."""
    for known in from_the_end(path):
        if is_iteration(known) and _whole(known.get("proposed")):
            return known
    return {}


def known(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are known, for JSON."""
    return {tag: value for tag, value in finite(figures).items() if value is not None}


def send_again(path: pathlib.Path, tracked: Tracked) -> None:
    """The lines of a metrics.jsonl, to services that lack what an earlier process had to send."""
    for line in metric_lines(path) if tracked.senders else ():
        tracked.again(line["step"], numbers(line))


class MetricLog:
    """Appends to metrics.jsonl of `workdir`, and to what else a search is logged to."""

    def __init__(
        self,
        workdir: pathlib.Path,
        first_step: int,
        tensorboard: bool,
        tracked: Tracked = NOWHERE,
    ):
        """Raises `disk.Refused`, as all of it does, where the disk does not take what is told."""
        self._path, events = workdir / "metrics.jsonl", workdir / "tensorboard"
        self._tracked, self._first = tracked, first_step
        with disk.at(self._path):
            self.lines = truncate_metrics(self._path, first_step)  # in the file
            self._file = self._path.open("a", encoding="utf-8")
            self._events = None
            if tensorboard:
                # TensorBoard forgets what a killed process wrote from there on.
                purged = first_step if events.exists() else None
                self._events = Events(events, purged)
        send_again(self._path, tracked)

    def settings(self, values: Mapping[str, Any]) -> None:
        """The configuration, beside which TensorBoard shows how good the best is."""
        if self._events is not None:
            with disk.at(self._path):
                self._events.settings(values, SHOWN, self._first)
                self._events.flush()

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        """One line, safe from a crash of this process on return."""
        line = finite({"step": step} | dict(scalars))
        told = numbers(line)
        with disk.at(self._path):
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
            self._file.flush()
            self.lines += 1
            if self._events is not None:
                for tag, value in told.items():
                    self._events.add(tag, value, step)
                self._events.flush()
        self._tracked.log(step, told)

    def finish(
        self, step: int, text: str, figures: Mapping[str, Any], paths: Sequence[pathlib.Path]
    ) -> None:
        """The end of a search: its summary, figures by their tags, and files that are its result.

        Texts among the figures, and those that are unknown, are no scalars.
        """
        told = known(figures)
        if self._events is not None:
            with disk.at(self._path):
                for tag, value in told.items():
                    if not isinstance(value, str):
                        self._events.add(tag, value, step)
                self._events.text("summary", text, step)
                self._events.flush()
        self._tracked.keep(told, paths)

    def close(self) -> None:
        """Closes the files."""
        with disk.at(self._path), contextlib.ExitStack() as files:
            if self._events is not None:
                files.callback(self._events.close)
            files.callback(self._file.close)
