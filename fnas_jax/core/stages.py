"""Which stage a command is at: told where one is silent for long, and kept beside what it makes.

A compilation, the reading of files and a batch of children may say nothing for minutes. A thread
tells then which stage it is, how long it has taken, and how long it will where that is known; and
it writes `live.json` into the folder of a run while a process works there, which `status` reads.
Nothing depends on either: a terminal or a disk that refuses them is told of where it matters.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, TypeVar

from fnas_jax.core import disk, jsons, pace

FILE = "live.json"
SILENT = (10.0, 30.0, 60.0)  # seconds without a line, after which one comes; then each minute
T = TypeVar("T")
TICK = 1.0  # seconds after which the thread looks again
WRITE_SECONDS = 2.0  # between two writes of FILE
KINDS = {
    "pid": int,
    "host": str,
    "stage": str,
    "since": jsons.NUMBER,
    "at": jsons.NUMBER,
    "label": str,
    "done": jsons.MAYBE_NUMBER,
    "total": jsons.MAYBE_NUMBER,
    "left": jsons.MAYBE_NUMBER,
}


class Bar(Protocol):
    """What shows how far a stage is (`progress.Progress`)."""

    def move(self, stage: str) -> bool:
        """Draws it anew, as that of `stage`; False where there is nothing to draw."""

    def left(self, now: float) -> float:
        """Seconds until it is done; infinite: unknown."""


class Stage(NamedTuple):
    """A part of what a command does."""

    name: str
    began: float  # seconds of `time.monotonic`
    seconds: float = math.inf  # that it takes, as far as is known


class _Now:
    """What the one command of this process is doing; it writes it, the thread reads it."""

    stages: tuple[Stage, ...] = ()  # each within the one before
    bars: tuple[Bar, ...] = ()  # likewise
    heard = 0.0  # when something was last told, in seconds of `time.monotonic`
    told: tuple[dict[str, Any], float] = ({}, 0.0)  # how far the last bar is, and since when
    # What `counted` counts, since when, from what, up to what.
    counting: tuple[str, float, int, int] = ("", 0.0, 0, 0)
    folders: tuple[pathlib.Path, ...] = ()  # in which FILE is kept, each begun after those before
    end: threading.Event | None = None  # of the thread; None: there is none
    written: Any = None  # what FILE is about, as it was last written
    lock = threading.Lock()  # held by whoever writes or removes FILE


_now = _Now()


@contextlib.contextmanager
def running() -> Iterator[None]:
    """Tells of long stages of what is inside; inside another one it does nothing more."""
    if _now.end is not None:
        yield
        return
    _now.end, _now.heard, _now.bars = threading.Event(), time.monotonic(), ()
    thread = threading.Thread(target=_watch, args=(_now.end,), name="stages", daemon=True)
    thread.start()
    try:
        yield
    finally:
        _now.end.set()
        thread.join(1.0)  # a terminal that is held may hold it
        _now.end, _now.stages, _now.bars, _now.told = None, (), (), ({}, 0.0)


@contextlib.contextmanager
def kept(folder: pathlib.Path) -> Iterator[None]:
    """Keeps FILE in `folder` as long as the context lasts; killed processes leave it there."""
    _now.folders, _now.written = (*_now.folders, folder), None
    try:
        _write()
        yield
    finally:
        with _now.lock:
            _now.folders = tuple(own for own in _now.folders if own is not folder)
            _now.written = None  # FILE of a search around this one was not written meanwhile
            with contextlib.suppress(OSError):
                (folder / FILE).unlink(missing_ok=True)


@contextlib.contextmanager
def at(name: str, seconds: float = math.inf) -> Iterator[None]:
    """What is inside is the stage `name`, which takes about so many seconds; infinite: unknown."""
    before = _now.stages
    _now.stages = (*before, Stage(name, time.monotonic(), seconds))
    heard()
    try:
        yield
    finally:
        _now.stages = before


def heard() -> None:
    """Something was told just now."""
    _now.heard = time.monotonic()


def told(label: str, done: int, total: int, left: float, text: str) -> None:
    """How far a bar is."""
    rest = left if math.isfinite(left) else None
    found = {"label": label, "done": done, "total": total, "left": rest, "text": text}
    _now.told = (found, time.monotonic())


def counted(done: int, total: int, what: str) -> None:
    """So many of `what` are done, of `total`, 0: unknown. Costs next to nothing, and tells nothing.

    The thread does, where it takes long.
    """
    now = time.monotonic()
    known, since, first, last = _now.counting
    if known != what or done < last:  # others, or the same once more
        since, first = now, done
    _now.counting = what, since, first, done
    each = (now - since) / (done - first) if done > first else math.inf
    text = f"{done:,} of {total:,} {what}" if total else f"{done:,} {what}"
    told(what, done, total, each * (total - done) if total else math.inf, text)


def attach(bar: Bar) -> None:
    """From here on `bar` shows how far things are, which `detach` ends."""
    _now.bars = (*_now.bars, bar)


def detach(bar: Bar) -> None:
    """What `bar` has shown is over."""
    _now.bars = tuple(own for own in _now.bars if own is not bar)
    _now.told = ({}, 0.0)


def content(now: float, unix: float) -> dict[str, Any]:
    """What FILE says at a moment, of `time.monotonic` and in seconds since 1970."""
    stage = _last(_now.stages) or Stage("starting", now)
    found, when = _now.told
    since = {"stage": stage.name, "since": unix - (now - stage.began)}
    process = {"pid": os.getpid(), "host": socket.gethostname(), "at": unix}
    if when < stage.began:  # it was of a stage before
        left = stage.seconds - (now - stage.began)
        return process | since | {"left": max(left, 0.0) if math.isfinite(left) else None}
    return process | since | found


def read(folder: pathlib.Path) -> dict[str, Any] | None:
    """What FILE in `folder` says; None where there is none, or it cannot be read."""
    try:
        found = jsons.parse((folder / FILE).read_bytes())
    except (OSError, ValueError):
        return None
    whole = jsons.fits(found, KINDS) and {"pid", "host", "stage", "since", "at"} <= found.keys()
    return found if whole and all(map(_counts, found.values())) else None


def _counts(value: Any) -> bool:
    """Whether it can be reckoned with, if it is a number: no NaN, and nothing without an end."""
    return not isinstance(value, jsons.NUMBER) or abs(value) <= sys.float_info.max


def waiting(stage: Stage, silent: float, now: float, left: float = math.inf, far: str = "") -> str:
    """The line about a stage that was silent for so long.

    `left`: seconds that its bar, or what counts, says; `far`: how far it is.
    """
    spent = now - stage.began
    rest = min(left, stage.seconds - spent)
    # What takes longer than it was thought to is not about to end.
    said = f", about {pace.text(rest)} left" if 0.5 < rest < math.inf else ""
    quiet = f" ({pace.text(silent)} since the last line)" if spent - silent > 1.0 else ""
    counts = f", {far}" if far else ""
    return f"{stage.name}: {pace.text(spent)} so far{counts}{said}{quiet}"


def line(stage: Stage, silent: float, now: float) -> str:
    """As `waiting`, by what is shown or counted now."""
    bar = _last(_now.bars)
    if bar is not None:
        return waiting(stage, silent, now, bar.left(now))
    found, when = _now.told
    if when < stage.began:
        return waiting(stage, silent, now)
    left = math.inf if found["left"] is None else max(found["left"] - (now - when), 0.0)
    return waiting(stage, silent, now, left, found["text"])


def due(spoken: int, silent: float) -> int:
    """How many lines are due after so long a silence, in which `spoken` were told."""
    first = sum(silent >= seconds for seconds in SILENT)
    return max(spoken, first + int(max(silent - SILENT[-1], 0.0) // 60))


def _watch(end: threading.Event) -> None:
    """Tells of silence until the end; the body of the thread."""
    spoken, since, written = 0, _now.heard, 0.0
    while not end.wait(TICK):
        now = time.monotonic()
        if now - written >= WRITE_SECONDS:
            written = now
            _write()
        if _now.heard != since:
            spoken, since = 0, _now.heard
        with contextlib.suppress(OSError, ValueError):  # nobody reads it, or it is closed
            stage = _last(_now.stages)
            if stage is None or not _takes(2):
                continue
            if any([bar.move(stage.name) for bar in _now.bars]):  # noqa: C419 - each is to move
                continue
            lines = due(spoken, now - since)
            if lines > spoken:
                print(line(stage, now - since, now), file=sys.stderr, flush=True)
            spoken = lines


def _last(those: tuple[T, ...]) -> T | None:
    """The last one, if any; by one look, as another thread may exchange what `_now` has."""
    return those[-1] if those else None


def _takes(stream: int) -> bool:
    """Whether a line can be written now: a terminal may be held, or a pipe full."""
    return bool(select.select([], [stream], [], 0.0)[1])


def _write() -> None:
    with _now.lock, contextlib.suppress(OSError):
        about = (_now.stages, _now.told)
        if not _now.folders or about == _now.written:
            return
        with disk.replacing(_now.folders[-1] / FILE) as file:
            json.dump(content(time.monotonic(), time.time()), file, allow_nan=False)
        _now.written = about
