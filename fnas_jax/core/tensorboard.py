"""Scalars, settings and texts for TensorBoard, written where they are told of.

tensorboardX's own writer has a thread for that, in which an error of a full disk would be lost, and
those that wait for it would wait for ever.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Iterable, Mapping
from typing import Any

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

# Which group a number of metrics.jsonl is shown in; names with a group of their own keep it.
GROUPS = {
    "search": "iteration new trained predicted failed proposed over_limit best_accuracy best_reward"
    " replayed trained_now predicted_now samples stable simulated_seconds",
    "children": "accuracy reward children stopped steps_saved",
    "policy": "entropy kl kl_last clip_fraction ess loss log_q imagined imagined_kl",
    "critic": "agreement calibration calibration_explored checked coverage coverage_explored"
    " covered explored for_exploration for_uncertainty for_verification for_warmup for_acquisition"
    " foreign_rows mae mae_explored tau trust uncertainty",
}
_GROUP = {name: group for group, names in GROUPS.items() for name in names.split()}
# Settings that tell searches apart: TensorBoard shows the first five unless it is asked for others.
FIRST = ("task.name", "method.name", "space.name", "search.budget", "seed")
PREPARE = "prepare"  # the group of what stages before the loop say
OTHERS = "method"  # that of names that methods of other people's have


def tag(name: str, stage: str = "") -> str:
    """The name of a number of metrics.jsonl with its group: "search/trained", "time/compile", ..

    `stage`: of the line that has it, "" for an iteration.
    """
    if name.startswith("seconds/"):
        return f"time/{name.partition('/')[2]}"
    if stage:
        return f"{PREPARE}/{name}"
    return name if "/" in name else f"{_GROUP.get(name, OTHERS)}/{name}"


def numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers in a line of metrics.jsonl by their tags, without its step."""
    stage = str(line.get("stage", ""))
    return {
        tag(name, stage): value
        for name, value in line.items()
        if name != "step" and type(value) in (int, float)
    }


class Events:
    """A file of events in `folder`, which is created where it is missing. Raises OSError."""

    def __init__(self, folder: pathlib.Path, purge_step: int | None):
        """`purge_step`: from where on TensorBoard forgets what was told before; None: nowhere."""
        folder.mkdir(parents=True, exist_ok=True)
        # The suffix keeps two files of one second apart, which would overwrite each other.
        self._writer = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        if purge_step is not None:
            self._write(Event(session_log=SessionLog(status=SessionLog.START)), purge_step)

    def add(self, name: str, value: float, step: int) -> None:
        """A scalar of a step."""
        self._write(Event(summary=summary.scalar(name, value)), step)

    def settings(self, values: Mapping[str, Any], metrics: Iterable[str], step: int) -> None:
        """The run's settings from `step` on, for the tab HParams, beside these scalars of it."""
        ordered = {name: values[name] for name in (*FIRST, *values) if name in values}
        plain = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in ordered.items()
        }
        first, begun, _ = summary.hparams(plain, dict.fromkeys(metrics, 0))
        for part in (first, begun):
            self._write(Event(summary=part), step)

    def text(self, name: str, text: str, step: int) -> None:
        """A text, line by line as it is."""
        whole = "\n".join(f"    {line}" for line in text.splitlines())  # Markdown of plain lines
        self._write(Event(summary=summary.text(name, whole)), step)

    def flush(self) -> None:
        """Returns when what was added is safe from a crash of this process."""
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()

    def _write(self, event: Event, step: int) -> None:
        event.step, event.wall_time = step, time.time()
        self._writer.write_event(event)
