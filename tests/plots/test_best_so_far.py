"""Curves of the best so far, points, times, and the bands over several runs."""

import pathlib

import numpy as np
import pytest

from fnas_jax.core.measure import Measure
from fnas_jax.core.types import UserError
from fnas_jax.plots import best_so_far, data, overlays, style
from tests.plots.runs import line, named, run, trial

LOSS = Measure("loss", "minimize", "error")


def reference(values, rewards):
    """The value of the highest reward so far, one by one."""
    found, best = [], None
    for value, reward in zip(values, rewards, strict=True):
        best = (reward, value) if best is None or reward > best[0] else best
        found.append(best[1])
    return found


def test_the_best_so_far_is_that_of_the_highest_reward():
    rng = np.random.default_rng(0)
    values, rewards = rng.random(50), rng.integers(0, 8, 50) / 8  # of equal rewards the first
    known = run([trial(v, r) for v, r in zip(values, rewards, strict=True)])
    curve = best_so_far.curve(known.trials, "evaluations")
    np.testing.assert_array_equal(curve.value, reference(values, rewards))
    np.testing.assert_array_equal(curve.x, np.arange(1, 51))


def test_failed_and_predicted_networks_are_no_incumbents():
    records = [trial(0.2), trial(0.9, trained=False), trial(0, ok=False), trial(0.3)]
    curve = best_so_far.curve(run(records).trials, "evaluations")
    np.testing.assert_array_equal(curve.x, [1, 3])  # the failed one was paid for
    np.testing.assert_array_equal(curve.value, [0.2, 0.3])
    figure = best_so_far.evaluations(run(records), "evaluations")
    np.testing.assert_array_equal(named(figure, "predicted"), [[1], [0.9]])
    np.testing.assert_array_equal(named(figure, "failed")[0], [2])
    np.testing.assert_array_equal(named(figure, "measured"), [[1, 3], [0.2, 0.3]])
    np.testing.assert_array_equal(named(figure, "best"), [[3], [0.3]])


def test_a_network_is_told_at_the_end_of_its_iteration():
    """Also where some iterations were not logged, or the newest one is not yet."""
    records = [trial(0.1), trial(0.2), trial(0.9, trained=False), trial(0.3), trial(0.4)]
    known = run(records, [line(1, 0, 5.0), line(3, 1, 9.0)])
    np.testing.assert_array_equal(known.trials.seconds, [5, 9, 9, 9, np.nan])
    curve = best_so_far.curve(known.trials, "seconds")
    np.testing.assert_array_equal(curve.x, [5, 9, 9])
    assert len(best_so_far.curve(run(records).trials, "seconds").x) == 0
    with pytest.raises(UserError, match=r"x is 'second'; allowed are .* did you mean 'seconds'"):
        best_so_far.evaluations(known, "second")


def test_of_a_loss_the_curve_falls():
    values = [3.0, 1.0, 2.0]
    known = run([trial(v, 1 / (1 + v)) for v in values], measure=LOSS)
    figure = best_so_far.incumbent(known, "evaluations")
    np.testing.assert_array_equal(named(figure, "best so far"), [[1, 2, 3], [3, 1, 1]])
    assert figure.layout.yaxis.title.text == "loss" and figure.layout.xaxis.dtick == 1


def test_only_of_images_an_accuracy_is_known_to_be_of_validation_images():
    for task, words in (("images/x", "validation accuracy"), ("tabular/x.csv", "accuracy")):
        figure = best_so_far.incumbent(run([trial(0.5)], **{"task.name": task}), "evaluations")
        assert figure.layout.yaxis.title.text == words
        assert figure.layout.yaxis.tickformat == ".4~p"


def test_predicted_rewards_that_are_no_values_are_counted():
    records = [trial(0.5, 0.4), trial(0.6, 0.3), trial(0.0, 0.4, trained=False)]
    figure = best_so_far.evaluations(run(records), "evaluations")
    assert "predicted" not in [t.name for t in figure.data]
    assert "1 predicted: their rewards are no accuracy" in figure.layout.annotations[0].text


def test_bad_networks_do_not_flatten_the_rest():
    values = np.array([*np.linspace(0.9, 0.95, 40), 0.1, 0.1])
    low, high = style.robust_range(values, values, True)
    assert 0.85 < low < 0.9 and 0.95 < high < 0.96
    low, high = style.robust_range(-values, -values, False)  # a loss: the bad ones are above
    assert -0.96 < low < -0.95 and -0.9 < high < -0.85
    few = np.array([0.1, 0.9, 0.95])
    assert style.robust_range(few, few, True)[0] < 0.1
    assert style.robust_range(np.full(3, np.nan), few, True) is None
    figure = best_so_far.evaluations(run([trial(v) for v in values]), "evaluations")
    assert figure.layout.yaxis.range[0] > 0.85
    assert figure.layout.annotations[0].text.startswith("2 of 42 outside")


def test_texts_of_a_run_are_escaped():
    figure = best_so_far.evaluations(run([trial(0.1, text="<script>x")]), "evaluations")
    assert all("<script" not in text for trace in figure.data for text in trace.text or ())


def test_of_many_points_some_are_drawn_and_the_others_counted():
    known = run([trial(0.5 + i % 7 / 100) for i in range(best_so_far.MOST + 70)])
    figure = best_so_far.evaluations(known, "evaluations")
    assert len(named(figure, "measured")[0]) == best_so_far.MOST
    assert "70 points left out" in figure.layout.annotations[-1].text
    assert len(named(figure, "best so far")[0]) < 20  # a step has two ends


def test_bands_are_quantiles_of_the_curves_up_to_the_shortest():
    rng = np.random.default_rng(1)
    values = [rng.random(n) for n in (12, 9, 15)]
    runs = [run([trial(v) for v in of], name=f"r{i}", seed=i) for i, of in enumerate(values)]
    band = overlays.band(runs, "evaluations")
    np.testing.assert_array_equal(band.x, np.arange(1, 10))
    every = np.array([reference(of, of)[:9] for of in values])
    for found, share in ((band.low, 0.1), (band.median, 0.5), (band.high, 0.9)):
        np.testing.assert_allclose(found, [np.quantile(every[:, i], share) for i in range(9)])


def test_bands_over_time_hold_each_step_until_the_next():
    first = run([trial(0.1), trial(0.5)], [line(1, 0, 10.0), line(2, 0, 30.0)])
    second = run([trial(0.3), trial(0.4)], [line(1, 0, 20.0), line(2, 0, 40.0)])
    band = overlays.band([first, second], "seconds")
    assert (band.x[0], band.x[-1]) == (20, 30)
    np.testing.assert_allclose(band.median[:-1], 0.2)  # of 0.1 and 0.3
    np.testing.assert_allclose(band.median[-1], 0.4)  # of 0.5 and 0.3


def test_what_a_finished_search_has_found_stands():
    short = run([trial(0.6)], [line(1, 0, 5.0)], result={})
    long = run([trial(0.1), trial(0.2), trial(0.8)], [line(i, 0, 10.0 * i) for i in (1, 2, 3)])
    band = overlays.band([short, long], "evaluations")
    np.testing.assert_allclose(band.median, [0.35, 0.4, 0.7])
    assert overlays.band([short, long], "seconds").x[[0, -1]].tolist() == [10, 30]
    open_ = overlays.band([short._replace(result=None), long], "evaluations")
    assert open_.x.tolist() == [1]
    assert not len(overlays.band([short._replace(result=None), long], "seconds").x)


def test_runs_of_one_configuration_are_seeds_of_it():
    runs = [
        run([trial(0.1)], **{"method.name": "ppo", "seed": 0}),
        run([trial(0.2)], **{"method.name": "ppo", "seed": 1}),
        run([trial(0.2)], **{"method.name": "ppo", "seed": 1, "ppo.lr": 0.5}),
        run([trial(0.3)], **{"method.name": "random"}),
    ]
    found = overlays.groups(runs)
    lr = runs[0].config.ppo.lr
    assert {name: len(of) for name, of in found.items()} == {
        f"ppo, ppo.lr={lr}": 2,
        "ppo, ppo.lr=0.5": 1,
        "random": 1,
    }
    figure = overlays.overlay(runs, "evaluations")
    assert next(t.name for t in figure.data if t.showlegend is not False).endswith("(2 seeds)")


def test_a_search_that_starts_from_a_store_is_another_one():
    store = {"knowledge.dir": "runs/<store>"}
    seeds = [{"seed": 0}, {"seed": 1}, {"seed": 0, **store}, {"seed": 1, **store}]
    runs = [run([trial(0.1)], **{"method.name": "fnas", **keys}) for keys in seeds]
    assert {name: len(of) for name, of in overlays.groups(runs).items()} == {
        "fnas, a store of its own": 2,
        "fnas, store runs/<store>": 2,
    }
    named(overlays.overlay(runs, "evaluations"), "fnas, store runs/&lt;store&gt; (2 seeds)")


def test_a_band_says_of_how_many_runs_it_is():
    runs = [run([trial(v) for v in of], seed=i) for i, of in enumerate(([0.1], [0.2], []))]
    assert overlays.band(runs, "evaluations").runs == 2
    named(overlays.overlay(runs, "evaluations"), "fnas (2 seeds)")
    assert overlays.band(runs[2:], "evaluations").runs == 0


def test_a_band_is_drawn_where_it_changes():
    steps = np.repeat([0.1, 0.2, 0.2, 0.5], 5)
    whole = overlays.Band(np.arange(20.0), steps / 2, steps, 2 * steps, 3)
    drawn = overlays.corners(whole)
    np.testing.assert_array_equal(drawn.x, [0, 5, 15, 19])
    np.testing.assert_array_equal(drawn.high, [0.2, 0.4, 1.0, 1.0])
    rising = np.linspace(0, 1, 100_000)
    most = overlays.corners(overlays.Band(np.arange(100_000.0), rising, rising, rising, 2))
    assert len(most.x) == overlays.CORNERS and most.x[-1] == 99_999


def test_what_cannot_be_compared_is_told():
    other = run([trial(0.1)], measure=LOSS, name="b")
    with pytest.raises(UserError, match=r"another metric: accuracy .*a'.*, loss .*b'"):
        overlays.overlay([run([trial(0.1)]), other], "evaluations")
    with pytest.raises(UserError, match="another task"):
        overlays.same_measure([run([]), run([], **{"task.name": "tabular/y.csv"})])


def test_labels_are_so_long_that_they_differ():
    places = map(pathlib.Path, ("/x/a/s", "/x/b/s", "/x/c"))
    runs = [run([])._replace(folder=place) for place in places]
    assert [r.label for r in data.labelled(runs)] == ["a/s", "b/s", "x/c"]
    assert [r.label for r in data.labelled(runs[1:])] == ["s", "c"]
