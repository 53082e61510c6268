"""Each figure of what a run's files say, held against the numbers that went in."""

import numpy as np
import pytest

from fnas_jax.core.types import UserError
from fnas_jax.methods.pgnas import posterior
from fnas_jax.plots import (
    best_so_far,
    critics,
    data,
    decisions,
    fronts,
    policies,
    pools,
    spent,
    supernets,
)
from fnas_jax.spaces import categorical, mixed_chain
from tests.plots.runs import line, named, run, trial


def test_the_front_is_what_no_other_beats_at_its_cost():
    rng = np.random.default_rng(0)
    values, costs = rng.random(40), rng.integers(1, 20, 40).astype(float)
    known = run([trial(v, mflops=c) for v, c in zip(values, costs, strict=True)])
    figure = fronts.front([known], "mflops")
    x, y = named(figure, "no other is better at its cost")
    beaten = [
        any((w >= v and d <= c) and (w > v or d < c) for w, d in zip(values, costs, strict=True))
        for v, c in zip(values, costs, strict=True)
    ]
    expected = sorted((c, v) for v, c, b in zip(values, costs, beaten, strict=True) if not b)
    np.testing.assert_array_equal(np.column_stack([x, y]), expected)
    assert len(named(figure, "measured")[0]) == 40


def test_what_was_stopped_early_is_drawn_apart_and_beats_nothing():
    records = [trial(0.5, mflops=2.0), trial(0.9, mflops=1.0, stopped=7), trial(0.4, mflops=1.0)]
    known = run(records, [line(3)])
    x, y = named(fronts.front([known], "mflops"), "no other is better at its cost")
    assert list(zip(x, y, strict=True)) == [(1.0, 0.4), (2.0, 0.5)]
    drawn = best_so_far.evaluations(known, "evaluations")
    assert named(drawn, data.STOPPED)[1].tolist() == [0.9]
    assert best_so_far.curve(known.trials, "evaluations").value[-1] == 0.5


def test_bounds_and_unknown_costs_stand_in_the_front():
    records = [trial(0.5, latency_ms=2.0), trial(0.6), trial(0.7, latency_ms=4.0)]
    keys = {"limits.latency_ms": 3.5, "reward.cost": "latency_ms", "reward.target": 2.5}
    figure = fronts.front([run(records, **keys)], "latency_ms")
    assert figure.data[0].name == "measured (1 of unknown latency_ms: no point)"
    assert [shape.x0 for shape in figure.layout.shapes] == [3.5, 2.5]
    with pytest.raises(UserError, match=r"allowed are .*; did you mean 'mflops'"):
        fronts.front([run(records)], "mflop")
    with pytest.raises(UserError, match="no network whose params_m it knows; it knows latency_ms"):
        fronts.front([run(records)], "params_m")


def test_predictions_and_outcomes_are_not_swapped():
    """The critic foresaw 0.2 and 0.9; what came out were 0.3 and 0.5."""
    lines = [
        line(3, pairs={"predicted": [0.2], "measured": [0.3], "std": [0.2]}),
        line(4),
        line(5, pairs={"predicted": [0.9], "measured": [0.5], "std": [0.1]}),
        line(6, pairs={"predicted": [0.9], "measured": [], "std": [0.1]}),  # damaged
        line(7, pairs={"predicted": "x", "measured": [1.0], "std": [0.1]}),
    ]
    known = run([], lines)
    pairs = critics.pairs(known)
    np.testing.assert_array_equal(pairs.evaluations, [3, 5])
    figure = critics.predictions(known)
    assert figure.layout.xaxis.title.text == "predicted reward"
    np.testing.assert_array_equal(named(figure, "network"), [[0.2, 0.9], [0.3, 0.5]])
    assert "mean absolute error 0.25 of 2" in figure.layout.annotations[0].text
    for make in (critics.predictions, critics.coverage):
        few = make(run([], lines, **{"log.every": 5}))
        assert "of one iteration in 5" in few.layout.annotations[-1].text
        assert not any("of one" in a.text for a in make(known).layout.annotations)


def test_coverage_is_the_share_within_one_deviation_so_far():
    rng = np.random.default_rng(0)
    measured = rng.standard_normal(4000)
    known = critics.Pairs(np.zeros(4000), measured, np.ones(4000), np.arange(4000.0))
    shares = critics.shares_within(known)
    assert shares[0] == float(abs(measured[0]) <= 1)
    np.testing.assert_allclose(shares[-1], 0.683, atol=0.02)
    np.testing.assert_allclose(shares[99], np.mean(np.abs(measured[:100]) <= 1))


def test_figures_of_a_critic_have_its_columns():
    pairs = {"predicted": [0.2, 0.3], "measured": [0.3, 0.9], "std": [0.2, 0.1]}
    more = {"calibration": 1.5, "calibration_explored": 2.0, "mae": 0.25, "mae_explored": None}
    lines = [line(2, pairs=pairs, **more), line(3, **(more | {"calibration": 1.25, "tau": 0.5}))]
    figure = critics.coverage(run([], lines))
    np.testing.assert_array_equal(named(figure, "within one deviation"), [[2, 2], [1, 0.5]])
    np.testing.assert_array_equal(named(figure, "factor of all"), [[2, 3], [1.5, 1.25]])
    figure = critics.errors(run([], lines))
    np.testing.assert_array_equal(named(figure, "of an iteration"), [[2, 3], [0.25, 0.25]])
    np.testing.assert_array_equal(named(figure, "Kendall's tau of an iteration"), [[3], [0.5]])


def test_the_policy_has_a_row_for_each_choice():
    """Logged rows are padded to the largest number of choices."""
    tables = [
        [[0.1, 0.2, 0.3, 0.4], [0.5, 0.25, 0.25, 0.0]],
        [[0.7, 0.1, 0.1, 0.1], [1.0, 0.0, 0.0, 0.0]],
    ]
    known = run([], [line(4, policy=tables[0]), line(8), line(9, policy=tables[1])])
    figure = policies.policy(known)
    z = np.asarray(figure.data[0].z)
    np.testing.assert_allclose(z[:, 0], [0.1, 0.2, 0.3, 0.4, 0.5, 0.25, 0.25])
    np.testing.assert_allclose(z[:, 1], [0.7, 0.1, 0.1, 0.1, 1.0, 0.0, 0.0])
    np.testing.assert_array_equal(figure.data[0].x, [4, 9])
    assert figure.layout.yaxis.ticktext[2:5] == ("depth = 3", "depth = 4", "wide = 1")


def test_the_policy_is_that_behind_the_last_line_of_a_number_of_networks():
    """Iterations that only predict have one, and train nothing."""
    tables = [[[p, 1 - p, 0, 0], [1, 0, 0, 0]] for p in (0.1, 0.2, 0.3)]
    lines = [line(n, policy=table) for n, table in zip((4, 8, 8), tables, strict=True)]
    drawn = policies.policy(run([], lines)).data[0]
    np.testing.assert_array_equal(drawn.x, [4, 8])
    np.testing.assert_allclose(np.asarray(drawn.z)[0], [0.1, 0.3])


def test_choices_of_a_posterior_are_text():
    named_so = categorical.choices({"depth": [1, 2], "wide": ["<b>x", "y"]})
    stages = [{"step": 0, "stage": "prepare", "pi": [[0.5, 0.5], [0.9, 0.1]]}]
    drawn = policies.posterior(run([], stages=stages)._replace(space=named_so)).data[0]
    assert drawn.text[1][0] == "&lt;b&gt;x<br>90%"


def test_the_posterior_is_the_last_one():
    stages = [
        {"step": 0, "stage": "prepare", "pi": [[0.25] * 4, [0.2, 0.4, 0.4]], "entropy": 2.0},
        {"step": 1, "stage": "prepare", "pi": [[0.7, 0.1, 0.1, 0.1], [0, 0, 1]], "entropy": 0.5},
    ]
    known = run([], stages=stages)
    z = np.asarray(policies.posterior(known).data[0].z)
    np.testing.assert_array_equal(z, [[0.7, 0.1, 0.1, 0.1], [0, 0, 1, np.nan]])
    assert policies.course(known).shares[1].tolist() == [[0.2, 0.4, 0.4], [0, 0, 1]]
    np.testing.assert_array_equal(named(policies.entropy(known), "entropy"), [[0, 1], [2, 0.5]])


def test_switches_are_off_and_on_by_the_names_of_their_operations():
    """As `pgnas` logs them where a layer has any operations: in figures before and after."""
    space, q = mixed_chain.make(), posterior.of_space(mixed_chain.make())
    phi = np.linspace(-3, 3, 12).reshape(3, 4)
    pi = [q.by_decision(scale * phi) for scale in (0, 1)]
    stages = [
        {"step": i, "stage": "prepare", "pi": table, "entropy": float(q.entropy(i * phi).sum())}
        for i, table in enumerate(pi)
    ]
    known = run([], stages=stages)._replace(space=space)
    drawn = policies.posterior(known)
    np.testing.assert_allclose(np.asarray(drawn.data[0].z)[:, 1], q.pi(phi).ravel(), atol=1e-4)
    assert drawn.layout.yaxis.ticktext == space.names  # short enough to stand there in full
    assert drawn.data[0].text[11][1] == "on<br>95%"
    course = policies.policy(known)
    assert course.layout.yaxis.ticktext[:2] == (
        "layer0/skip_connect = off",
        "layer0/skip_connect = on",
    )
    np.testing.assert_allclose(np.asarray(course.data[0].z)[:, 0], 0.5)
    (uniform,) = policies.entropy(known).layout.shapes
    assert uniform.y0 == pytest.approx(stages[0]["entropy"]) == pytest.approx(12 * np.log(2))


def test_the_terms_of_a_supernet_s_loss_stand_by_name():
    stages = [
        {"step": 0, "stage": "prepare", "nll": 2.0, "kl": 0.5, "kl_cost": 0.1},
        {"step": 1, "stage": "prepare", "nll": 1.0, "kl": 0.25},
    ]
    figure = supernets.supernet(run([], stages=stages))
    np.testing.assert_array_equal(named(figure, "cross-entropy"), [[0, 1], [2, 1]])
    np.testing.assert_array_equal(named(figure, "KL divergence"), [[0, 1], [0.5, 0.25]])
    np.testing.assert_array_equal(named(figure, "of costs"), [[0], [0.1]])


def test_entropy_stands_beside_that_of_a_uniform_choice():
    known = run([], [line(4, entropy=2.0), line(6, entropy=None), line(8, entropy=1.0)])
    figure = policies.entropy(known)
    np.testing.assert_array_equal(named(figure, "entropy"), [[4, 8], [2, 1]])
    assert figure.layout.shapes[0].y0 == pytest.approx(np.log(4) + np.log(3))


def test_the_pool_has_shares_entries_and_the_drift_of_finalists():
    lines = [
        line(2, **{"pool/hits": 0.5, "pool/similarity": 0.8, "pool/exact": 0.1, "pool/entries": 7}),
        line(3, **{"pool/hits": None, "pool/entries": 9}),
    ]
    records = [trial(0.5, arch=(0, 1)), trial(0.6, arch=(2, 1)), trial(0.7, arch=(3, 0))]
    finalists = [
        {"arch": [3, 0], "first_accuracy": 0.7, "accuracy": 0.65},
        {"arch": [0, 1], "first_accuracy": 0.5, "accuracy": 0.6},
        {"arch": [2, 1], "first_accuracy": 0.6, "accuracy": None},
        {"arch": [2], "first_accuracy": 0.6, "accuracy": 0.5},  # of a result that was changed
        {"first_accuracy": 0.6, "accuracy": 0.5},
    ]
    known = run(records, lines, result={"finalists": finalists})
    moved = pools.drift(known)
    np.testing.assert_array_equal(moved.evaluations, [3, 1])
    np.testing.assert_allclose(moved.gain, [-0.05, 0.1])
    figure = pools.pool(known)
    np.testing.assert_array_equal(named(figure, "blocks found in the pool"), [[2], [0.5]])
    np.testing.assert_array_equal(named(figure, "entries"), [[2, 3], [7, 9]])


def test_parts_of_the_time_add_up_to_all_of_it():
    spends = {"seconds/compile": 3.0, "seconds/children": 5.0, "seconds/method": 1.0}
    known = run([], [line(1, 0, 11.0, **spends, **{"seconds/disk": 0.5})])
    parts = spent.seconds(known)
    assert parts == {"compile": 3, "children": 5, "method": 1, "disk": 0.5, "other": 1.5}
    done = known._replace(result={"seconds": {"total": 20.0, "children": 15.0}})
    assert spent.seconds(done) == dict.fromkeys(parts, 0.0) | {"children": 15, "other": 5}
    figure = spent.time([known, done])
    assert sum(trace.x[0] for trace in figure.data) == pytest.approx(11)


def test_importances_are_those_of_the_function():
    """Of 0.6 a + 0.3 b, the share of the variance of a is 4 / 5; the others do nothing."""
    rng = np.random.default_rng(0)
    archs = rng.integers(0, 4, (150, 5))
    reward = 0.6 * archs[:, 1] + 0.3 * archs[:, 3] + rng.normal(0, 0.01, 150)
    found = decisions.permuted(archs, reward)
    assert np.argsort(-found.mean)[:2].tolist() == [1, 3]
    assert found.r2 > 0.9
    shares = found.mean / found.mean.sum()
    np.testing.assert_allclose(shares[[1, 3]], [0.8, 0.2], atol=0.08)
    assert np.abs(shares[[0, 2, 4]]).max() < 0.02


def test_importances_of_noise_are_refused():
    rng = np.random.default_rng(0)
    archs = rng.integers(0, 3, (90, 2))
    records = [trial(v, arch=a) for v, a in zip(rng.random(90), archs, strict=True)]
    with pytest.raises(UserError, match=r"a forest learns nothing .* \(R2 of ranks -?0\.\d\d\)"):
        decisions.importance(run(records))
    with pytest.raises(UserError, match="has 19 measured networks; importances need 20"):
        decisions.importance(run(records[:19]))
    same = [record | {"reward": 0.5} for record in records[:30]]
    with pytest.raises(UserError, match="has the same reward of all networks; importances need"):
        decisions.importance(run(same))


@pytest.mark.parametrize(
    "make",
    [
        policies.policy,
        policies.posterior,
        policies.entropy,
        critics.predictions,
        critics.coverage,
        critics.errors,
        pools.pool,
        supernets.supernet,
        lambda known: spent.time([known]),
    ],
)
def test_a_run_without_the_data_is_told_who_has_it(make):
    known = run([trial(0.5)], **{"method.name": "random"})
    with pytest.raises(UserError, match=r"the run in 'runs/a' \(method random\) has no .*; "):
        make(known)
