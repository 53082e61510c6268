"""The search: it uses what helps, drops what misleads, and works in every mode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.methods.tnas import method as tnas
from fnas_jax.methods.tnas import networks
from fnas_jax.spaces.enumerate import enumerate_networks
from tests.methods import toy
from tests.methods.tnas import small

KNOWN = small.known()
BEST = float(small.truth().max())


def first(trace):
    """Evaluations until the best network, by seed."""
    return (np.asarray(trace.reward).reshape(len(trace.reward), -1) >= BEST - 1e-6).argmax(axis=1)


@pytest.fixture(scope="module")
def weights():
    return networks.init(jax.random.key(0), toy.SPACE, small.NET, 2, 1)


@pytest.fixture(scope="module")
def cold():
    return toy.search(tnas.make(toy.SPACE, small.SMALL), 2, 28)


def test_without_a_history_it_finds_the_best_and_asks_for_nothing_twice(cold):
    state, trace = cold
    assert np.asarray(state.best.reward).min() > BEST - 1e-6
    assert np.asarray(trace.fresh).all()
    assert (np.asarray(state.places) == 28).all() and (np.asarray(state.share) == 0).all()


def test_a_like_task_saves_evaluations(cold, weights):
    state, trace = toy.search(tnas.make(toy.SPACE, small.SMALL, KNOWN, weights), 2, 8)
    assert np.asarray(state.best.reward).min() > BEST - 1e-6
    assert first(trace).mean() < first(cold[1]).mean() / 2
    assert (np.asarray(state.share) > 0.9).all()
    # Only 120 of the 2 x 216 networks are known: what is found need not be among them.
    assert np.asarray(trace.stats["foreign_rows"]).min() == 120


def test_a_history_that_misleads_is_given_up(weights):
    method = tnas.make(toy.SPACE, small.SMALL, small.known(sign=-1.0), weights)
    state, _ = toy.search(method, 2, 28)
    assert (np.asarray(state.share) < 0.5).all()
    assert np.asarray(state.best.reward).min() > BEST - 0.1


def test_the_first_proposals_are_the_design(weights):
    config = small.SMALL._replace(start_warm=3)
    state, trace = toy.search(tnas.make(toy.SPACE, config, KNOWN, weights), 1, 3)
    np.testing.assert_array_equal(trace.archs[0, :, 0], state.design[0])
    # The first has the best mean score of all that is known.
    rows, mask = np.asarray(KNOWN.forms)[KNOWN.mask], np.asarray(KNOWN.scores)[KNOWN.mask]
    forms, place = np.unique(rows, axis=0, return_inverse=True)
    mean = np.bincount(place.reshape(-1), mask) / np.bincount(place.reshape(-1))
    np.testing.assert_array_equal(state.design[0, 0], forms[mean.argmax()])


@pytest.mark.parametrize(
    "changes",
    [
        {"limit": 10, "pool": 48, "batch": 2},
        *(
            pytest.param(changes, marks=pytest.mark.slow)
            for changes in (
                {"acquisition": "ucb", "target": "standard", "design": "random"},
                {"adapt": "all", "adapt_steps": 2},
                {"adapt": "none", "batch": 3},
            )
        ),
    ],
    ids=["drawn", "ucb", "all", "none"],
)
def test_every_mode_learns(changes, weights):
    config = small.SMALL._replace(**changes)
    iterations = 8 // config.batch + 1
    state, trace = toy.search(tnas.make(toy.SPACE, config, KNOWN, weights), 1, iterations)
    assert float(state.best.reward[0]) > 0.85
    assert np.asarray(trace.fresh).all()
    assert np.isfinite(trace.stats["trust"]).all()


def test_a_batch_believes_what_it_asked_for_before(weights):
    """The second of a batch is not what it would be without the first being told."""
    method = tnas.make(toy.SPACE, small.SMALL._replace(batch=2, start=2))
    state = method.init(jax.random.key(0))
    state, proposal = method.ask(state, jax.random.key(1))
    state = method.tell(state, proposal, toy.metrics([0.3, 0.8]))
    _, proposal = method.ask(state, jax.random.key(2))
    assert (proposal.archs[0] != proposal.archs[1]).any()
    single = tnas.make(toy.SPACE, small.SMALL._replace(batch=1, start=2))
    narrow = state._replace(asked=state.asked[:1])
    _, alone = single.ask(narrow, jax.random.key(2))
    np.testing.assert_array_equal(alone.archs[0], proposal.archs[0])


def test_failed_children_are_the_worst_and_the_state_keeps_its_shape(weights):
    method = tnas.make(toy.SPACE, small.SMALL._replace(batch=3), KNOWN, weights)
    state = method.init(jax.random.key(0))
    asked, proposal = method.ask(state, jax.random.key(1))
    told = method.tell(asked, proposal, toy.metrics([0.2, 0.9, 0.4], ok=[True, False, True]))
    np.testing.assert_allclose(told.rewards[:3], [0.2, 0.0, 0.4])
    np.testing.assert_allclose(told.best.reward, 0.4)
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (state, asked, told)]
    assert shapes[0] == shapes[1] == shapes[2]


def test_beyond_its_capacity_it_goes_on():
    state, trace = toy.search(tnas.make(toy.SPACE, small.SMALL._replace(capacity=4, start=2)), 1, 6)
    assert int(state.places[0]) == 4 and np.asarray(trace.ok).all()


def test_learning_goes_on_where_it_was_and_hands_over_what_it_learnt():
    kept = []
    method = tnas.make(
        toy.SPACE, small.SMALL, KNOWN, keep=lambda weights, tau: kept.append((weights, tau))
    )
    start, key = method.init(jax.random.key(0)), jax.random.key(1)
    states = list(method.prepare(start, key))
    assert [m["iteration"] for _, m in states] == [4, 8] and len(kept) == 1
    resumed = list(method.prepare(states[0][0], key))
    assert len(resumed) == 1
    jax.tree.map(np.testing.assert_array_equal, resumed[0][0], states[1][0])
    assert not list(method.prepare(states[1][0], key))
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (start, states[1][0])]
    assert shapes[0] == shapes[1]
    # With the weights at hand nothing is left to learn, and the state is of the same form.
    given = tnas.make(toy.SPACE, small.SMALL, KNOWN, kept[0][0])
    ready = given.init(jax.random.key(0))
    assert not list(given.prepare(ready, key))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), ready) == shapes[0]
    np.testing.assert_allclose(ready.warm.view.mean, states[1][0].warm.view.mean, atol=1e-3)


def test_unknown_options_are_refused():
    for name in ("acquisition", "adapt", "design", "target"):
        with pytest.raises(ValueError, match=f"{name} 'magic' is none of"):
            tnas.make(toy.SPACE, small.SMALL._replace(**{name: "magic"}))


def test_the_space_is_listed_by_network():
    state = tnas.make(toy.SPACE, small.SMALL).init(jax.random.key(0))
    assert state.cold.view.xi.shape[0] == len(enumerate_networks(toy.SPACE))
    assert jnp.isfinite(state.cold.view.xi).all()
