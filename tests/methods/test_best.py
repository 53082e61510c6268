"""Which of the told rewards may be the best."""

import jax.numpy as jnp
import pytest

from fnas_jax.core.types import Metrics, propose
from fnas_jax.methods import best as best_lib


def told(rewards, stopped=None):
    rewards = jnp.asarray(rewards, jnp.float32)
    yes = jnp.ones(len(rewards), bool)
    stopped = None if stopped is None else jnp.asarray(stopped)
    return Metrics(rewards, *[rewards] * 5, ok=yes, fresh=yes, stopped=stopped)


@pytest.mark.parametrize(
    ("rewards", "stopped", "best", "value"),
    [
        ([0.3, 0.9, 0.5], None, 1, 0.9),
        ([0.3, 0.9, 0.5], [0, 0, 0], 1, 0.9),
        ([0.3, 0.9, 0.5], [0, 7, 0], 2, 0.5),
        ([0.0, 0.0, -0.5], [7, 0, 0], 1, 0.0),
    ],
)
def test_what_is_expected_of_a_child_that_was_stopped_is_never_the_best(
    rewards, stopped, best, value
):
    proposal = propose(jnp.arange(3)[:, None])
    found = best_lib.update_best(best_lib.no_best(1), proposal, told(rewards, stopped))
    assert found.arch.tolist() == [best] and float(found.reward) == pytest.approx(value)
    # A method learns from all of them.
    learnt = best_lib.measured_reward(proposal, told(rewards, stopped))
    assert learnt.tolist() == pytest.approx(rewards)


def test_where_all_were_stopped_there_is_no_best_yet():
    proposal = propose(jnp.arange(2)[:, None])
    found = best_lib.update_best(best_lib.no_best(1), proposal, told([0.5, 0.6], [3, 3]))
    assert found.reward == -jnp.inf
