"""The benchmark of the posterior: its counts, its records and its command line."""

import argparse
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import posterior as benchmark
from experiments.benchmarks import posterior_setup
from fnas_jax import registry
from fnas_jax.methods.pgnas import build as pgnas
from fnas_jax.methods.spos import build as spos
from tests.methods.oneshot.digits import configuration


def test_samples_to_match_counts_from_one():
    values = np.array([0.2, 0.5, 0.4, 0.9])
    assert benchmark.first(values, 0.2) == 1
    assert benchmark.first(values, 0.45) == 2
    assert benchmark.first(values, 0.95) == np.inf


def test_records_are_flat_and_finite():
    never = benchmark.record("t", "pgnas", "samples_to_match_uniform1000", [1.0, 2.0, np.inf])
    assert (never["value"], never["low"], never["high"]) == (2.0, 1.0, None)
    assert never["n"] == 3 and never["benchmark"] == "posterior"
    mean = benchmark.record("t", "spos", "mean_accuracy", [0.5, 0.7])
    assert mean["value"] == pytest.approx(0.6)


@pytest.mark.parametrize("task", posterior_setup.TASKS)
def test_both_tasks_have_small_networks(task):
    options = argparse.Namespace(child_steps=5, steps=10, children=0)
    config = posterior_setup.configuration(task, options)
    space = posterior_setup.make_space(config)
    assert space.name == task.partition("_")[0]
    assert config.oneshot.steps == 10


def test_both_supernets_are_trained_alike():
    """Learning rates, what decays, and how much of it: PGNAS's from its ELBO."""
    config = configuration("pgnas")
    config.pgnas.precision = 0.5
    task = registry.build_task(config)
    uniform, _ = spos.build(config, task.space, posterior_setup.decaying_alike(config, task), None)
    guided, _ = pgnas.build(config, task.space, task, None)
    state = {name: m.init(jax.random.key(0)) for name, m in (("u", uniform), ("g", guided))}
    contexts = uniform.init.args[0], guided.init.args[0].training
    examples = len(task.oneshot().data.train_labels)
    rates = [contexts[0].decay, contexts[1].config.precision / contexts[1].examples]
    np.testing.assert_allclose(rates, 0.5 / examples)
    nets = [c.net for c in contexts]
    assert nets[0].updates == nets[1].updates
    settings = [dataclasses.replace(net.settings, weight_decay=0) for net in nets]
    assert settings[0] == settings[1]
    arch = jnp.asarray(task.space.cardinalities) - 1
    used = [np.asarray(net.used_weights(arch)) for net in nets]
    np.testing.assert_array_equal(*used)
    vectors = state["u"].weights.vector, state["g"].learnt.weights.vector
    np.testing.assert_array_equal(*vectors)
    assert used[0].any()
    masks = nets[0].params(jnp.asarray(used[0], jnp.float32))
    for path, mask in jax.tree_util.tree_leaves_with_path(masks):
        if any(word in str(path[-1]) for word in ("scale", "bias", "b1", "b2")):
            assert not mask.any()


@pytest.mark.parametrize("arguments", [["--tasks", "mnist"], ["--seeds", "-1"], ["--alone", "1"]])
def test_bad_input_exits_with_2(arguments):
    with pytest.raises(SystemExit) as stop:
        benchmark.main(arguments)
    assert stop.value.code == 2
