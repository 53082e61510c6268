"""One iteration by itself: its keys, its counts, its rows and who its best is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax import iteration
from fnas_jax.core.clock import Clock
from fnas_jax.core.measure import Measure
from fnas_jax.core.types import Metrics, Proposal
from fnas_jax.methods.base import Best, SearchMethod
from fnas_jax.tasks.base import Evaluator

ARCHS = jnp.array([[0, 1], [1, 1], [2, 0], [2, 0]])
MASK = jnp.array([True, True, False, True])
KEY = jax.random.key(3)


def ask(state, key):
    """Always the same four; the third one is predicted. Draws a number, to be seen in the state."""
    predicted = jnp.array([0.1, 0.2, 0.3, 0.4])
    proposal = Proposal(ARCHS, MASK, jnp.zeros(4), predicted, jnp.full(4, jnp.inf))
    return state | {"drawn": jax.random.uniform(key)}, proposal


def tell(state, proposal, metrics):
    best = jnp.where(metrics.ok, metrics.reward, -jnp.inf).argmax()
    return state | {"arch": proposal.archs[best], "reward": metrics.reward[best]}


METHOD = SearchMethod(
    init=lambda key: {
        "drawn": jnp.float32(0),
        "arch": jnp.zeros(2, jnp.int32),
        "reward": jnp.float32(-jnp.inf),
    },
    ask=ask,
    tell=tell,
    best=lambda state: Best(state["arch"], state["reward"]),
    stats=lambda state: {"replayed": jnp.int32(5)},
)


def evaluate(known, archs, mask, key):
    """The second one fails, the fourth was known before."""
    accuracy = jnp.array([0.5, 0.0, 0.0, 0.7])
    nan = jnp.full(4, jnp.nan)
    ok = jnp.array([True, False, False, True])
    fresh = jnp.array([True, True, False, False])
    metrics = Metrics(accuracy, accuracy / 2, nan, jnp.arange(4.0), nan, nan, ok, fresh)
    return jax.random.uniform(key), metrics


EVALUATOR = Evaluator(lambda: jnp.float32(0), evaluate, jittable=True)


@pytest.fixture(scope="module")
def steps():
    return iteration.compiled(METHOD, EVALUATOR)


def once(steps, state=None):
    clock = Clock()
    state = iteration.initial(METHOD, EVALUATOR, 2, KEY) if state is None else state
    found = iteration.iterate(steps, state, KEY, clock)
    clock.close()
    return found


def test_everything_is_counted_once(steps):
    state, _, scalars = once(steps)
    assert state.counts == {
        "trained": 2,
        "predicted": 1,
        "replayed": 5,
        "failed": 1,
        "prepared": 0,
        "over_limit": 0,
        "proposed": 4,
    }
    assert state.iteration == scalars["iteration"] == 1
    assert scalars["new"] == 2  # of which one failed
    assert scalars["accuracy"] == 0.5  # of the new one that did not fail
    state, _, _ = once(steps, state)
    assert state.counts["trained"] == 4 and state.counts["proposed"] == 8


def test_rows_are_what_is_new_and_what_is_predicted(steps):
    _, rows, _ = once(steps)
    assert [(row.position, row.trained, row.ok) for row in rows] == [
        (0, True, True),
        (1, True, False),
        (2, False, True),
    ]
    assert rows[0].mflops == 0.0 and rows[1].mflops == 1.0 and np.isnan(rows[0].latency_ms)
    assert rows[2].reward == pytest.approx(0.3) and np.isnan(rows[2].accuracy)


def test_rows_hold_the_form_that_was_evaluated_and_the_state_what_was_asked():
    evaluator = EVALUATOR._replace(form=lambda archs: 5 - archs)
    state, rows, _ = once(iteration.compiled(METHOD, evaluator))
    assert [row.decisions.tolist() for row in rows] == [[5, 4], [4, 4], [3, 5]]
    assert state.best_arch.tolist() == [2, 0] and state.best[0] == np.float32(0.7)


def test_keys_depend_on_the_purpose_and_on_the_iteration_alone(steps):
    first, _, _ = once(steps)
    again, _, _ = once(steps)
    drawn = lambda state: (float(state.method["drawn"]), float(state.evaluator))  # noqa: E731
    assert drawn(first) == drawn(again)
    second, _, _ = once(steps, first)
    resumed, _, _ = once(steps, iteration.initial(METHOD, EVALUATOR, 2, KEY)._replace(iteration=1))
    assert drawn(second) == drawn(resumed)
    numbers = [*drawn(first), *drawn(second)]
    assert len(set(numbers)) == 4


def test_the_best_has_its_own_figures(steps):
    state, _, scalars = once(steps)
    assert state.best_arch.tolist() == [2, 0]
    np.testing.assert_allclose(state.best, [0.7, 0.35, np.nan, 3.0, np.nan], rtol=1e-6)
    assert scalars["best_reward"] == state.best[1]


def test_a_best_that_was_not_proposed_has_a_reward_only():
    method = METHOD._replace(best=lambda state: Best(jnp.array([3, 3]), jnp.float32(0.9)))
    state, _, _ = once(iteration.compiled(method, EVALUATOR))
    assert state.best_arch.tolist() == [3, 3]
    np.testing.assert_allclose(state.best, [np.nan, 0.9, np.nan, np.nan, np.nan], rtol=1e-6)


def test_no_best_yet_leaves_the_state_as_it_was():
    method = METHOD._replace(best=lambda state: Best(ARCHS[0], jnp.float32(-jnp.inf)))
    state, _, scalars = once(iteration.compiled(method, EVALUATOR))
    assert (state.best_arch == -1).all() and np.isnan(state.best).all()
    assert "no result yet" in iteration.line(scalars, Measure())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, "iteration 4: mean accuracy 0.5000, best 0.7000"),
        ({"accuracy": None, "new": 0}, "iteration 4: none new, best 0.7000"),
        ({"accuracy": None}, "iteration 4: 7 new, all failed, best 0.7000"),
        ({"best_reward": 0.6}, "iteration 4: mean accuracy 0.5000, best 0.7000 (reward 0.6000)"),
        (
            {"predicted": 9, "proposed": 40},
            "iteration 4: mean accuracy 0.5000, best 0.7000, 9 predicted, 40 proposed",
        ),
    ],
)
def test_the_line_of_an_iteration(change, text):
    scalars = {
        "iteration": 4,
        "new": 7,
        "accuracy": 0.5,
        "best_accuracy": 0.7,
        "best_reward": 0.7,
        "reward": 0.5,
        "trained": 28,
        "predicted": 0,
        "proposed": 28,
    }
    assert iteration.line(scalars | change, Measure()) == text


def test_pairs_are_what_was_predicted_of_new_networks_beside_what_came_out(steps):
    assert "pairs" not in once(steps)[2]  # nothing of which the method was sure in any way
    proposal = Proposal(ARCHS, MASK, jnp.zeros(4), jnp.array([0.1, 0.2, 0.3, 0.4]), jnp.ones(4) / 8)
    _, metrics = evaluate(None, ARCHS, MASK, KEY)
    host = jax.device_get((proposal, metrics))
    expected = {"predicted": [0.1], "measured": [0.25], "std": [0.125]}  # the others: failed, known
    assert iteration.pairs(*host) == {"pairs": expected}
    unknown = host[0]._replace(predicted=np.full(4, np.nan))
    assert iteration.pairs(unknown, host[1]) == {}


def test_details_of_a_method_are_lists_of_four_decimals(steps):
    method = METHOD._replace(details=lambda state: {"policy": state["drawn"] + jnp.eye(2) / 3})
    state = iteration.initial(method, EVALUATOR, 2, KEY)
    known = iteration.compiled(method, EVALUATOR)
    assert iteration.details(known, state) == {"policy": [[0.3333, 0.0], [0.0, 0.3333]]}
    assert iteration.details(steps, state) == {}
