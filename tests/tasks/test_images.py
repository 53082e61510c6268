"""The image task with real images and a network of one block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core.config import default
from fnas_jax.core.types import UserError
from fnas_jax.spaces import categorical, mnas
from fnas_jax.tasks import images

SPACE = mnas.make(blocks=1, strides=(2,), stem=16, stem_stride=1, head=64)
CONV, SEPARABLE, BOTTLENECK = (
    "conv-e3-k3-se0-none-f1-l+0",
    "sepconv-e3-k3-se0-none-f1-l+0",
    "mbconv-e6-k5-se0.25-pool-f1.25-l+1",
)
BATCH = jnp.asarray([SPACE.parse(text) for text in (CONV, SEPARABLE, BOTTLENECK)])
# The expansion of a convolution has no effect.
TWIN = SPACE.parse(CONV.replace("e3", "e6"))


@pytest.fixture(scope="module")
def config():
    config = default()
    config.children.steps = 50
    config.children.batch_size = 32
    config.search.budget = 8
    config.search.batch = 3
    config.reward.cost = "mflops"
    config.reward.target = 0.05
    config.winner.steps = 120
    return config


@pytest.fixture(scope="module")
def task(config):
    return images.build(config, SPACE)


@pytest.fixture(scope="module")
def evaluated(task):
    """Two batches; the second asks for a known network, one of its own twice, and one masked."""
    new = SPACE.parse(SEPARABLE.replace("k3", "k5"))
    again = jnp.asarray([TWIN, new, new])
    evaluate, everyone = task.evaluator.evaluate, jnp.ones(3, bool)
    state, first = evaluate(task.evaluator.init(), BATCH, everyone, jax.random.key(0))
    state, second = evaluate(state, again, everyone, jax.random.key(1))
    masked = jnp.asarray([False, True, False])
    _, third = evaluate(state, BATCH.at[0, 2].set(1), masked, jax.random.key(2))
    return first, second, third


def test_children_learn_the_digits(evaluated):
    first, _, _ = evaluated
    assert first.ok.all() and first.fresh.all()
    assert (first.accuracy > 0.5).all()  # ten classes
    assert (first.seconds > 0).all()


def test_costs_and_reward_are_those_of_the_network(config, task, evaluated):
    first, _, _ = evaluated
    assert first.mflops[2] == first.mflops.max()
    ratio = np.asarray(first.mflops) / config.reward.target
    np.testing.assert_allclose(first.reward, first.accuracy * ratio**-0.07, rtol=1e-5)
    assert np.isnan(first.latency_ms).all()


def test_known_networks_are_not_trained_again(evaluated):
    first, second, third = evaluated
    assert second.fresh.tolist() == [False, True, False]
    assert second.accuracy[0] == first.accuracy[0]
    assert second.accuracy[1] == second.accuracy[2]
    assert second.seconds[2] == 0
    assert not third.fresh.any()
    assert third.ok.tolist() == [False, True, False]


def test_equal_keys_give_equal_accuracies(task, evaluated):
    _, again = task.evaluator.evaluate(
        task.evaluator.init(), BATCH, jnp.ones(3, bool), jax.random.key(0)
    )
    np.testing.assert_array_equal(again.accuracy, evaluated[0].accuracy)


def test_the_winner_is_tested_beside_a_reference_of_equal_cost(task):
    result, network = task.final(BATCH[1], jax.random.key(0))
    assert result["accuracy"] > 0.5
    assert result["reference"]["accuracy"] > 0.5
    # Of a network of so few channels, one more or less is more than 5%.
    assert abs(result["reference"]["mflops"] / result["mflops"] - 1) <= 0.15
    assert result["latency_ms"] > 0
    assert result["steps"] == result["reference"]["steps"] == 120
    assert network.accuracy == result["accuracy"]
    np.testing.assert_array_equal(network.arch, SPACE.canonical(BATCH[1:2])[0])
    assert network.recipe["steps"] == 120 and network.recipe["batch_size"] == 32


def test_no_final_training_with_zero_steps(config):
    config = config.copy_and_resolve_references()
    config.winner.steps = 0
    task = images.build(config, SPACE)
    result, network = task.final(BATCH[0], jax.random.key(0))
    assert network is None and result["accuracy"] is None and "reference" not in result


def test_a_space_without_networks_is_refused(config):
    with pytest.raises(UserError, match="no networks"):
        images.build(config, categorical.make((2, 3)))


def test_an_unknown_data_set_is_refused(config):
    config = config.copy_and_resolve_references()
    config.task.name = "images/digist"
    with pytest.raises(UserError, match="digits"):
        images.build(config, mnas.make(blocks=1))


@pytest.mark.parametrize(("metric", "wrong"), [("accuracy", "minimize"), ("loss", "maximize")])
def test_a_direction_that_is_not_the_metrics_is_refused(config, metric, wrong):
    given = config.copy_and_resolve_references()
    given.task.metric, given.task.direction = metric, wrong
    with pytest.raises(UserError, match=rf"task\.direction is '{wrong}', and {metric} is"):
        images.build(given, SPACE)
    given.task.direction = {"minimize": "maximize", "maximize": "minimize"}[wrong]
    assert images.build(given, SPACE).measure.direction == given.task.direction
