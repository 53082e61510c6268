"""What the benchmarks that train children make of their measurements: records over seeds."""

import jax
import numpy as np
import pytest

from experiments.benchmarks import (
    children_throughput,
    image_methods,
    image_search,
    layers,
    pool_convergence,
    records,
    table_search,
)
from experiments.benchmarks.throughput import contestant
from fnas_jax.methods.baselines import random
from fnas_jax.spaces import base, categorical
from fnas_jax.tasks import tables

SEARCH = image_search.Search(
    method="fnas",
    seed=0,
    arch=np.zeros(3, int),
    found=0.9,
    proposals=20,
    trained=5,
    steps=50,
    coverage=np.nan,
    tau=0.5,
    seconds=3.0,
)


def test_image_searches_are_summed_up_over_seeds():
    search = SEARCH
    searches = [search, search._replace(seed=1, trained=10, steps=100)]
    found = image_search.figures("images/digits", "fnas", searches, [0.8, 0.9])
    by = {r["metric"]: r for r in found}
    assert by["test_accuracy"]["value"] == pytest.approx(0.85)
    assert (by["test_accuracy"]["low"], by["test_accuracy"]["high"]) == (0.8, 0.9)
    assert by["trained_share"]["value"] == pytest.approx(0.375)
    assert by["steps"]["n"] == 2
    assert "coverage" not in by  # no search had a critic


def test_image_searches_are_compared_with_ppo_seed_by_seed():
    mine = [SEARCH._replace(seed=i, steps=50 * (i + 1)) for i in range(3)]
    theirs = [s._replace(method="ppo", steps=400, seconds=6.0) for s in mine]
    tested = {("fnas", 0): 0.5, ("fnas", 1): 0.9, ("fnas", 2): 0.8}
    tested |= {("ppo", 0): 0.4, ("ppo", 1): 0.7, ("ppo", 2): 0.9}
    found = {r["metric"]: r for r in image_search.against("t", "fnas", mine, theirs, tested)}
    assert found["test_accuracy_minus_ppo"]["value"] == pytest.approx(0.1)
    assert found["test_accuracy_won_from_ppo"]["value"] == pytest.approx(2 / 3)
    assert found["steps_over_ppo"]["value"] == 0.25
    assert found["seconds_over_ppo"]["value"] == 0.5 and found["seconds_won_from_ppo"]["value"] == 1


def test_random_search_has_as_many_steps_as_fnas_with_the_same_seed():
    assert image_search.as_many(SEARCH._replace(steps=934), 30, 128) == 31
    assert image_search.as_many(SEARCH._replace(steps=1), 30, 128) == 1
    assert image_search.as_many(SEARCH._replace(steps=10**4), 30, 128) == 128
    # It is run after the search that it is like.
    assert image_methods.in_order(["random", "ppo", "fnas"]) == ["ppo", "fnas", "random"]
    with pytest.raises(SystemExit) as stop:
        image_search.parse(["--methods", "ppo,random"])
    assert stop.value.code == 2


def test_presets_train_short_or_long_from_fresh_weights_or_from_the_pool():
    options = image_search.parse(["--steps", "30", "--proposals", "8"])
    config, found = image_search.configuration(options), {}
    for name in image_methods.PRESETS:
        c = image_methods.configure(config, name, 0.2)
        found[name] = (c.children.steps, c.akp.enabled, c.uac.enabled, c.aeb.enabled)
    assert found == {
        "ppo": (30, False, True, True),
        "ppo_short": (6, False, True, True),
        "ppo_pool": (6, True, True, True),
        "random": (30, False, True, True),
        "fnas": (6, True, True, True),
        "fnas_no_akp": (30, False, True, True),
        "fnas_no_uac": (6, True, False, True),
        "fnas_no_aeb": (6, True, True, False),
    }


def test_a_limited_search_trains_exactly_so_many_children():
    space = categorical.make((3, 3, 3))
    archs = base.enumerate_all(space)
    judged = (archs.sum(axis=1) / 10).astype(np.float32)
    nan = np.full(len(archs), np.nan, np.float32)
    table = tables.Table("t", space, archs, judged, judged[:, None], nan, nan, nan, "made up")
    method, on = random.make(space, 4), table_search.ground(table)

    @jax.jit
    def search(key):
        limited = image_methods.limited(method, 7)
        return [table_search.search(on, m, key, 12, (1,)) for m in (limited, method)]

    found, plain = search(jax.random.key(0))
    assert int(found.evaluations) == 7  # not 8
    np.testing.assert_array_equal(found.trace.archs, plain.trace.archs)


@pytest.mark.parametrize(
    ("counts", "children", "goes_on"),
    [
        ((7, 3), None, True),
        ((8, 3), None, False),
        ((9, 3), 4, True),
        ((9, 4), 4, False),
        ((80, 3), 4, False),  # nothing new is left to train
    ],
)
def test_a_search_ends_by_proposals_or_by_children(counts, children, goes_on):
    counted = dict(zip(("proposed", "trained"), counts, strict=True))
    assert image_search.unfinished(counted, 8, children) == goes_on


def curves(gain):
    scratch = np.array([0.5, 0.6, 0.7])
    inherited = np.stack([scratch + gain * np.array([1, 1, -1])] * 4)
    cost = pool_convergence.Cost(rounds=6, others=12)
    return pool_convergence.Curves(scratch, inherited, scratch - 0.1, scratch, 0.75, cost)


def test_the_pool_is_judged_by_all_architectures_and_its_span_is_that_of_the_seeds():
    found = pool_convergence.figures("mnist5k", [curves(0.1), curves(-0.1)], 120)
    by = {(r["method"], r["metric"]): r for r in found}
    ratio = by["inherited", "steps_ratio"]
    # Two, then one of three architectures are as good after a quarter of the steps.
    assert (ratio["value"], ratio["low"], ratio["high"], ratio["n"]) == (0.25, 0.25, None, 2)
    gain = by["inherited", "points_after_quarter"]
    assert gain["value"] == pytest.approx(0.0, abs=1e-9)
    assert (gain["low"], gain["high"]) == pytest.approx((-10 / 3, 10 / 3))
    assert by["scratch", "kendall_tau"]["value"] == pytest.approx(1.0)
    assert by["inherited", "hit_ratio"]["value"] == 0.75
    # Teachers cost as much as 18 children, of which each inherited one saves three quarters.
    assert by["inherited", "teachers_steps"]["value"] == 18 * 120
    paid = by["inherited", "break_even_children"]
    assert (paid["value"], paid["low"], paid["high"]) == (24, 24, None)  # one seed: never
    assert by["inherited", "rounds_break_even_children"]["value"] == 8


def test_without_long_training_there_is_no_ranking_to_compare_with():
    found = pool_convergence.figures(
        "transfer", [curves(0.1)._replace(long=np.full(3, np.nan))], 120
    )
    assert "kendall_tau" not in {r["metric"] for r in found}


@pytest.mark.parametrize(("cost", "ratio", "children"), [(10, 0.5, 20), (10, 1.0, np.inf)])
def test_a_pool_that_saves_nothing_never_pays(cost, ratio, children):
    assert pool_convergence.break_even(cost, ratio) == children


def test_children_are_dealt_out_longest_first_to_the_least_loaded():
    costs = np.array([1.0, 7.0, 3.0, 5.0, 4.0])
    assert contestant.dealt(costs, 2) == [[1, 2], [3, 4, 0]]
    assert contestant.dealt(costs, 1) == [[1, 3, 4, 2, 0]]
    assert contestant.dealt(np.array([2.0]), 3) == [[0], [], []]
    # No process has more than the mean and the costliest child (Graham, 1969: 4/3 of the best).
    many = np.random.default_rng(0).exponential(size=40)
    loads = [many[share].sum() for share in contestant.dealt(many, 4)]
    assert sorted(i for share in contestant.dealt(many, 4) for i in share) == list(range(40))
    assert max(loads) <= many.sum() / 4 + many.max()


def test_a_process_a_core_trains_each_child_as_one_process_would(monkeypatch):
    """Same seed and steps for each child; seconds of the process that ends last."""
    jobs = []

    class Recorder:
        def __init__(self, method, home, space):
            assert space == "mnas_small"
            self.name = f"{method}{len(made)}"
            made.append(self)

        def answer(self, archs, steps, seed):
            jobs.append((self.name, archs.tolist(), steps, seed))
            return {
                "seconds": float(len(archs) and archs[0, 0]),
                "compile_s": 0.0,
                "accuracy": [seed / 10] * len(archs),
                "step_ms": [float(seed)] * len(archs),
                "peak_mib": 100.0,
            }

        def close(self):
            jobs.append((self.name, "closed"))

    made = []
    monkeypatch.setattr(contestant, "Contestant", Recorder)
    monkeypatch.setattr(contestant.common, "mflops", lambda _, archs: archs[:, 0].astype(float))
    monkeypatch.setattr(contestant.devices, "cores", lambda: 2)
    running = contestant.start("torch_per_core", "home", "mnas_small")
    assert [job[1] for job in jobs] == [[], []]  # imports are over before anything is timed
    jobs.clear()
    found = running.answer(np.array([[1], [7], [3], [5]]), 9, 20)
    first, second = made[0].name, made[1].name
    assert sorted(jobs) == [
        (first, [[1]], 9, 20),
        (first, [[7]], 9, 21),
        (second, [[3]], 9, 22),
        (second, [[5]], 9, 23),
    ]
    assert found["seconds"] == 8 and found["peak_mib"] == 200
    assert found["step_ms"] == [20, 21, 22, 23]
    assert found["accuracy"] == [2.0, 2.1, 2.2, 2.3]
    running.close()
    assert {job[0] for job in jobs if job[1] == "closed"} == {first, second}
    one = contestant.start("torch", "home", "mnas_small")
    assert isinstance(one, Recorder) and one.name.startswith("torch")


def test_both_ways_of_pytorch_are_compared_with_ours():
    speeds = {"ours": 12.0, "torch": 6.0, "torch_per_core": 8.0}
    found = [
        children_throughput.figure("mnas_small", name, "children_per_minute", speed, 24)
        for name, speed in speeds.items()
    ]
    said = children_throughput.ratios(found)
    assert said == [
        "children per minute, ours / torch: 2.00 (empty cache)",
        "children per minute, ours / torch_per_core: 1.50 (empty cache)",
    ]


@pytest.mark.parametrize(
    ("benchmark", "ours", "name"),
    [
        (children_throughput, "ours", "torch"),
        (children_throughput, "ours", "torch_per_core"),
        (layers, "kernels", "torch"),
    ],
)
def test_a_missing_pytorch_is_one_sentence(benchmark, ours, name, capsys, monkeypatch):
    monkeypatch.setattr(records.importlib.util, "find_spec", lambda name: None)
    assert benchmark.main(["--methods", f"{ours},{name}"]) == 2
    said = capsys.readouterr().err
    assert f"the contestant {name} needs the package torch" in said and said.count("\n") == 1
    assert f"--methods {ours} does without" in said


def test_throughput_is_of_all_children_and_its_spans_are_those_of_the_children():
    answer = {
        "seconds": 30.0,
        "compile_s": 10.0,
        "accuracy": [0.8, 0.9],
        "step_ms": [5.0, 7.0],
        "peak_mib": 100.0,
    }
    found = children_throughput.summary(
        "mnas_small", {"ours": [answer, answer], "warm": [answer], "torch": []}
    )
    by = {(r["method"], r["metric"]): r for r in found}
    assert by["ours", "children_per_minute"]["value"] == 4
    assert by["ours", "children_per_minute_warm"]["value"] == 4
    assert by["ours", "children_per_minute"]["low"] is None
    step = by["ours", "step_ms"]
    assert (step["value"], step["low"], step["high"], step["n"]) == (6, 5, 7, 4)
    assert "torch" not in {r["method"] for r in found}
