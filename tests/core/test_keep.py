"""What is kept of long trainings: read by the very same one only, and gone in the end."""

import logging
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core import keep
from fnas_jax.core.types import UserError


class State(NamedTuple):
    step: int
    weights: Any


FIRST = State(0, jnp.zeros(3))


def config(seconds):
    return SimpleNamespace(log=SimpleNamespace(checkpoint_seconds=seconds))


def test_the_newest_state_is_read_and_only_by_what_it_is_of(tmp_path, caplog):
    kept = keep.on_disk(tmp_path / "training", 0.0)
    assert kept.load("winner", "a", FIRST) is FIRST and not caplog.records
    for step in (2, 5):
        kept.save("winner", "a", step, State(step, step * jnp.arange(3.0)))
    found = kept.load("winner", "a", FIRST)
    assert found.step == 5
    np.testing.assert_array_equal(found.weights, [0, 5, 10])
    # Another network is nothing that this one could have gone on from.
    assert kept.load("winner 2", "a", FIRST) is FIRST and not caplog.records
    with caplog.at_level(logging.WARNING):
        assert kept.load("winner", "b", FIRST) is FIRST
    assert "winner is trained from the beginning" in caplog.text


def test_states_of_other_shapes_are_refused(tmp_path):
    kept = keep.on_disk(tmp_path, 0.0)
    kept.save("winner", "a", 1, State(1, jnp.zeros(4)))
    with pytest.raises(UserError, match="no checkpoint in"):
        kept.load("winner", "a", FIRST)


def test_a_task_that_keeps_is_given_a_place_which_is_removed_with_all_in_it(tmp_path):
    assert keep.arguments(False, tmp_path, config(1.0)) == ()
    (kept,) = keep.arguments(True, tmp_path, config(1.0))
    assert kept.seconds == 30.0  # at least
    (seldom,) = keep.arguments(True, tmp_path, config(70.0))
    assert seldom.seconds == 70.0
    keep.remove(tmp_path)  # nothing there
    kept.save("winner", "a", 1, FIRST)
    assert [path.name for path in tmp_path.iterdir()] == ["training"]
    keep.remove(tmp_path)
    assert not list(tmp_path.iterdir())


def test_of_batches_nothing_is_kept_longer_than_until_a_checkpoint_has_them(tmp_path):
    keep.forget_batches(tmp_path)  # nothing there
    (kept,) = keep.arguments(True, tmp_path, config(1.0))
    for name in (f"{keep.BATCHES} 0f", f"{keep.BATCHES} 1e", "winner"):
        kept.save(name, "a", 1, FIRST)
    keep.forget_batches(tmp_path)
    (left,) = (tmp_path / "training").iterdir()
    assert left.name.startswith("winner--")


def test_by_default_nothing_is_kept():
    nothing = keep.Keep()
    assert nothing.load("a", "b", FIRST) is FIRST and nothing.progress is None
    assert nothing.seconds == np.inf
