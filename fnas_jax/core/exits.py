"""How every command ends: what it says of errors and signals, and its exit code.

Exit codes: 0 done, 1 failed, 2 wrong input, 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP; all but the first
are told in one sentence on stderr.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable

from absl import logging as absl_logging

from fnas_jax.core import disk, frames, hosts, signals, stages
from fnas_jax.core.types import Failed, UserError

OURS = "fnas_jax"  # the logger of this package
_FAILED = "it failed as above, and the same command goes on from the last checkpoint"


class Terminal(logging.Handler):
    """Writes to the stderr of the moment, which notebooks and tests replace."""

    @signals.parting()
    def emit(self, record: logging.LogRecord) -> None:
        """As `logging.Handler.emit`."""
        print(f"{record.levelname.lower()}: {self.format(record)}", file=sys.stderr)


class Help(Exception):
    """The user asked for help, which is the exception's text."""


def run_command(body: Callable[[], object], stopped: str = signals.AGAIN) -> int:
    """Calls `body` and turns how it ends into an exit code and at most one line on stderr.

    `stopped`: what one that was stopped by a signal is told to do.
    """
    _quiet()
    code, level = 1, logging.getLogger(OURS).level
    try:
        code = _stoppable(body, stopped)
    finally:
        logging.getLogger(OURS).setLevel(level)  # --verbose is of one command
        if code and hosts.count() > 1:
            # An orderly end would wait for hosts that wait for this one.
            if sys.exc_info()[0] is not None:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return code


def _stoppable(body: Callable[[], object], stopped: str) -> int:
    """As `_run`; signals end it (`core.signals`)."""
    try:
        with signals.handled(stopped):
            try:
                return _run(body)
            except KeyboardInterrupt as error:
                return _stopped(error)
            except Exception as error:
                if not signals.asked():
                    raise
                return _stopped(signals.Stop(signals.asked()), error)
    except KeyboardInterrupt as error:  # between two of these lines
        return signals.code(error)


def _stopped(end: KeyboardInterrupt, error: Exception | None = None) -> int:
    """Tells of a signal's `end`, of which there may have come an `error`; the exit code."""
    words = ""
    if error is None or signals.raised() or hosts.lost(error):
        # If any, it is what libraries, or other hosts, have made of the end.
        logging.getLogger(OURS).debug("the traceback of the end", exc_info=error)
    else:  # one of its own: the signal was only noted
        signals.say("".join(traceback.format_exception(error)).rstrip())
        words = _FAILED
    signals.last_word(end, words)
    _drop_output()
    return signals.code(end)


def _run(body: Callable[[], object]) -> int:
    try:
        try:
            with stages.running():
                body()
        except Help as text:
            print(text)
        with disk.at("standard output"):
            sys.stdout.flush()
    except UserError as error:
        logging.getLogger(OURS).debug("the traceback of what is wrong", exc_info=error)
        signals.say(f"error: {' '.join(str(error).split())}")
        return 2
    except Failed as error:
        logging.getLogger(OURS).debug("the traceback of what failed", exc_info=error)
        signals.say(f"error: {' '.join(str(error).split())}")
        _drop_output()
        return 1
    except BrokenPipeError:  # the reader of our output has gone, `| head` for instance
        if signals.asked():
            raise
        _drop_output()
        return 1
    except Exception as error:
        # Either can surface wherever anything is written, or results are waited for. Of hosts that
        # are told to end one may be gone before the other.
        lost = None if signals.asked() else hosts.lost(error)
        reason = disk.refusal(error) or lost
        if reason is None:
            if not signals.asked():
                frames.ask_to_report(error)
            raise
        logging.getLogger(OURS).debug("the traceback of what failed", exc_info=error)
        signals.say(f"error: {reason}")
        _drop_output()
        return 1
    return 0


def _drop_output() -> None:
    """Leaves nothing to be written when the interpreter ends, which would fail once more."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _quiet() -> None:
    """Keeps libraries' chatter off the terminal; our own warnings stay, one line each."""
    absl_logging.set_verbosity(absl_logging.FATAL)  # of errors they tell beside raising them
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    ours = logging.getLogger(OURS)
    if not ours.handlers:
        ours.addHandler(Terminal())
        ours.propagate = False
