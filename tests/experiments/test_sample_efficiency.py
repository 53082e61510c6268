"""The benchmark of sample efficiency: its theory, its records and its command line."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import floors, presets, table_search, theory
from experiments.benchmarks import sample_efficiency as benchmark
from fnas_jax import scan
from fnas_jax.methods.baselines import evolution, random
from fnas_jax.methods.baselines.config import Evolution
from fnas_jax.spaces import base, categorical, macro
from fnas_jax.tasks import table_index, tables, tabular


@pytest.fixture
def plain(tmp_path):
    """A plain CSV of 81 architectures with accuracies in percent, each trained in 10 s."""
    archs = np.stack(np.meshgrid(*[np.arange(3)] * 4, indexing="ij"), -1).reshape(-1, 4)
    lines = [",".join(map(str, a)) + f",{50 + 5 * a.sum() + a[0] / 10},10" for a in archs]
    path = tmp_path / "plain.csv"
    columns = "decision_0,decision_1,decision_2,decision_3,acc,train_seconds"
    path.write_text("\n".join([columns, *lines]))
    return path


@pytest.fixture
def quick(monkeypatch):
    quick_ones = {
        "random": presets.Preset(lambda space: random.make(space, 8), 40),
        "evolution": presets.Preset(lambda space: evolution.make(space, Evolution(10, 5), 1), 200),
    }
    monkeypatch.setattr(benchmark, "PRESETS", quick_ones)


def test_theory_agrees_with_drawing():
    """Macro strings with 12 random top rows: networks have several forms, some of them top."""
    space = macro.make()
    archs = base.enumerate_all(space)
    rng = np.random.default_rng(0)
    judged = rng.permutation(len(archs)).astype(np.float32) / len(archs)
    nan = np.full(len(archs), np.nan, np.float32)
    table = tables.Table("t", space, archs, judged, judged[:, None], nan, nan, nan, "made up")
    network = np.asarray(table_index.of(table).network_of(archs))
    top = tabular.top_rows(table)
    draws = []
    for _ in range(3000):
        order = rng.permutation(len(archs))
        _, first = np.unique(network[order], return_index=True)
        fresh = order[np.sort(first)]  # the first form drawn of each network, in order
        hits = np.flatnonzero(top[fresh])
        draws.append(hits[0] + 1 if len(hits) else np.inf)
    cdf = theory.random_cdf(table)
    for n in (50, 200, 400, 800, 1600):
        share = np.mean(np.array(draws) <= n)
        assert abs(cdf[n - 1] - share) < 4 * np.sqrt(share * (1 - share) / 3000) + 0.003


def test_theory_of_a_table_without_twins_is_the_hypergeometric_one(plain):
    """81 networks, 1 of them top: the hit is uniform over 1..81."""
    cdf = theory.random_cdf(tables.load(str(plain), ""))
    np.testing.assert_allclose(cdf, np.arange(1, 82) / 81, atol=0.02)


def test_records_are_complete_finite_and_named(plain, quick, tmp_path, capsys):
    out = tmp_path / "out.json"
    arguments = ["--table", f"toy={plain}", "--methods", "random,evolution", "--seeds", "20"]
    assert benchmark.main([*arguments, "--json", str(out)]) == 0
    records = json.loads(out.read_text())
    by = {(r["method"], r["metric"]): r for r in records}
    for method in ("random", "evolution"):
        for metric in ("evals_to_top0.1pct", "regret@25", "regret@500", "reached", "seconds"):
            record = by[method, metric]
            assert record["benchmark"] == "sample_efficiency" and record["task"] == "toy"
            assert record["n"] == 20
        assert by[method, "reached"]["value"] == 1
        assert by[method, "regret@500"]["value"] == 0
        hit = by[method, "evals_to_top0.1pct"]
        assert hit["low"] <= hit["value"] <= hit["high"] <= 81
        times = by[method, "simulated_seconds_to_top0.1pct"]
        assert all(times[name] == 10 * hit[name] for name in ("low", "value", "high"))
    assert 20 < by["random", "evals_to_top0.1pct"]["value"] < 62
    told, progress = capsys.readouterr()
    assert progress.endswith("2/2 done\n")  # both methods on the one table
    assert "toy" in told and f"{times['value']:.0f} s of training to the top" in told


def test_seeds_that_never_arrive_count_as_infinity():
    none = np.full(4, np.nan)
    outcome = table_search.Outcome(
        np.array([5.0, np.inf, 7.0, np.inf]),
        np.array([9.0, np.inf, 8.0, np.inf]),
        np.ones((4, 5)),
        np.full(4, 9),
        0.1,
        none,
        none,
        {"warmup": np.full(4, 0.25)},
    )
    by = {r["metric"]: r for r in benchmark.figures("t", "m", outcome)}
    assert "simulated_seconds_to_top0.1pct" not in by  # the table has no times
    hit = by["evals_to_top0.1pct"]
    assert (hit["low"], hit["value"], hit["high"]) == (5.0, 7.0, None)
    assert by["reached"]["value"] == 0.5
    assert by["evals_to_best"]["value"] == 9
    assert by["trained_for_warmup"]["value"] == 0.25


def test_theory_counts_no_vectors_that_the_table_lacks(tmp_path):
    """28 of 81 vectors are there, one of them top: random search pays for these only."""
    archs = np.stack(np.meshgrid(*[np.arange(3)] * 4, indexing="ij"), -1).reshape(-1, 4)
    lines = [",".join(map(str, a)) + f",{50 + a.sum() + a[0] / 10}" for a in archs[::3]]
    path = tmp_path / "sparse.csv"
    columns = "decision_0,decision_1,decision_2,decision_3,acc"
    path.write_text("\n".join([columns, *lines, "0,0,0,2,50"]))
    table = tables.load(str(path), "")
    assert table.space.size == 81
    with np.errstate(all="raise", under="ignore"):
        cdf = theory.random_cdf(table)
    np.testing.assert_allclose(cdf, np.arange(1, 29) / 28, atol=0.02)
    hits = table_search.measure(
        table, presets.Preset(lambda space: random.make(space, 8), 200), 300
    ).hits
    assert abs(np.median(hits) - 14.5) < 3


def noisy_table():
    """81 networks with three readings each that are far apart."""
    space = categorical.make((3, 3, 3, 3))
    archs = base.enumerate_all(space)
    judged = (archs @ np.array([9.0, 3.0, 1.0, 0.3]) / 100).astype(np.float32)
    readings = judged[:, None] + np.float32([0.0, 0.3, 0.6])
    nan = np.full(len(archs), np.nan, np.float32)
    return tables.Table("t", space, archs, judged, readings, nan, nan, nan, "made up")


def test_a_seed_gives_every_method_the_same_reading_of_a_network():
    """However many are asked for at a time, and in whatever order."""
    table, keys = noisy_table(), table_search.seed_keys(3)
    on = table_search.ground(table)

    @functools.partial(jax.jit, static_argnums=1)
    def read(key, batch):
        trace = table_search.search(on, random.make(table.space, batch), key, 400 // batch, (1,))
        rows = on.where.row_of(trace.trace.archs.reshape(-1, 4))
        return jnp.full(81, jnp.nan).at[rows].set(trace.trace.reward.reshape(-1))

    seen = {batch: np.stack([read(key, batch) for key in keys]) for batch in (1, 8)}
    both = np.isfinite(seen[1]) & np.isfinite(seen[8])
    assert both.mean() > 0.9
    np.testing.assert_array_equal(seen[1][both], seen[8][both])
    # All three readings are drawn, equally often, and other seeds draw others.
    drawn = np.rint((seen[1][both] - np.tile(table.judged, (3, 1))[both]) / 0.3)
    assert (np.bincount(drawn.astype(int), minlength=3) > both.sum() / 5).all()
    assert not np.array_equal(seen[1][0], seen[1][1], equal_nan=True)
    # Without noise all read what they are judged by.
    quiet = table_search.ground(table, noisy=False).evaluator_of(keys[0])
    _, metrics = quiet.evaluate(quiet.init(), table.archs, np.ones(81, bool), keys[1])
    np.testing.assert_array_equal(metrics.reward, table.judged)


def outcome(hits, spent):
    nothing = np.full(len(hits), np.nan)
    each = np.array(hits, float), np.array(hits, float), np.zeros((len(hits), 5)), np.array(spent)
    return table_search.Outcome(*each, 0.0, nothing, nothing, {})


def test_a_search_that_ended_early_loses_only_to_what_came_before():
    inf = np.inf
    mine, theirs = table_search.comparable(
        outcome([10, 200, inf, inf, inf], [400] * 5), outcome([inf, inf, 50, inf, 90], [150] * 5)
    )
    # A hit after the other's end says nothing; one before it does.
    np.testing.assert_array_equal(mine, [10, inf, inf, inf, inf])
    np.testing.assert_array_equal(theirs, [inf, inf, 50, inf, 90])
    back = table_search.comparable(outcome([inf], [150]), outcome([200], [400]))
    np.testing.assert_array_equal(back, [[inf], [inf]])


@pytest.mark.slow
def test_every_method_is_compared_with_gp_ei_seed_by_seed(plain, quick, tmp_path, monkeypatch):
    out = tmp_path / "out.json"
    arguments = ["--table", f"toy={plain}", "--methods", "random,evolution", "--seeds", "9"]
    assert benchmark.main([*arguments, "--json", str(out)]) == 0
    assert not any("_over_" in r["metric"] for r in json.loads(out.read_text()))
    monkeypatch.setattr(benchmark, "AGAINST", "random")
    assert benchmark.main([*arguments, "--json", str(out)]) == 0
    found = {(r["method"], r["metric"]): r for r in json.loads(out.read_text())}
    table = tables.load(str(plain), "")
    hits = {
        name: table_search.measure(table, preset, 9).hits
        for name, preset in benchmark.PRESETS.items()
    }
    ratio = found["evolution", "evals_to_top0.1pct_over_random"]
    assert ratio["value"] == pytest.approx(np.median(hits["evolution"] / hits["random"]))
    assert ratio["n"] == 9 and ("random", ratio["metric"]) not in found


def test_bad_input_exits_with_two(tmp_path, capsys):
    assert benchmark.main(["--data", str(tmp_path), "--tasks", "macro"]) == 2
    assert "there is no table" in capsys.readouterr().err
    for arguments in (["--methods", "magic"], ["--seeds", "0"], ["--table", "x"], ["--time", "x"]):
        with pytest.raises(SystemExit) as error:
            benchmark.main(arguments)
        assert error.value.code == 2


@pytest.mark.slow
def test_the_warm_floors_train_what_the_other_task_says_first():
    space = categorical.make((3, 3, 3, 3))
    archs = base.enumerate_all(space)
    judged = (archs @ np.array([1.0, 0.7, 0.4, 0.2])).astype(np.float32)
    nan = np.full(len(archs), np.nan, np.float32)
    table = tables.Table("t", space, archs, judged, judged[:, None], nan, nan, nan, "made up")
    known = presets.source(table)._replace(rows=40)

    def hits(own, source, iterations):
        preset = presets.Preset(
            lambda space: floors.make(space, source, own, iterations), iterations
        )
        outcome = table_search.measure(table, preset, 8)
        assert (outcome.evaluations == iterations).all()
        return outcome.hits

    assert (hits(False, known, 30) <= 3).all() and (hits(True, known, 30) <= 3).all()
    # Where the other task says the opposite, only own rows find the way.
    opposite = known._replace(reward=-judged)
    assert np.median(hits(False, opposite, 81)) > 70 and np.median(hits(True, opposite, 81)) < 50


def test_random_search_on_macro_agrees_with_theory(tables_dir):
    table = tables.load("macro", tables_dir)
    preset = presets.Preset(lambda space: random.make(space, 32), 60)
    hits = table_search.measure(table, preset, seeds=400).hits
    cdf = theory.random_cdf(table)
    for n in (200, 400, 800):
        share = np.mean(hits <= n)
        assert abs(share - cdf[n - 1]) < 4 * np.sqrt(0.25 / 400)


def test_prediction_quality_looks_at_the_second_half_and_at_what_was_paid_for():
    yes = np.ones((4, 2), bool)
    trace = scan.Trace(
        archs=np.zeros((4, 2, 1), np.int32),
        reward=np.array([[9.0, 1.0], [9.0, 1.0], [1.0, 2.0], [3.0, 0.0]]),
        ok=yes,
        fresh=yes & ~np.eye(4, 2, -2, dtype=bool),
        predicted=np.array([[0.0, 5.0], [0.0, 5.0], [9.0, 1.0], [2.0, 0.0]]),
        stats={
            "covered": np.array([0.0, 0.0, 1.0, 2.0]),
            "checked": np.array([5.0, 5.0, 2.0, 2.0]),
        },
    )
    coverage, tau = table_search.prediction_quality(trace)
    assert float(coverage) == 0.75
    assert float(tau) == 1.0  # of (1, 2) alone: the others of the half are free or too early
    silent = table_search.prediction_quality(trace._replace(stats={}))
    assert np.isnan(silent).all()
