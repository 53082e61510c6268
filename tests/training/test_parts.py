"""Trainings in parts, which a signal ends behind the one that it comes in."""

import math
import signal

import pytest

from fnas_jax.core import hosts, signals
from fnas_jax.core.keep import Keep
from fnas_jax.core.types import Failed
from fnas_jax.training import parts

STEPS = 20


def run(upto, seconds, together=False):
    """(steps that were made, what was kept of them), where SIGTERM comes in step `upto`."""
    made, kept = [], []

    def advance(data, progress, first, last, epoch):
        made.extend(range(first, last))
        if upto in range(first, last):
            signal.raise_signal(signal.SIGTERM)
        return last

    keep = Keep(save=lambda name, of, step, state: kept.append(tuple(state)), seconds=seconds)
    training = parts.Training("name", "of", "label", STEPS, advance, lambda x: x, together=together)
    try:
        with signals.handled():
            with signals.deferred():  # as an iteration of a search
                parts.run(training, parts.Kept(0, 0.0, 0), [(None, 0, STEPS)], keep)
            signals.check()
            pytest.fail("it went on")
    except signals.Stop:
        pass
    return made, [(step, progress) for step, _, progress in kept]


@pytest.mark.parametrize("together", [False, True])
def test_a_signal_ends_a_training_that_is_kept_and_all_of_it_is(together):
    made, kept = run(3, seconds=1000.0, together=together)
    assert 3 < len(made) < STEPS
    assert kept == [(len(made), len(made))]


def test_one_that_is_not_kept_goes_on_to_its_end():
    assert run(3, seconds=math.inf) == (list(range(STEPS)), [])


def test_other_hosts_end_with_the_first_one_and_say_why(monkeypatch):
    """They train together, and keep nothing; the first one was sent the signal."""
    monkeypatch.setattr(parts.hosts, "broadcast", lambda value: parts.ENDS)
    training = parts.Training(*("name", "of", "label"), STEPS, lambda *given: 1, together=True)
    with pytest.raises(Failed, match="first host of this search was told to end; the same command"):
        parts.run(training, parts.Kept(0, 0.0, 0), [(None, 0, STEPS)], Keep())


def test_hosts_that_wait_for_a_command_are_told(monkeypatch):
    said = []
    monkeypatch.setattr(hosts, "count", lambda: 2)
    monkeypatch.setattr(hosts, "broadcast", lambda value: said.append(int(value)) or value)
    hosts.end_if_asked()
    with pytest.raises(signals.Stop), signals.handled(), signals.deferred():
        signal.raise_signal(signal.SIGTERM)
        hosts.end_if_asked()
    assert said == [hosts.STOPPED]
    with pytest.raises(Failed, match="first host"):  # and on a host that no signal has reached
        hosts.broadcast_command(hosts.STOPPED)


def test_who_reads_ahead_is_closed_where_a_training_ends_early():
    closed = []

    def spans():
        try:
            yield None, 0, STEPS
            yield None, STEPS, 2 * STEPS
        finally:
            closed.append(True)

    given = spans()
    training = parts.Training(*("name", "of", "label"), 2 * STEPS, lambda *given: 1)
    parts.run(training._replace(over=lambda progress: True), parts.Kept(0, 0.0, 0), given, Keep())
    assert closed == [True]
