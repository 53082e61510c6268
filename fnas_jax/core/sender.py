"""Sends what is logged to a service from a thread: a slow or lost connection holds up nothing.

Calls wait in a queue, in order. Where the service cannot be reached, that is told once, and they
are tried again later; a call that it refuses is dropped after TRIES, so that the others get there.
How far it has come is noted in the workdir: another process sends what this one could not.
"""

from __future__ import annotations

import contextlib
import json
import logging
import pathlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from fnas_jax.core import disk, jsons, stages
from fnas_jax.core.types import UserError

LOG = logging.getLogger(__name__)
RETRY_SECONDS = 60.0  # after which what failed is sent again
NOTE_SECONDS = 1.0  # between two notes; what was sent since the last one may be sent twice
MOST = 100_000  # calls that wait; beyond it the oldest are for another process
TRIES = 3  # of a call that is refused
LAST_TRIES = 2  # failures in a row at the end, behind which a service counts as not reached
KINDS = {"place": str, "next": int, "done": bool}
AGAIN = (408, 425, 429)  # of HTTP's 4xx those that say: later

DOWN = (
    "%s takes nothing now (%s): the search goes on, and what it lacks is sent when it takes it"
    " again"
)
REFUSES = "%s refuses something (%s): the search goes on, and all else is sent"
NOT_BEGUN = "%s does not take the search now (%s): it goes on, and is sent when it does"


class Backend(Protocol):
    """A run of a service; all may raise anything."""

    place: str  # which one it is, as the service tells runs apart

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Numbers of a step, by their tags."""

    def keep(self, figures: Mapping[str, float | str], paths: Sequence[pathlib.Path]) -> None:
        """The result: figures by name, files and folders."""

    def close(self, done: bool) -> None:
        """The end of this process's part; `done`: of the search."""


class Sent(NamedTuple):
    """How far a service has a search."""

    place: str = ""  # `Backend.place` of the run that has it; "" where there is none yet
    next: int = 0  # the first step that it may lack
    done: bool = False  # whether it has the end, too


class Call(NamedTuple):
    """What waits to be sent."""

    send: Callable[[Backend], None]
    step: int  # whose numbers it sends; -1: of none
    earlier: bool = False  # whether it is for runs that lack the step alone


def note_of(folder: pathlib.Path, name: str) -> pathlib.Path:
    """The file that says how far the service `name` has the search in `folder`."""
    return folder / f"{name}.sent.json"


def read(note: pathlib.Path) -> Sent | None:
    """What a note says; None where there is none. Of a damaged one nothing: all is sent again."""
    if not note.exists():
        return None
    try:
        return Sent(**{name: jsons.read_record(note, KINDS, KINDS)[name] for name in KINDS})
    except UserError:
        return Sent()


def passes(error: Exception) -> bool:
    """Whether it is the connection or the server that fails, so that the call may do later."""
    status = getattr(error, "get_http_status_code", None)  # of MLflow's exceptions
    if callable(status):
        return status() >= 500 or status() in AGAIN
    ours = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
    return isinstance(error, OSError) and not isinstance(error, ours)


def reason(error: Exception) -> str:
    """The first line of what it says, or its class."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


class Sender:
    """Sends to a service in a thread of its own, in order, until `close`."""

    def __init__(self, title: str, start: Callable[[], Backend], note: pathlib.Path):
        """`start` is called in the thread, until it does not fail; `note`: the file for it."""
        self._title, self._start, self._note = title, start, note
        self._sent, self._noted = (read(note) or Sent())._replace(done=False), 0.0
        self._write_note()
        self._calls: deque[Call] = deque()
        self._state = threading.Condition()
        self._ending = self._done = self._closed = False
        self._told: set[str] = set()
        self._unsent = self._refused = 0  # of those that wait no more
        self._thread = threading.Thread(target=self._run, name=title, daemon=True)
        self._thread.start()

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """As `Backend.log`, at some time."""
        self._put(Call(lambda to: to.log(step, numbers), step))

    def again(self, step: int, numbers: Mapping[str, float]) -> None:
        """As `log`, of a step of an earlier process, unless the service has it."""
        self._put(Call(lambda to: to.log(step, numbers), step, earlier=True))

    def keep(self, figures: Mapping[str, float | str], paths: Sequence[pathlib.Path]) -> None:
        """As `Backend.keep`, at some time."""
        self._put(Call(lambda to: to.keep(figures, paths), -1))

    def close(self, done: bool, seconds: float) -> None:
        """Ends the run there, and waits for so long; tells what is not sent then."""
        with self._state:
            self._ending, self._done = True, done
            self._state.notify()
        with stages.at(f"sending to {self._title}"):
            self._thread.join(seconds)
        lacking = self._lacking()
        if lacking:
            LOG.warning("%s has not got all of the search: %s", self._title, lacking)

    def _lacking(self) -> str:
        waiting = self._unsent + len(self._calls) + (not self._closed)
        counts = (
            ("calls not sent: {:,} (the same command sends them)", waiting),
            ("refused: {:,}", self._refused),
        )
        return "; ".join(text.format(count) for text, count in counts if count)

    def _put(self, call: Call) -> None:
        with self._state:
            if len(self._calls) >= MOST:
                del self._calls[1]  # the oldest is being sent
                self._unsent += 1
            self._calls.append(call)
            self._state.notify()

    def _run(self) -> None:
        backend = self._started()
        if backend is None:
            return
        if backend.place != self._sent.place:  # another run, which has nothing
            self._sent = Sent(backend.place)
        self._send_all(backend)
        try:
            backend.close(self._done)
            self._closed = True
        except Exception as error:
            self._tell(DOWN if passes(error) else REFUSES, error)
        done = self._done and self._closed and not self._unsent and not self._calls
        self._sent = self._sent._replace(done=done)
        self._write_note()

    def _started(self) -> Backend | None:
        """The run there, as soon as the service takes it; None where the search ended before."""
        while True:
            try:
                return self._start()
            except Exception as error:
                self._tell(NOT_BEGUN, error)
                if self._ending:
                    return None
                self._wait()

    def _send_all(self, backend: Backend) -> None:
        """Sends until the search has ended and nothing waits, or the service is not reached."""
        failures = 0  # in a row
        while (call := self._oldest()) is not None:
            try:
                if not (call.earlier and call.step < self._sent.next):
                    call.send(backend)
            except Exception as error:
                failures += 1
                ending, passing = self._ending, passes(error)
                self._tell(DOWN if passing else REFUSES, error)
                if passing and ending and failures >= LAST_TRIES:
                    return
                if passing and ending:  # perhaps it is only this one
                    with self._state:
                        self._unsent += 1
                elif not passing and (ending or failures >= TRIES):
                    self._refused += 1
                    failures = 0
                else:
                    self._wait()
                    failures = 0 if self._ending else failures
                    continue
            else:
                failures = 0
                self._advance(call.step)
            with self._state:
                self._calls.popleft()

    def _oldest(self) -> Call | None:
        with self._state:
            self._state.wait_for(lambda: self._calls or self._ending)
            return self._calls[0] if self._calls else None

    def _advance(self, step: int) -> None:
        """Notes that a step is sent, as long as none before it was left out."""
        if not self._unsent:
            self._sent = self._sent._replace(next=max(self._sent.next, step + 1))
        if time.monotonic() - self._noted > NOTE_SECONDS:
            self._write_note()

    def _write_note(self) -> None:
        """A disk that refuses it is told of where more depends on it."""
        with contextlib.suppress(OSError), disk.replacing(self._note) as file:
            json.dump(self._sent._asdict(), file)
        self._noted = time.monotonic()

    def _tell(self, text: str, error: Exception) -> None:
        """Each of the texts once."""
        if text not in self._told:
            LOG.warning(text, self._title, reason(error))
        self._told.add(text)

    def _wait(self) -> None:
        """Until it is time to try again; at the end everything is tried once more."""
        with self._state:
            self._state.wait_for(lambda: self._ending, RETRY_SECONDS)
