"""What ends a command from outside: Ctrl-C, SIGTERM and SIGHUP, at a place where nothing is lost.

A command handles them while it runs (`handled`). At first each raises `Stop` where the program is.
Inside `deferred`, as in the loop of a search, it is only noted, and `check` raises `Stop` where all
is on disk; `asked` tells those who may bring it there sooner. A note also outlives a `Stop` that is
lost on its way: the interpreter drops what is raised in callbacks of other libraries.

A thread reads each signal as it comes, whatever the main one computes: after a second Ctrl-C, and
where SIGTERM or SIGHUP has found no such place for `GRACE` seconds, it ends the process. That loses
what a kill would, the work since the last checkpoint.

Imports nothing but the standard library: it is there before what takes long to import.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
if hasattr(signal, "SIGHUP"):
    NAMES[signal.SIGHUP] = "SIGHUP"
# Until a process ends that was sent SIGTERM: clouds leave a machine 30 seconds, or more.
GRACE = 20.0
SOON = 1.0  # after which a first Ctrl-C is answered, if the process is still there
GOES_ON = "the same command goes on from here"
AGAIN = "the same command begins again"


class Stop(KeyboardInterrupt):
    """The process is to end; its argument is the number of the signal that says so."""


class _Now:
    """What has come so far; the handler and the thread write it, others read."""

    number = 0  # of the signal that came first; 0: none
    deferred = 0  # how many `deferred` are entered
    hurried = False  # whether Ctrl-C has no more than `GRACE`, too
    words = AGAIN  # what a stopped command is told to do


_now = _Now()


def asked() -> int:
    """The number of the signal by which the process is to end; 0: none has come."""
    return _now.number


def check() -> None:
    """Raises `Stop` where the process is to end: to be called where nothing would be lost."""
    if _now.number:
        raise Stop(_now.number)


@contextlib.contextmanager
def deferred(hurried: bool = False) -> Iterator[None]:
    """A signal raises nothing inside, but where `check` is called.

    `hurried`: a first Ctrl-C ends the process after `GRACE`, too, where it waits for others.
    """
    _now.deferred += 1
    _now.hurried |= hurried
    try:
        yield
    finally:
        _now.deferred -= 1


def code(error: KeyboardInterrupt) -> int:
    """The exit code of a command that has ended by it, as shells have it."""
    return 128 + _number(error)


def sentence(error: KeyboardInterrupt) -> str:
    """What to tell of it."""
    return f"stopped by {NAMES[signal.Signals(_number(error))]}; {_now.words}"


def _number(error: KeyboardInterrupt) -> int:
    return int(error.args[0]) if isinstance(error, Stop) else int(signal.SIGINT)


@contextlib.contextmanager
def handled(words: str = AGAIN, grace: float = GRACE) -> Iterator[None]:
    """Signals end what is inside as the module says; in another thread than the main one: as ever.

    `words`: what a stopped command is told to do. What the process was told to ignore it ignores,
    as after `nohup`. The handlers of before are there again behind it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _forget(words)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    woken = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    hook, before = sys.unraisablehook, {number: signal.getsignal(number) for number in _heeded()}
    thread = threading.Thread(target=_watch, args=(reader, grace), name="signals", daemon=True)
    thread.start()
    own = functools.partial(_dropped, hook)
    try:
        sys.unraisablehook = own
        for number in before:
            signal.signal(number, _note)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if sys.unraisablehook is own:
            sys.unraisablehook = hook
        signal.set_wakeup_fd(woken)
        os.close(writer)
        thread.join()
        os.close(reader)
        _forget(AGAIN)


def starting(words: str = AGAIN) -> None:
    """From here on a signal ends the process at once, with a word: until a command `handled` it.

    For the first lines of a program, whose imports turn what is raised in them into other errors.
    """
    _now.words = words
    for number in _heeded():
        signal.signal(number, _end_now)


def leave(status: int) -> NoReturn:
    """Ends a program with this exit code, which a signal that comes too late does not change."""
    for number in _heeded():
        signal.signal(number, lambda number, frame: os._exit(status))
    sys.exit(status)


@contextlib.contextmanager
def withheld() -> Iterator[None]:
    """A process that is started inside gets no signal before it calls `ignored`.

    Only where a command handles signals: of all its processes, it is the one that they are for.
    """
    if not handling():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, NAMES)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignored() -> None:
    """Signals do nothing in this process, which another one ends, and as ever in those it starts.

    To be called once in a process that was started `withheld`.
    """
    for number in NAMES:
        signal.signal(number, lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, NAMES)


def handling() -> bool:
    """Whether a command handles signals now, and not somebody who calls this as a library."""
    return signal.getsignal(signal.SIGTERM) is _note


def say(text: str) -> None:
    """A line on stderr, if somebody reads it still."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def _heeded() -> list[signal.Signals]:
    """Those that the process was not told to ignore."""
    return [number for number in NAMES if signal.getsignal(number) is not signal.SIG_IGN]


def _forget(words: str) -> None:
    _now.number, _now.deferred, _now.hurried, _now.words = 0, 0, False, words


def _note(number: int, frame: FrameType | None) -> None:
    if NAMES[signal.Signals(number)] == "SIGHUP":
        _let_go()
    _now.number = _now.number or number
    if not _now.deferred:
        raise Stop(_now.number)


def _dropped(hook: Callable[[Any], object], found: Any) -> None:
    """As `sys.unraisablehook`: a `Stop` that was raised in a callback is raised once more."""
    if not isinstance(found.exc_value, Stop):
        hook(found)
    elif signal.getsignal(signal.SIGALRM) in (signal.SIG_DFL, _raise):
        signal.signal(signal.SIGALRM, _raise)
        signal.setitimer(signal.ITIMER_REAL, 0.01)


def _raise(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    if _now.number and not _now.deferred:
        raise Stop(_now.number)


def _end_now(number: int, frame: FrameType | None) -> None:
    _end(number)


def _end(number: int) -> NoReturn:
    """Ends the process, and those that help it, without waiting for anything."""
    say(sentence(Stop(number)))
    if "multiprocessing" in sys.modules:
        for process in sys.modules["multiprocessing"].active_children():
            process.kill()
    os._exit(128 + number)


def _let_go() -> None:
    """Gives up a terminal that is no more there, so that no line to it is an error."""
    for stream in (1, 2):
        try:
            os.write(stream, b"")
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def _watch(reader: int, grace: float) -> None:
    """Reads the numbers of signals from `reader` until its other end is closed."""
    first, tell, end = 0, math.inf, math.inf
    while True:
        now = time.monotonic()
        if now >= end:
            _end(first)
        if now >= tell:
            say("stopping where nothing is lost; Ctrl-C again ends at once")
            tell = math.inf
        until = min(tell, end)
        if not select.select([reader], [], [], None if until == math.inf else until - now)[0]:
            continue
        content = os.read(reader, 64)
        if not content:
            return
        for number in content:
            if number not in NAMES:  # another one that somebody handles
                continue
            if first and number == signal.SIGINT:
                _end(number)
            if not first and number == signal.SIGINT:
                tell = time.monotonic() + SOON
            first = first or number
            if number != signal.SIGINT or _now.hurried:
                end = min(end, time.monotonic() + grace)
