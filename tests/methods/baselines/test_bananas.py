"""The ensemble with independent Thompson sampling on a problem with a known answer."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.config import default
from fnas_jax.methods.baselines import bananas
from fnas_jax.methods.baselines.config import Bananas
from fnas_jax.spaces.base import enumerate_all, one_hot
from tests.methods import toy

SMALL = Bananas(start=6, members=3, hidden=16, steps=60, pool=60)


def test_it_finds_a_good_network_in_a_quarter_of_the_space():
    state, trace = toy.search(bananas.make(toy.SPACE, SMALL, 2, 60), 3, 26)
    assert np.asarray(state.best.reward).min() > 0.9
    fresh = np.asarray(trace.fresh)
    assert fresh.mean() > 0.95
    late = np.asarray(trace.reward)[:, 13:].mean()
    assert late > np.asarray(trace.reward)[:, :3].mean() + 0.1


def test_the_ensemble_fits_what_it_is_shown_and_ignores_what_is_masked():
    archs = toy.SPACE.sample(jax.random.key(0), 40)
    scores = jnp.asarray(3 * toy.accuracy(np.asarray(archs)), jnp.float32)
    mask = jnp.arange(40) < 30
    x = one_hot(toy.SPACE.cardinalities, archs)
    spoilt = jnp.where(mask, scores, 1e6)
    fit = jax.jit(partial(bananas.fit, replace(SMALL, steps=300)))
    members = fit(jax.random.key(1), x, spoilt, mask)
    found = jax.jit(jax.vmap(bananas.predict, (0, None)))(members, x)
    assert found.shape == (3, 40)
    hidden = np.asarray(x)
    for w, b in members[:-1]:
        hidden = np.maximum(hidden @ w[0] + b[0], 0)
    last = hidden @ members[-1][0][0] + members[-1][1][0]
    np.testing.assert_allclose(found[0], last[:, 0], rtol=1e-3, atol=1e-4)
    assert np.abs(found.mean(axis=0) - scores)[:30].mean() < 0.15
    assert found.std(axis=0)[:30].mean() < found.std(axis=0)[30:].mean()


def test_candidates_are_drawn_about_the_best_of_what_was_measured(monkeypatch):
    """Not about what was asked for and has no reading. Here the parents are the candidates."""
    archs = jnp.asarray(enumerate_all(toy.SPACE)[:12])
    nothing = [(jnp.zeros((3, 15, 1)), jnp.zeros((3, 1)))]
    monkeypatch.setattr(bananas, "draw", lambda space, key, parents, n, existing: parents)
    monkeypatch.setattr(bananas, "fit", lambda *args: nothing)
    ctx = bananas.Context(toy.SPACE, SMALL, bananas.ELITE, 12)
    state = bananas.init(ctx, jax.random.key(0))._replace(
        canonical=archs, rewards=jnp.arange(12.0), observed=jnp.arange(12) < 10
    )
    _, proposal = jax.jit(partial(bananas.ask, ctx))(state, jax.random.key(1))
    assert sorted(proposal.archs.tolist()) == archs[2:10].tolist()


def test_failed_children_are_the_worst_and_the_state_keeps_its_shape():
    method = toy.compiled(bananas.make(toy.SPACE, SMALL, 3, 9))
    state = method.init(jax.random.key(0))
    asked, proposal = method.ask(state, jax.random.key(1))
    assert len(np.unique(proposal.archs, axis=0)) == 3
    told = method.tell(asked, proposal, toy.metrics([0.2, 0.9, 0.4], ok=[True, False, True]))
    np.testing.assert_allclose(told.rewards[:3], [0.2, 0.0, 0.4])
    np.testing.assert_allclose(told.best.reward, 0.4)
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (state, asked, told)]
    assert shapes[0] == shapes[1] == shapes[2]


def test_the_builder_reads_the_config():
    config = default()
    config.search.batch = 2
    config.bananas.members = 2

    class Task:
        evaluator, allowed, existing, refuses = "evaluator", None, None, False

    method, evaluator = bananas.build(config, toy.SPACE, Task, None)
    method = toy.compiled(method)
    _, proposal = method.ask(method.init(jax.random.key(0)), jax.random.key(1))
    assert evaluator == "evaluator" and proposal.archs.shape == (2, 5)
