"""SPOS: what a step trains, and what is judged after the training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core.types import propose
from fnas_jax.methods.pgnas import posterior
from fnas_jax.methods.spos import method
from fnas_jax.methods.spos.config import Spos
from fnas_jax.spaces import categorical
from tests.methods import toy as search_toy
from tests.methods.pgnas import toy

CARDS = (3, 2)
SPACE = categorical.make(CARDS)
FEATURES, TARGETS = map(jnp.asarray, toy.regression(CARDS, 12))


def switches(arch):
    return jax.nn.one_hot(arch, 3)


def squared_error(params, arch, z, images, labels):
    assert z.size == 0  # no derivatives in switches are asked for
    return toy.squared_error(params, arch, switches(arch), images, labels)


@pytest.fixture
def ctx():
    net = toy.make(posterior.make(CARDS), squared_error, steps=20)
    initial = lambda key: {"w": jax.random.normal(key, (2, 3))}  # noqa: E731
    return method.Context(SPACE, net, Spos(sampling="uniform"), 0.1, 6000, initial)


def test_samples_are_uniform_and_say_so(ctx):
    state = method.init(ctx, jax.random.key(0))
    state, proposal = method.ask(ctx, state, jax.random.key(1))
    state = method.tell(ctx, state, proposal, search_toy.metrics(np.linspace(0, 1, 6000)))
    state, proposal = method.ask(ctx, state, jax.random.key(2))
    assert proposal.train_mask.all()
    archs, counts = np.unique(proposal.archs, axis=0, return_counts=True)
    assert len(archs) == 6
    # 1000 of each, with a deviation of 29.
    assert np.abs(counts - 1000).max() < 120
    np.testing.assert_allclose(proposal.log_prob, -np.log(6), rtol=1e-6)


def test_a_step_trains_one_uniform_architecture(ctx):
    """What it does not use stays as it was, and is another one with another key."""
    state = method.init(ctx, jax.random.key(0))
    train = jax.jit(functools.partial(method.train, ctx))
    loss = jax.jit(squared_error)
    trained = set()
    for i in range(30):
        new, scalars = train(state, FEATURES, TARGETS, jax.random.key(i))
        arch = SPACE.sample(jax.random.key(i), 1)[0]
        moved = np.asarray(new.weights.vector != state.weights.vector).reshape(2, 3)
        np.testing.assert_array_equal(moved, np.asarray(switches(arch)) > 0)
        wanted = loss(
            ctx.net.params(state.weights.vector), arch, jnp.zeros((0, 0)), FEATURES, TARGETS
        )
        np.testing.assert_allclose(scalars["nll"], wanted, rtol=1e-5)
        assert method.steps_done(new) == 1
        trained.add(tuple(arch.tolist()))
    assert len(trained) == 6


def test_the_best_sample_is_kept(ctx):
    state = method.init(ctx, jax.random.key(0))
    archs = jnp.asarray([[0, 0], [2, 1], [1, 1]])
    state = method.tell(ctx, state, propose(archs), search_toy.metrics([0.3, 0.6, 0.5]))
    state = method.tell(ctx, state, propose(archs[:1]), search_toy.metrics([0.4]))
    assert state.best.arch.tolist() == [2, 1]
    np.testing.assert_allclose(state.best.reward, 0.6)


def test_a_report_says_the_mean_loss():
    assert method.report(None, {"nll": np.float32(0.5)}) == {"nll": 0.5, "text": ": nll 0.5000"}


def test_after_uniform_ones_come_children_of_the_best(ctx):
    """Uniform until `start` were asked for; then networks near the best, and none of these."""
    space = categorical.make((4,) * 12)
    ctx = ctx._replace(space=space, config=Spos(start=4, parents=2, mutation=0.1), proposals=4)
    state = method.init(ctx, jax.random.key(0))
    state, first = method.ask(ctx, state, jax.random.key(1))
    np.testing.assert_array_equal(first.archs, space.sample(jax.random.key(1), 4))
    state = method.tell(ctx, state, first, search_toy.metrics([0.1, 0.9, 0.2, 0.8]))
    state, second = method.ask(ctx, state, jax.random.key(2))
    best = np.asarray(first.archs)[[1, 3]]
    agrees = (np.asarray(second.archs)[:, None] == best).mean(-1).max(-1)
    assert (agrees > 0.45).all() and (agrees < 1).all()  # 0.25 on average for uniform ones
    # What was known before is no parent in this form, nor does it count as judged.
    again = search_toy.metrics([1.0] * 4)._replace(fresh=jnp.zeros(4, bool))
    later = method.tell(ctx, state, second, again)
    np.testing.assert_array_equal(later.parents.archs, state.parents.archs)
    assert later.judged == state.judged == 4


def test_where_nothing_could_be_judged_samples_stay_uniform(ctx):
    space = categorical.make((4,) * 12)
    ctx = ctx._replace(space=space, config=Spos(start=4), proposals=4)
    state, first = method.ask(ctx, method.init(ctx, jax.random.key(0)), jax.random.key(1))
    refused = search_toy.metrics([np.nan] * 4)
    state = method.tell(ctx, state, first, refused)
    state, second = method.ask(ctx, state, jax.random.key(2))
    np.testing.assert_array_equal(second.archs, space.sample(jax.random.key(2), 4))
