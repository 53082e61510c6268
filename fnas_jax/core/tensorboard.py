"""Scalars for TensorBoard, written where they are told of.

tensorboardX's own writer has a thread for that, in which an error of a full disk would be lost, and
those that wait for it would wait for ever.
"""

from __future__ import annotations

import pathlib
import time

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog


class Scalars:
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

    def flush(self) -> None:
        """Returns when what was added is safe from a crash of this process."""
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()

    def _write(self, event: Event, step: int) -> None:
        event.step, event.wall_time = step, time.time()
        self._writer.write_event(event)
