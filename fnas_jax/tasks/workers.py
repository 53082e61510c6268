"""A user's function called in this process, or in others, where a crash loses one call only."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from fnas_jax.core import frames, signals
from fnas_jax.core.types import UserError


class Workers:
    """`count` processes that call `function`; with 0, this one does.

    Processes start with the first call, and end with this one. Each has an executor of its own:
    the death of a process breaks its executor for good, and no other, so that it costs the call
    that it was in. The first call tells whether they can import the function at all.
    """

    def __init__(self, function: Callable[[Any], Any], count: int):
        """Raises UserError where processes could not be given the function."""
        self._function = function
        self._executors: list[ProcessPoolExecutor | None] = [None] * count
        self._probed = not count
        if count:
            try:
                self._pickled = pickle.dumps(function)
            except Exception as error:  # whatever the user's object raises
                raise self._unfit(error) from None

    def _unfit(self, error: object) -> UserError:
        return UserError(
            f"workers={len(self._executors)} need a function that other processes can import,"
            f" defined at the top of a module ({error}), and in a script"
            ' `if __name__ == "__main__":` around what starts the search; workers=0 calls it in'
            " this process"
        )

    def _probe(self) -> None:
        """Raises UserError where a process cannot be given the function."""
        try:
            self._handed(0, _loads, self._pickled).result()
        except Exception as error:  # it died, or could not import the function
            self._executors[0] = None
            raise self._unfit(f"{type(error).__name__}: {error}") from None
        self._probed = True

    def map(self, arguments: Sequence[Any]) -> list[Any]:
        """What the function returns for each of `arguments`; the exception where it raised.

        In the order of `arguments`, whatever ends first: a worker gets the next one as soon as it
        has nothing to do.
        """
        if not self._executors:
            return _trusted([_caught(self._function, argument) for argument in arguments])
        if not self._probed:
            self._probe()
        found: list[Any] = [None] * len(arguments)
        waiting = list(enumerate(arguments))[::-1]
        free = list(range(len(self._executors)))[::-1]
        running: dict[Future, tuple[int, int]] = {}  # by call: its place and its worker
        while waiting or running:
            while waiting and free:
                (place, argument), worker = waiting.pop(), free.pop()
                running[self._submit(worker, argument)] = place, worker
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                place, worker = running.pop(future)
                found[place] = self._result(worker, future)
                free.append(worker)
        return _trusted(found)

    def _start(self, worker: int) -> ProcessPoolExecutor:
        """The executor of a worker, started where there is none."""
        executor = self._executors[worker]
        if executor is None:
            # Not forked: JAX has threads, whose locks a forked process would hold for ever.
            context = multiprocessing.get_context("spawn")
            executor = self._executors[worker] = ProcessPoolExecutor(
                1, context, _begin, (signals.handling(),)
            )
        return executor

    def _submit(self, worker: int, argument: Any) -> Future:
        try:
            return self._handed(worker, _caught, self._function, argument)
        except BrokenProcessPool:  # it died while it had nothing to do
            self._executors[worker] = None
            return self._handed(worker, _caught, self._function, argument)

    def _handed(self, worker: int, call: Callable[..., Any], *arguments: Any) -> Future:
        """A call of a worker, whose process starts with the first one."""
        with signals.withheld():
            return self._start(worker).submit(call, *arguments)

    def _result(self, worker: int, future: Future) -> Any:
        try:
            return future.result()
        except BrokenProcessPool:
            self._executors[worker] = None  # the next call starts another
            return RuntimeError("its process died")
        except Exception as error:  # what it returned could not be sent back
            return error


def _trusted(found: list[Any]) -> list[Any]:
    """`found`; raises `signals.Stop` where calls may have failed by a signal that they got, too."""
    if any(isinstance(answer, Exception) for answer in found):
        signals.check()
    return found


def _begin(handling: bool) -> None:
    """In a worker, before its first call; `handling`: whether a command handles signals."""
    if handling:
        signals.ignored()
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    """Ends a worker when the process does that it works for, however that ends.

    It would never see the end of its queue, both of whose sides it holds.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _loads(pickled: bytes) -> None:
    """Unpickles, in a worker; what comes of it is not sent back."""
    pickle.loads(pickled)


def _caught(function: Callable[[Any], Any], argument: Any) -> Any:
    try:
        return function(argument)
    except Exception as error:  # the user's; a call that fails is a network that fails
        place = frames.where(error)  # here, as the traceback does not come with it from a process
        if place:
            error.add_note(f"in {place}")
        return error
