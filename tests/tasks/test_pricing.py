"""`reward.training`: what is multiplied with the rewards of children, finalists, and at rungs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax import registry
from fnas_jax.core import config as config_lib
from fnas_jax.core.measure import Measure
from fnas_jax.core.types import UserError
from fnas_jax.networks import cost, sizes
from fnas_jax.tasks import children_evaluator, finalists, halved, images, pricing
from fnas_jax.tasks.context import batch_of
from fnas_jax.training import halving
from fnas_jax.training.child import Outcome

KEY = jax.random.key(0)
PRICED = {
    "reward.training": -0.5,
    "reward.training_mean": 2.0,
    "reward.training_moved": 50.0,
    "space.blocks": 2,
    "space.strides": (1, 2),
    "space.stem_stride": 1,
    "akp.enabled": False,
}


def context(**changes):
    flat = {name.replace("__", "."): value for name, value in changes.items()}
    flat = config_lib.flatten(config_lib.default()) | PRICED | flat
    config = config_lib.validate(config_lib.nest(flat))
    return images.train_context(config, registry.build_space(config), images.load(config))


@pytest.fixture(scope="module")
def ctx():
    return context()


@pytest.fixture(scope="module")
def archs(ctx):
    return ctx.canonical(ctx.space.sample(jax.random.key(3), 4))


@pytest.fixture(scope="module")
def expected(ctx, archs):
    """By hand: (work / 2 million)^-0.5."""
    shape, outputs = ctx.dataset.image_shape, ctx.dataset.outputs
    found = []
    for arch in np.asarray(archs):
        _, macs = cost.one_cost(ctx.space, arch, shape, outputs)
        kept = sizes.by_kernels(ctx.space, shape, arch).layers / 4
        found.append(((macs + 50 * kept) / 2e6) ** -0.5)
    assert len(np.unique(found)) == 4
    return np.array(found)


def outcome(n, accuracy=0.8):
    ones = jnp.ones(n)
    return Outcome(accuracy * ones, ones, jnp.ones(n, bool))


def test_prices_are_those_of_what_networks_do_and_move(ctx, archs, expected):
    np.testing.assert_allclose(ctx.prices(archs), expected, rtol=1e-5)
    still = context(reward__training_moved=0.0).prices(archs)
    macs = np.asarray(ctx.cost(archs)[1], float)
    np.testing.assert_allclose(still, (macs / 2e6) ** -0.5, rtol=1e-5)
    plain = context(reward__training=0.0)
    assert plain.price is None and plain.prices(archs).tolist() == [1, 1, 1, 1]


def test_children_get_their_own_price_and_costs_stay_unknown(ctx, archs, expected):
    def judge(learnt, batch, key):
        return learnt, outcome(len(batch.new))

    made = children_evaluator.make(ctx, judge, lambda: jnp.int32(0))
    _, metrics = made.evaluate(made.init(), archs, jnp.ones(4, bool), KEY)
    np.testing.assert_allclose(metrics.reward, 0.8 * expected, rtol=1e-5)
    np.testing.assert_allclose(metrics.accuracy, 0.8, rtol=1e-6)
    assert np.isnan(metrics.latency_ms).all()  # a price is no latency


def test_finalists_get_the_same_price(ctx, archs, expected):
    made = children_evaluator.make(
        ctx, lambda learnt, batch, key: (learnt, outcome(len(batch.new))), lambda: jnp.int32(0)
    )
    state, _ = made.evaluate(made.init(), archs, jnp.ones(4, bool), KEY)
    held = finalists.hold(ctx, lambda learnt, batch, key: outcome(len(batch.new), 0.9), state, KEY)
    places = [np.flatnonzero((np.asarray(archs) == a).all(1))[0] for a in held.archs]
    np.testing.assert_allclose(held.reward, 0.9 * expected[places], rtol=1e-5)
    assert held.reward[0] == held.reward.max()  # the fastest one


def test_children_at_a_rung_are_compared_with_their_prices(ctx, archs, expected):
    batch = batch_of(ctx, archs, jnp.ones(4, bool))
    by = halved.ranked(ctx, halving.empty(2), batch, np.zeros(4, np.int32))
    np.testing.assert_allclose(by.costs[:, 3], expected, rtol=1e-5)


def test_a_target_and_a_price_are_both_in_the_reward(archs, expected):
    both = context(reward__cost="params_m", reward__target=0.01, reward__alpha=0.0)

    def judge(learnt, batch, key):
        return learnt, outcome(len(batch.new))

    made = children_evaluator.make(both, judge, lambda: jnp.int32(0))
    _, metrics = made.evaluate(made.init(), archs, jnp.ones(4, bool), KEY)
    soft = functools.partial(jnp.power, np.maximum(np.asarray(metrics.params_m) / 0.01, 1))
    np.testing.assert_allclose(metrics.reward, 0.8 * soft(-0.07) * expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"reward__training_mean": 0.0}, "reward.training_mean is 0; with reward.training -0.5"),
        ({"space__name": "cell", "space__width": 1.0}, "'cell' move in training; it is for mnas"),
    ],
)
def test_what_cannot_be_priced_is_refused(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        context(**changes)


def test_a_measure_of_unknown_values_is_not_weighed(ctx):
    of_anything = Measure("x", kind="number")
    with pytest.raises(UserError, match="the metric is 'x': only an accuracy"):
        pricing.of(ctx.config, ctx.space, ctx.dataset, of_anything, ctx.cost)
