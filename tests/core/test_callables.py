"""Callables are the same exactly where text and state are."""

import functools
import subprocess
import sys
import threading

import numpy as np
import pytest

from fnas_jax.core import callables
from fnas_jax.core.types import UserError


def scaled(network, factor=1.0, table=None):
    return factor


class Model:
    def __init__(self, **state):
        vars(self).update(state)

    def __call__(self, network):
        return 1.0

    def predict(self, network):
        return 2.0


class Counting(Model):
    def __getstate__(self):
        return {"factor": self.factor}


class Slots:
    __slots__ = ("factor",)

    def __init__(self, factor):
        self.factor = factor


def make():
    """Two of each are equal, all others differ."""
    return {
        "function": scaled,
        "class": Model,
        "partial": functools.partial(scaled, factor=2.0),
        "another partial": functools.partial(scaled, factor=3.0),
        "partial of an array": functools.partial(scaled, table=np.arange(3)),
        "partial of another": functools.partial(scaled, table=np.arange(3.0)),
        "partial of objects": functools.partial(scaled, table=np.array([1, "a"], object)),
        "object": Model(factor=1.0, rows={"b": 2, "a": {3, 1}}),
        "other rows": Model(factor=1.0, rows={"b": 2, "a": {3, 4}}),
        "not finite": Model(factor=float("nan")),
        "method": Model(factor=1.0).predict,
        "of another object": Model(factor=2.0).predict,
        "another method": Model(factor=1.0).__call__,
        "slots": Model(inner=Slots(1)),
        "other slots": Model(inner=Slots(2)),
        "holds itself": itself(),
    }


def itself():
    found = Model(factor=1.0)
    found.own = [found]
    return found


def test_equal_ones_have_one_digest_and_others_have_others():
    once, again = ([callables.digest(f) for f in make().values()] for _ in range(2))
    assert once == again and len(set(once)) == len(once)
    assert callables.digest(functools.lru_cache(scaled)) == once[0]
    assert callables.digest(Model(a=1, b=2)) == callables.digest(Model(b=2, a=1))


def test_another_process_finds_the_same():
    code = (
        "from tests.core.test_callables import make, callables;"
        " print(*map(callables.digest, make().values()))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == [callables.digest(f) for f in make().values()]


def test_an_object_may_say_what_of_it_counts():
    first, later = Counting(factor=1.0, calls=0), Counting(factor=1.0, calls=9)
    assert callables.digest(first) == callables.digest(later)
    assert callables.digest(first) != callables.digest(Counting(factor=2.0, calls=0))


@pytest.mark.parametrize("state", [threading.Lock(), iter("a")])
def test_what_cannot_be_written_is_refused(state):
    with pytest.raises(UserError, match="cannot be written as text, so another one would not be"):
        callables.digest(Model(state=state))


def test_a_function_without_text_is_refused():
    names = {}
    exec("def f(network):\n    return 1.0", names)
    for function in (names["f"], functools.partial(names["f"], 1)):
        with pytest.raises(UserError, match="has no text to be known by"):
            callables.digest(function)
