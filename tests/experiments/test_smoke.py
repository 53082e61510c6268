"""The benchmarks that train children, or time a method, at the smallest size that they take."""

import json
import re

import pytest

from experiments.benchmarks import (
    child_steps,
    children_throughput,
    early_stopping,
    equal_images,
    image_search,
    input_streams,
    method_overhead,
    pool_convergence,
    posterior,
    posterior_defaults,
    store_load,
    winner_devices,
)
from experiments.benchmarks.throughput import common

KEYS = ["benchmark", "task", "method", "metric", "value", "low", "high"]
KEYS += ["median_low", "median_high", "n"]
SMALL = {
    image_search: (
        "--methods=ppo,ppo_short,ppo_pool,random,fnas,fnas_no_akp --seeds=1 --proposals=8 --steps=4"
        " --judge_steps=1",
        {"ppo", "ppo_short", "ppo_pool", "random", "fnas", "fnas_no_akp"},
        {"test_accuracy", "validation_accuracy", "trained_share", "steps", "seconds"}
        | {"test_accuracy_minus_ppo", "steps_over_ppo", "seconds_won_from_ppo"},
    ),
    early_stopping: (
        "--methods=random,hyperband,fnas --etas=0,2 --seeds=1 --steps=4 --budget=40"
        " --judge_steps=1",
        {"random", "random_eta2", "hyperband_eta2", "fnas", "fnas_eta2"},
        {"test_accuracy", "steps", "seconds", "test_accuracy_minus_fnas"}
        | {"test_accuracy_minus_random"},
    ),
    equal_images: (
        "--task=digits --methods=fnas,fnas_no_features,gp,fnas_pool,random_pool --at=1,2 --seeds=1"
        " --steps=4 --judge_steps=1",
        {
            f"{name}@{at}k"
            for name in ("fnas", "fnas_no_features", "gp", "fnas_pool", "random_pool")
            for at in (1, 2)
        },
        {"test_accuracy", "validation_accuracy", "trained"}
        | {"test_accuracy_minus_fnas", "test_accuracy_won_from_fnas_pool"},
    ),
    pool_convergence: (
        "--tasks=mnist5k --seeds=1 --archs=2 --steps=8 --long=1 --pool=1 --rounds=1 --pool_steps=1",
        {"inherited", "scratch"},
        {"steps_ratio", "hit_ratio", "points_after_quarter", "kendall_tau"}
        | {"teachers_steps", "break_even_children", "rounds_break_even_children"},
    ),
    posterior: (
        "--tasks=macro_mnist5k --seeds=1 --steps=2 --samples=2 --search=1 --uniform=2 --own=1"
        " --evolved=2 --children=0 --alone=2 --long=1 --gammas=",
        {"pgnas", "spos", "spos_evolution", "pgnas_own", "random", "random_network"},
        {"mean_accuracy", "best_accuracy", "kendall_tau", "mode_rank", "final_accuracy", "seconds"}
        | {"samples_to_match_uniform2", "children"},
    ),
    posterior_defaults: (
        "--tasks=macro_mnist5k --variants=default,precision=0 --seeds=1 --steps=2 --samples=2"
        " --search=1 --long=1",
        {"default", "precision=0"},
        {"mean_accuracy", "best_accuracy", "entropy", "final_accuracy", "seconds"}
        | {f"{m}_minus_default" for m in ("mean_accuracy", "best_accuracy", "final_accuracy")}
        | {f"{m}_won_from_default" for m in ("mean_accuracy", "best_accuracy", "final_accuracy")},
    ),
    winner_devices: (
        "--devices=1 --seeds=1 --steps=2",
        {"devices_1"},
        {"test_accuracy", "test_accuracy_minus_devices_1", "seconds"},
    ),
    input_streams: (
        "--images=200 --side=8 --chunk=70 --turns=1",
        {"resident", "ahead", "in_turn"},
        {"images_per_second", "share_of_resident"},
    ),
    method_overhead: (
        "--iterations=1 --seeds=1 --proposals=8",
        {"fnas"},
        {"iteration_ms", "iteration_cpu_ms", "seconds"},
    ),
    store_load: (
        "--rows=40 --runs=20 --processes=2 --iterations=2 --proposals=400",
        {"insert", "commit", "commit by 2", "start", "resume", "fnas", "tnas", "trials", "report"}
        | {"random"},
        {"rows_per_second", "ms", "most_ms", "rows_lost", "seconds", "cpu", "mib", "mib_growth"},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", SMALL, ids=lambda module: module.BENCHMARK)
def test_the_smallest_run_writes_the_documented_figures(benchmark, tmp_path, capsys):
    arguments, methods, metrics = SMALL[benchmark]
    path = tmp_path / "out.json"
    assert benchmark.main([*arguments.split(), f"--json={path}"]) == 0
    done, _, of = re.search(r"^(\d+)(/)(\d+) done$", capsys.readouterr().err, re.MULTILINE).groups()
    assert done == of != "0"  # it told how far it was
    found = json.loads(path.read_text())
    assert all(list(record) == KEYS for record in found)
    assert {record["benchmark"] for record in found} == {benchmark.BENCHMARK}
    assert {record["method"] for record in found} == methods
    assert metrics <= {record["metric"] for record in found}


@pytest.mark.slow
@pytest.mark.parametrize("space", common.SPACES)
def test_pytorch_trains_the_same_children_in_one_process_and_in_one_a_core(tmp_path, space):
    pytest.importorskip("torch")
    path = tmp_path / "out.json"
    arguments = f"--methods=torch,torch_per_core --children=2 --group=2 --steps=2 --space={space}"
    assert children_throughput.main([*arguments.split(), f"--json={path}"]) == 0
    assert {record["task"] for record in json.loads(path.read_text())} == {space}
    found = {(r["method"], r["metric"]): r["value"] for r in json.loads(path.read_text())}
    assert found["torch_per_core", "children_per_minute"] > 0
    # Two steps from the same weights on the same images, summed up in another order.
    accuracies = (found[name, "accuracy"] for name in ("torch", "torch_per_core"))
    assert next(accuracies) == pytest.approx(next(accuracies), abs=0.05)


def test_a_step_of_a_child_by_each_way(tmp_path, capsys):
    pytest.importorskip("torch")
    path, sizes = tmp_path / "out.json", ["--side=8", "--children=2", "--batch=8", "--steps=2"]
    assert child_steps.main(["--methods=masked,torch", *sizes, f"--json={path}"]) == 0
    found = {(r["method"], r["metric"]): r["value"] for r in json.loads(path.read_text())}
    assert {method for method, _ in found} == {"masked", "torch"}
    assert all(found[method, "prepare_s"] > 0 for method in ("masked", "torch"))
    assert found["torch", "step_ms"] > 0
    assert child_steps.main(["--methods=torch_graph", *sizes]) == 2
    assert "needs a GPU that PyTorch sees" in capsys.readouterr().err
