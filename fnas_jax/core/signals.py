"""What ends a command from outside: Ctrl-C, SIGTERM and SIGHUP, at a place where nothing is lost.

A command handles them while it runs (`handled`). At first each raises `Stop` where the program is.
Inside `deferred`, as in the loop of a search, it is only noted, and `check` raises `Stop` where all
is on disk; `asked` tells those who may bring it there sooner. A note also outlives a `Stop` that is
lost on its way: the interpreter drops what is raised in callbacks of other libraries.

A thread reads each signal as it comes, whatever the main one computes: after a second Ctrl-C, and
where SIGTERM or SIGHUP has found no such place for `GRACE` seconds, it ends the process. That loses
what a kill would, the work since the last checkpoint. The thread waits for nobody: it says what it
says past Python's streams, whose locks the main one may hold, and only where that takes no time.

Who reads the output, as `tee` or a terminal, often ends by the same signal (`parting`).

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
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
if hasattr(signal, "SIGHUP"):
    NAMES[signal.SIGHUP] = "SIGHUP"
# Until a process ends that was sent SIGTERM: clouds leave a machine 30 seconds, or more.
GRACE = 20.0
SOON = 1.0  # after which a first Ctrl-C is answered, if the process is still there
# Within which the same signal once more is the same one: wrappers forward what a terminal, or a
# scheduler, has sent to all processes; and in which others' share of it arrives.
ECHO = 0.3
GOES_ON = "the same command goes on from here"
AGAIN = "the same command begins again"


class Stop(KeyboardInterrupt):
    """The process is to end; its argument is the number of the signal that says so."""


class _Now:
    """What has come so far; the handler and the thread write it, others read."""

    number = 0  # of the signal that came first; 0: none
    since = -math.inf  # when it came
    raised = False  # whether a `Stop` was raised
    deferred = 0  # how many `deferred` are entered
    hurried = False  # whether Ctrl-C has no more than `GRACE`, too
    told = False  # whether the last word was said
    words = AGAIN  # what a stopped command is told to do


_now = _Now()


def asked() -> int:
    """The number of the signal by which the process is to end; 0: none has come."""
    return _now.number


def check() -> None:
    """Raises `Stop` where the process is to end: to be called where nothing would be lost."""
    if _now.number:
        _stop()


def raised() -> bool:
    """Whether `Stop` was raised, of which libraries may have made another error."""
    return _now.raised


def _stop() -> NoReturn:
    _now.raised = True
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


def sentence(error: KeyboardInterrupt, words: str = "") -> str:
    """What to tell of it; `words`: what to do, where that is not what the command says."""
    return f"stopped by {NAMES[signal.Signals(_number(error))]}; {words or _now.words}"


def last_word(error: KeyboardInterrupt, words: str = "") -> None:
    """Says its `sentence`: the thread has nothing to add from here on."""
    _now.told = True
    say(sentence(error, words))


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

    What the process was told to ignore, as after `nohup`, those ignore, too.

    To be called once in a process that was started `withheld`.
    """
    for number in _heeded():  # an ignored one is ignored by those that it starts, too
        signal.signal(number, lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, NAMES)


def handling() -> bool:
    """Whether a command handles signals now, and not somebody who calls this as a library."""
    return signal.getsignal(signal.SIGTERM) is _note


def say(text: str) -> None:
    """A line on stderr, if somebody reads it still."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        _let_go()  # what is left in a buffer would be an error at the end
    except ValueError:  # it is closed
        pass


@contextlib.contextmanager
def parting() -> Iterator[None]:
    """That nobody reads any more what is told inside is no error once a signal has come.

    Otherwise a search that is to end would fail before its checkpoint.
    """
    try:
        yield
    except OSError:
        if not asked():
            time.sleep(ECHO)  # the reader may have got it first
        if not asked():
            raise
        _let_go()


def _heeded() -> list[signal.Signals]:
    """Those that the process was not told to ignore."""
    return [number for number in NAMES if signal.getsignal(number) is not signal.SIG_IGN]


def _forget(words: str) -> None:
    _now.number, _now.since, _now.raised = 0, -math.inf, False
    _now.deferred, _now.hurried, _now.words, _now.told = 0, False, words, False


def _note(number: int, frame: FrameType | None) -> None:
    if NAMES[signal.Signals(number)] == "SIGHUP":
        _let_go()
    now = time.monotonic()
    if number == _now.number and now < _now.since + ECHO:
        return
    if not _now.number:
        _now.number, _now.since = number, now
    if not _now.deferred:
        _stop()


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
        _stop()


def _end_now(number: int, frame: FrameType | None) -> None:
    _end(number)


def _end(number: int) -> NoReturn:
    """Ends the process, and those that help it, without waiting for anything."""
    try:
        if "multiprocessing" in sys.modules:
            for process in sys.modules["multiprocessing"].active_children():
                process.kill()
        _word(sentence(Stop(number)))
    finally:
        os._exit(128 + number)


def _word(text: str) -> None:
    """A line on stderr, if it takes one now: a terminal may be held, or a pipe full."""
    with contextlib.suppress(OSError):
        if select.select([], [2], [], 0.1)[1]:
            os.write(2, f"{text}\n".encode())


def _let_go(streams: Sequence[int] = (1, 2)) -> None:
    """Gives up a terminal or a pipe that nobody reads, so that no line to it is an error."""
    for stream in streams:
        poll = select.poll()
        poll.register(stream, 0)  # of its end one is told unasked
        if poll.poll(0):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream)
            os.close(nowhere)


def _watch(reader: int, grace: float) -> None:
    """Reads the numbers of signals from `reader` until its other end is closed."""
    first, since, tell, end = 0, math.inf, math.inf, math.inf
    while True:
        now = time.monotonic()
        if now >= end:
            _end(first)
        if now >= tell:
            if not _now.told:
                _word("stopping where nothing is lost; Ctrl-C again ends at once")
            tell = math.inf
        until = min(tell, end)
        if not select.select([reader], [], [], None if until == math.inf else until - now)[0]:
            continue
        content = os.read(reader, 64)
        if not content:
            return
        now = time.monotonic()
        for number in content:
            if number not in NAMES:  # another one that somebody handles
                continue
            if number == first and now < since + ECHO:
                continue
            if first and number == signal.SIGINT:
                _end(number)
            if not first:
                first, since = number, now
                tell = now + SOON if number == signal.SIGINT else tell
            if number != signal.SIGINT or _now.hurried:
                end = min(end, now + grace)
