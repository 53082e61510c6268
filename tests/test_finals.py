"""Who wins the finals, and what is said of them."""

import jax
import numpy as np
import pytest

from fnas_jax import finals, iteration
from fnas_jax.core.clock import Clock
from fnas_jax.core.types import Metrics
from fnas_jax.tasks.base import Evaluator, Finals, Hooks

STATE = iteration.State(
    None, 5, 0, 0, 0, {}, np.array([9, 9], np.int32), np.arange(5.0), {"total": 0.0}
)


def held(reward, ok=None):
    """Finals whose first readings fall from 0.9."""
    reward = np.array(reward, np.float32)
    k = len(reward)
    first = np.float32(0.9) - np.arange(k, dtype=np.float32) / 10
    costs = np.arange(k, dtype=np.float32)
    ones = np.ones(k, bool)
    metrics = Metrics(first, first, costs + 1, costs + 2, costs + 3, costs, ones, ones)
    ok = ones if ok is None else np.array(ok)
    archs = np.stack([np.arange(k), np.arange(k)], axis=1).astype(np.int32)
    return Finals(archs, metrics, reward / 2, reward, ok)


@pytest.mark.parametrize(
    ("reward", "ok", "winner"),
    [
        ([0.5, 0.7, 0.6], None, 1),
        ([0.5, 0.7, 0.7], None, 1),  # of equals, the better first reading
        ([0.5, 0.7, 0.6], [True, False, True], 2),
        ([-0.2, 0.0, -0.1], [True, False, True], 2),
    ],
)
def test_the_best_second_reading_that_did_not_fail_wins(reward, ok, winner):
    finished = finals.decide(STATE, held(reward, ok))
    assert finished.best_arch.tolist() == [winner, winner]
    expected = [np.float32(reward[winner]) / 2, np.float32(reward[winner])]
    np.testing.assert_array_equal(finished.best, [*expected, *(winner + n for n in (1, 2, 3))])


@pytest.mark.parametrize("none", [None, held([0.0, 0.0], [False, False])])
def test_without_second_readings_the_first_decide(none):
    assert finals.place(none) is None
    assert finals.decide(STATE, none) is STATE


def test_one_line_tells_the_outcome():
    assert "number 2 of the first readings wins with reward 0.7000 (at first 0.8000)" in (
        text := finals.line(held([0.5, 0.7]))
    )
    assert "failed" not in text
    assert "; 1 failed" in finals.line(held([0.5, 0.7], [True, False]))
    nobody = finals.line(held([0.0, 0.0], [False, False]))
    assert nobody == "finals: none of the 2 best gave a result again; the first readings decide"


def test_keys_are_those_of_no_other_purpose():
    keys = []
    hooks = Hooks(finals=lambda state, key: keys.append((state, key)))
    evaluator = Evaluator(lambda: 0, lambda *args: None, jittable=True, hooks=hooks)
    clock = Clock()
    for _ in range(2):
        finals.hold(evaluator, STATE, jax.random.key(3), clock)
    clock.close()
    assert [state for state, _ in keys] == [5, 5]
    others = (iteration.INIT, iteration.PREPARE, iteration.ASK, iteration.EVALUATE)
    purposes = [jax.random.fold_in(jax.random.key(3), p) for p in (*others, iteration.FINAL)]
    assert keys[0][1] == keys[1][1] and all(keys[0][1] != key for key in purposes)
    assert finals.hold(evaluator._replace(hooks=Hooks()), STATE, jax.random.key(3), clock) is None
