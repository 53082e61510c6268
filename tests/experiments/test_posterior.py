"""The benchmark of the posterior: its counts, its records and its command line."""

import argparse

import numpy as np
import pytest

from experiments.benchmarks import posterior as benchmark
from experiments.benchmarks import posterior_setup


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


@pytest.mark.parametrize("arguments", [["--tasks", "mnist"], ["--seeds", "-1"], ["--alone", "1"]])
def test_bad_input_exits_with_2(arguments):
    with pytest.raises(SystemExit) as stop:
        benchmark.main(arguments)
    assert stop.value.code == 2
