"""The benchmark of the posterior: its counts, its records and its command line."""

import argparse
import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import posterior as benchmark
from experiments.benchmarks import posterior_setup, table_search
from fnas_jax import iteration, registry
from fnas_jax.methods.baselines import random
from fnas_jax.methods.pgnas import build as pgnas
from fnas_jax.methods.spos import build as spos
from fnas_jax.networks.cost import cost
from fnas_jax.spaces import base, categorical
from fnas_jax.tasks import tables
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
def test_all_tasks_have_small_networks(task):
    options = argparse.Namespace(child_steps=5, steps=10, children=0)
    config = posterior_setup.configuration(task, options)
    space = posterior_setup.make_space(config)
    assert space.name == task.removesuffix("_mnist5k")
    assert config.oneshot.steps == 10
    side = config.task.image_size or 28
    _, macs = cost(space, (side, side, 1), 10)(space.largest[None])
    assert float(macs[0]) / 1e6 < 10


@pytest.mark.slow
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


def searched(unfinished_after):
    """Random search on a table by `run_random`, by a clock that ticks a second an iteration."""
    space = categorical.make((3, 3, 3))
    archs = base.enumerate_all(space)
    judged = (archs.sum(axis=1) / 10).astype(np.float32)
    nan = np.full(len(archs), np.nan, np.float32)
    table = tables.Table("t", space, archs, judged, judged[:, None], nan, nan, nan, "made up")
    evaluator = table_search.ground(table).evaluator_of(jax.random.key(0))
    method = random.make(space, batch=1)
    trained = posterior_setup.Trained(method, evaluator, iteration.compiled(method, evaluator))
    ctx = types.SimpleNamespace(task=types.SimpleNamespace(space=space), random=trained)
    return judged, archs, posterior_setup.run_random(ctx, 0, unfinished_after)


@pytest.mark.parametrize(("seconds", "iterations"), [(0.0, 1), (3.5, 4), (1e9, 30)])
def test_random_search_starts_no_child_after_its_seconds(seconds, iterations, monkeypatch):
    ticks = iter(range(10**6))
    monkeypatch.setattr(posterior_setup.time, "process_time", lambda: float(next(ticks)))
    monkeypatch.setattr(posterior_setup, "RANDOM", 30)
    judged, archs, (winner, spent, children) = searched(seconds)
    assert spent == iterations and 1 <= children <= iterations
    found = judged[(archs == winner).all(axis=1)]
    assert found.size == 1 and (seconds < 1e9 or found >= 0.5)


def test_random_search_has_the_seconds_of_pgnas_with_the_same_seed(monkeypatch):
    """The wiring of `run_seed`, with everything that trains put aside."""
    asked = []

    def run_random(ctx, seed, seconds):
        asked.append((seed, seconds))
        return np.array([9]), seconds + 0.5, 3

    monkeypatch.setattr(benchmark, "run_random", run_random)
    monkeypatch.setattr(benchmark, "judged", lambda *rest: (np.arange(4.0) / 10, 0.25))
    evolved = (np.array([[7], [8], [6]]), np.array([0.1, 0.9, 0.2]), 4.0)
    monkeypatch.setattr(benchmark, "evolved", lambda *rest: evolved)
    learnt = types.SimpleNamespace(weights=types.SimpleNamespace(vector=None), phi=None)
    state = types.SimpleNamespace(learnt=learnt, weights=learnt.weights)
    monkeypatch.setattr(benchmark, "trained", lambda method, key: (state, 2.0, 0.1))
    noise = np.zeros((4, 3), int)
    q = types.SimpleNamespace(
        draw=lambda phi, z: z,
        noise=lambda key, n: noise,
        to_archs=lambda z: z,
        mode=lambda phi: noise[0],
        entropy=lambda phi: np.zeros(1),
    )
    monkeypatch.setattr(benchmark.posterior, "make", lambda cardinalities: q)
    ctx = types.SimpleNamespace(
        task=types.SimpleNamespace(space=categorical.make((3, 3, 3))),
        guided=None,
        uniform=None,
        alone=np.zeros((2, 3), int),
    )
    judge = {"params": lambda self, vector: None, "__call__": lambda *rest: np.ones(2)}
    ctx.accuracy_of = type("Judge", (), judge)()
    options = argparse.Namespace(uniform=4, samples=4, own=2, evolved=3, search=2, children=0)
    found = benchmark.run_seed(ctx, 5, options)
    assert asked == [(5, 2.25)]  # training and the samples of the search
    assert found.figures["random", "seconds"] == 2.75 and found.figures["random", "children"] == 3
    assert found.winners["random"] == [9] and found.winners["random_network"].shape == (3,)
    assert found.winners["spos_evolution"] == [8]  # the best that it judged
    assert found.figures["spos_evolution", "seconds"] == 6.0  # the training and its judgements
    assert set(found.winners) - {"mode"} <= set(benchmark.WINNERS)


@pytest.mark.parametrize("arguments", [["--tasks", "mnist"], ["--seeds", "-1"], ["--alone", "1"]])
def test_bad_input_exits_with_2(arguments):
    with pytest.raises(SystemExit) as stop:
        benchmark.main(arguments)
    assert stop.value.code == 2
