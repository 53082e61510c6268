"""SPOS from a configuration: its wiring to the task, and a small search on real images."""

import contextlib
import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax import loop, registry
from fnas_jax.knowledge import history, task_data
from fnas_jax.methods.spos import build
from tests.methods.oneshot.digits import configuration, lines


@pytest.mark.slow
def test_a_search_on_digits_trains_and_samples(tmp_path):
    result = loop.run(configuration("spos"), tmp_path)
    assert result["best"]["accuracy"] > 0.4
    training = [m for m in lines(tmp_path) if m.get("stage") == "prepare"]
    assert training[-1]["nll"] < training[0]["nll"]
    q = [value for m in lines(tmp_path) if "iteration" in m for value in m.get("log_q", [])]
    assert not q  # uniform: there is nothing to record
    with contextlib.closing(history.open_(tmp_path / "knowledge")) as connection:
        (group,) = history.groups(connection)
    protocol = json.loads(group.settings)
    assert protocol["weights"] == "inherited" and protocol["supernet"]["method"] == "spos"
    assert task_data.data_key(group.task, group.settings) == f"{group.task} ({group.protocol})"


def test_children_are_judged_with_the_weights_of_the_supernet():
    """What the method has learnt becomes the parameters that the evaluator judges by."""
    config = configuration("spos")
    task = registry.build_task(config)
    method, evaluator = build.build(config, task.space, task, None)
    state = method.init(jax.random.key(0))
    marked = state._replace(
        weights=state.weights._replace(vector=jnp.arange(len(state.weights.vector), dtype=float))
    )
    known = evaluator.hooks.load_weights(evaluator.init(), marked)
    vector = jax.flatten_util.ravel_pytree(known.learnt)[0]
    np.testing.assert_array_equal(vector, marked.weights.vector)
    assert evaluator.evaluate is not task.evaluator.evaluate
    largest = jnp.asarray(task.space.cardinalities) - 1
    fresh = jax.jit(task.oneshot().network.init)(jax.random.key(0), largest)
    own = jax.flatten_util.ravel_pytree(fresh)[0]
    np.testing.assert_array_equal(state.weights.vector, own)  # without a pool: fresh ones


@pytest.mark.parametrize(
    ("budget", "sampling", "told"),
    [(50, "evolution", True), (51, "evolution", False), (50, "uniform", False)],
)
def test_a_budget_without_children_of_the_best_is_told(caplog, budget, sampling, told):
    config = configuration("spos")
    config.search.budget, config.spos.sampling = budget, sampling
    task = registry.build_task(config)
    with caplog.at_level(logging.INFO):
        build.build(config, task.space, task, None)
    assert ("none is a child of the best" in caplog.text) == told
