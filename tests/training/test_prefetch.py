"""What is read ahead comes in order, is one at most, and how long it is waited for is known."""

import logging
import threading
import time

import numpy as np
import pytest

from fnas_jax.core import devices
from fnas_jax.training import prefetch, streaming
from fnas_jax.training.config import Children
from fnas_jax.training.minibatches import Data
from fnas_jax.training.prefetch import Pace


def test_all_that_is_wanted_comes_in_order_and_is_read_elsewhere():
    threads = set()

    def read(x):
        threads.add(threading.current_thread())
        return x * x

    assert list(prefetch.ahead(iter(range(5)), read)) == [(x, x * x) for x in range(5)]
    assert len(threads) == 1 and threading.main_thread() not in threads
    assert list(prefetch.ahead(iter([]), read)) == []


def test_the_next_is_read_meanwhile_and_no_other():
    begun, release = [], threading.Event()

    def read(x):
        begun.append(x)
        if x == 1:
            assert release.wait(10)
        return x

    coming = prefetch.ahead(iter(range(5)), read)
    assert next(coming) == (0, 0)
    for _ in range(1000):
        if 1 in begun:
            break
        time.sleep(0.01)
    assert begun == [0, 1]  # while nobody asks for it
    release.set()
    assert next(coming) == (1, 1)
    coming.close()
    assert 3 not in begun


def test_what_a_reader_raises_comes_at_its_turn():
    def read(x):
        if x == 2:
            raise OSError("gone")
        return x

    found = []
    with pytest.raises(OSError, match="gone"):
        for x, _ in prefetch.ahead(iter(range(4)), read):
            found.append(x)
    assert found == [0, 1]


@pytest.mark.parametrize(("reading", "training"), [(0.2, 0.0), (0.0, 0.1)])
def test_the_pace_tells_who_waits(reading, training):
    paces = []

    def read(x):
        time.sleep(reading)
        return x

    for _ in prefetch.ahead(iter(range(4)), read, paces.append):
        time.sleep(training)
    (pace,) = paces
    assert pace.parts == 3
    if reading:  # all of it is waited for; the first part is not counted
        assert 0.6 <= pace.reading <= pace.seconds + 0.1 and pace.waiting > 0.5 * pace.seconds
    else:
        assert pace.waiting < 0.15 and pace.seconds >= 3 * training


def test_who_stops_asking_is_told_the_pace_too():
    paces = []
    coming = prefetch.ahead(iter(range(9)), lambda x: x, paces.append)
    next(coming), next(coming)
    coming.close()
    assert [pace.parts for pace in paces] == [1]


@pytest.mark.parametrize(
    ("pace", "told"),
    [
        (Pace(10, reading=50.0, waiting=40.0, seconds=60.0), True),
        (Pace(10, reading=50.0, waiting=9.0, seconds=20.0), False),  # seconds
        (Pace(10, reading=50.0, waiting=40.0, seconds=500.0), False),  # a small share
        (Pace(), False),
    ],
)
def test_starvation_is_told_where_it_matters(pace, told):
    said = prefetch.starved(pace, 1000)
    assert bool(said) == told
    if told:  # 10 parts of 1000 in 50 s; in the 20 s in which devices had images
        assert "waited for images for 40 of 60 s: 200 a second were read, and 500 could" in said


class Slow(np.ndarray):
    """Images whose rows take their time."""

    def __getitem__(self, rows):
        if isinstance(rows, np.ndarray):
            time.sleep(0.05)
        return np.asarray(self)[rows]


def test_a_training_on_slow_images_says_so(monkeypatch, caplog):
    monkeypatch.setattr(prefetch, "QUIET", 0.05)
    images = np.zeros((64, 2, 2, 1), np.uint8)
    data = Data(images.view(Slow), np.zeros(64, np.int32), images[:4], np.zeros(4, np.int32))
    mesh, settings = devices.children_mesh(), Children(batch_size=8)
    with caplog.at_level(logging.WARNING):
        found = list(streaming.spans(settings, mesh, data, 16, chunk=16))
    assert [tuple(span[1:]) for span in found] == [(i, i + 2) for i in range(0, 16, 2)]
    assert caplog.text.count("devices waited for images") == 1
