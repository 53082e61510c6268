"""What a figure of a benchmark is: quantiles, records, and the command line that all share."""

import argparse
import json
import math

import numpy as np
import pytest

from experiments.benchmarks import records
from fnas_jax.core.types import UserError

INF, NAN = math.inf, math.nan
NAMES = ("b", "t", "m", "x")


@pytest.mark.parametrize("n", [1, 2, 3, 7, 20, 100])
@pytest.mark.parametrize("q", [0.05, 0.5, 0.95])
def test_a_quantile_is_the_inverse_of_the_distribution_function(n, q):
    values = np.random.default_rng(n).permutation(n) + 0.5
    assert records.quantile(values, q) == np.quantile(values, q, method="inverted_cdf")


def test_never_is_larger_than_every_number_and_written_as_null():
    found = records.over_seeds(*NAMES, [INF, 5.0, 7.0, INF])
    assert (found["low"], found["value"], found["high"], found["n"]) == (5.0, 7.0, None, 4)
    assert records.over_seeds(*NAMES, [INF] * 3)["value"] is None


def test_one_seed_is_all_its_quantiles():
    found = records.over_seeds(*NAMES, [3.0])
    assert (found["low"], found["value"], found["high"], found["n"]) == (3.0, 3.0, 3.0, 1)


@pytest.mark.parametrize("summary", [records.median, records.mean])
def test_no_seed_is_no_figure(summary):
    found = records.over_seeds(*NAMES, [NAN, NAN], summary)
    assert (found["low"], found["value"], found["high"], found["n"]) == (None, None, None, 0)


def test_low_and_high_are_the_5_and_95_percent_of_the_seeds_that_have_the_figure():
    found = records.over_seeds(*NAMES, [*range(1, 101), NAN], records.mean)
    assert (found["low"], found["value"], found["high"], found["n"]) == (5, 50.5, 95, 100)
    together = records.over_seeds(*NAMES, [1, 2, 3], 10.0)
    assert (together["low"], together["value"], together["high"]) == (1, 10, 3)


def test_the_interval_of_a_median_holds_it_often_enough():
    rng = np.random.default_rng(0)
    for n in (6, 15, 100):
        spans = [records.median_interval(rng.exponential(size=n)) for _ in range(2000)]
        low, high = np.transpose(spans)
        held = np.mean((low <= np.log(2)) & (np.log(2) <= high))
        assert 0.94 < held <= 1
        # One value fewer on each side would hold it too seldom.
        ordered = np.sort(rng.exponential(size=(2000, n)), axis=1)
        skip = int(np.searchsorted(ordered[0], records.median_interval(ordered[0])[0]))
        narrow = (ordered[:, skip + 1] <= np.log(2)) & (np.log(2) <= ordered[:, n - 2 - skip])
        assert narrow.mean() < 0.955
    assert np.isnan(records.median_interval(range(5))).all()
    found = records.over_seeds(*NAMES, range(1, 101))
    assert (found["median_low"], found["median_high"]) == (40, 61)
    assert records.over_seeds(*NAMES, range(1, 101), records.mean)["median_low"] is None


def pair(how, mine, theirs):
    apart, won = records.paired("b", "t", "m", "x", "o", mine, theirs, how)
    assert (apart["metric"], won["metric"]) == (f"x_{how}_o", "x_won_from_o")
    return apart, won


def test_a_ratio_of_pairs_is_the_median_of_log_ratios_and_its_interval():
    rng = np.random.default_rng(0)
    mine, theirs = np.exp(rng.normal(size=(2, 41)))
    apart, won = pair(records.RATIO, mine, theirs)
    logs = np.log(mine / theirs)
    assert np.log(apart["value"]) == pytest.approx(np.median(logs))
    interval = np.log([apart["median_low"], apart["median_high"]])
    np.testing.assert_allclose(interval, records.median_interval(logs))
    assert won["value"] == np.mean(mine < theirs) and won["n"] == apart["n"] == 41


def test_differences_of_pairs_see_what_figures_side_by_side_do_not():
    """Seeds differ by far more than the methods do."""
    theirs = np.linspace(0, 10, 9)
    apart, won = pair(records.DIFFERENCE, theirs + 0.5, theirs)
    assert apart["value"] == apart["low"] == apart["median_low"] == pytest.approx(0.5)
    assert (won["value"], won["n"]) == (1, 9)
    assert pair(records.DIFFERENCE, theirs, theirs + 0.5)[1]["value"] == 0


def test_pairs_that_are_equal_or_never_arrive_or_miss_a_figure():
    apart, won = pair(records.RATIO, [INF, INF, 4.0, 5.0, NAN], [INF, 2.0, INF, 5.0, 1.0])
    # Ratios 1, infinity, 0, 1: two are equal, one is lost, one is won.
    assert (apart["low"], apart["value"], apart["high"], apart["n"]) == (0, 1, None, 4)
    assert (won["value"], won["n"]) == (0.5, 4)
    assert pair(records.DIFFERENCE, [INF], [INF])[0]["value"] == 0
    with pytest.raises(ValueError):
        pair(records.RATIO, [1.0], [1.0, 2.0])


def test_records_are_written_as_the_documented_json_and_printed(tmp_path):
    found = [records.record(*NAMES, 0.5), records.over_seeds(*NAMES, np.float32([1, 2]))]
    records.write(None, found)
    records.write(str(tmp_path / "out.json"), found)
    read = json.loads((tmp_path / "out.json").read_text())
    assert read == found
    spans = ["low", "high", "median_low", "median_high"]
    keys = ["benchmark", "task", "method", "metric", "value", *spans, "n"]
    assert [list(r) for r in read] == [keys, keys]
    head, single, pair = records.lines(found)
    assert "5% .. 95%" in head and single.endswith("0.5") and pair.endswith("1 .. 2")


@pytest.mark.parametrize("error", [UserError("no data"), FileNotFoundError("no data")])
def test_wrong_input_ends_in_one_sentence_and_exit_code_2(error, tmp_path, capsys):
    def run():
        raise error

    path = tmp_path / "out.json"
    assert records.main(argparse.Namespace(json=str(path)), run) == 2
    assert capsys.readouterr().err == "error: no data\n" and not path.exists()


def test_an_unwritable_place_shows_before_the_work_and_a_file_there_stays(tmp_path, capsys):
    worked = []
    missing = argparse.Namespace(json=str(tmp_path / "missing" / "out.json"))
    assert records.main(missing, lambda: worked.append(1) or []) == 2 and not worked
    assert "missing" in capsys.readouterr().err
    (tmp_path / "old.json").write_text("old")
    records.check_writable(str(tmp_path / "old.json"))
    assert (tmp_path / "old.json").read_text() == "old"
    good = argparse.Namespace(json=str(tmp_path / "old.json"))
    assert records.main(good, lambda: [records.record(*NAMES, 0.5)]) == 0
    assert json.loads((tmp_path / "old.json").read_text())[0]["value"] == 0.5


def test_the_command_line_refuses_unknown_names_and_small_numbers(capsys):
    made = records.parser("doc", "experiments.benchmarks.x")
    records.add_names(made, "--methods", ("a", "b"))
    assert made.parse_args([]).methods == ["a", "b"]
    assert made.parse_args(["--methods", "b,"]).methods == ["b"]
    for refused in (
        lambda: records.check_names(made, "method", ["a", "z"], ("a", "b")),
        lambda: records.check_least(made, argparse.Namespace(seeds=0), 1, "seeds"),
    ):
        with pytest.raises(SystemExit) as stop:
            refused()
        assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "unknown method 'z'; allowed are a, b" in said
    assert "--seeds is 0; it must be at least 1" in said
