"""The image task with real images and the smallest network of the cell space."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core.config import default
from fnas_jax.core.types import UserError
from fnas_jax.spaces import categorical, cell, mnas
from fnas_jax.tasks import images


@pytest.fixture(scope="module")
def config():
    config = default()
    config.children.steps = 40
    config.children.batch_size = 32
    config.search.budget = 5
    config.search.batch = 3
    config.reward.cost = "mflops"
    config.reward.target = 0.05
    config.winner.steps = 60
    return config


@pytest.fixture(scope="module")
def task(config):
    return images.build(config, cell.make(channels=4, cells_per_stage=1))


@pytest.fixture(scope="module")
def evaluated(task):
    """Two batches; the second asks for a known network, one of its own twice, and one masked."""
    archs = jnp.asarray([[3, 3, 3, 3, 3, 3], [1, 0, 0, 1, 0, 0], [2, 2, 0, 3, 1, 4]])
    again = jnp.asarray([archs[0].tolist(), [2, 3, 1, 1, 1, 1], [2, 3, 1, 1, 1, 1]])
    evaluate, everyone = task.evaluator.evaluate, jnp.ones(3, bool)
    state, first = evaluate(task.evaluator.init(), archs, everyone, jax.random.key(0))
    state, second = evaluate(state, again, everyone, jax.random.key(1))
    masked = jnp.asarray([False, True, False])
    _, third = evaluate(state, archs.at[2, 5].set(0), masked, jax.random.key(2))
    return first, second, third


def test_children_learn_the_digits(evaluated):
    first, _, _ = evaluated
    assert first.ok.all() and first.fresh.all()
    assert first.accuracy[0] > 0.6  # ten classes; forty steps
    assert (first.seconds > 0).all()


def test_costs_and_reward_are_those_of_the_network(config, task, evaluated):
    first, _, _ = evaluated
    assert first.mflops[0] == first.mflops.max()
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
    archs = jnp.asarray([[3, 3, 3, 3, 3, 3], [1, 0, 0, 1, 0, 0], [2, 2, 0, 3, 1, 4]])
    _, again = task.evaluator.evaluate(
        task.evaluator.init(), archs, jnp.ones(3, bool), jax.random.key(0)
    )
    np.testing.assert_array_equal(again.accuracy, evaluated[0].accuracy)


def test_the_winner_is_tested_beside_a_reference_of_no_smaller_cost(task):
    result = task.final(jnp.asarray([3, 0, 0, 2, 0, 3]), jax.random.key(0))
    assert result["accuracy"] > 0.6
    assert result["reference"]["accuracy"] > 0.6
    assert result["reference"]["mflops"] >= result["mflops"]
    assert result["latency_ms"] > 0
    assert result["steps"] == result["reference"]["steps"] == 60


def test_no_final_training_with_zero_steps(config):
    config = config.copy_and_resolve_references()
    config.winner.steps = 0
    task = images.build(config, cell.make(channels=4, cells_per_stage=1))
    result = task.final(jnp.asarray([0, 0, 0, 1, 0, 0]), jax.random.key(0))
    assert result["accuracy"] is None and "reference" not in result


def test_a_space_without_networks_is_refused(config):
    with pytest.raises(UserError, match="no networks"):
        images.build(config, categorical.make((2, 3)))


def test_an_unknown_data_set_is_refused(config):
    config = config.copy_and_resolve_references()
    config.task.name = "images/digist"
    with pytest.raises(UserError, match="digits"):
        images.build(config, mnas.make(blocks=1))


def test_mode_auto_is_one_after_another_on_cpus():
    assert images.mode("auto") == "map"
    assert images.mode("vmap") == "vmap"
