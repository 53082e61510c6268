"""Other people's optimisers on tables: the loop around them, and that they run where installed."""

import jax
import numpy as np
import pytest

from experiments.benchmarks import presets, rivals, sample_efficiency, table_search
from fnas_jax.core.types import UserError
from fnas_jax.methods.baselines import random
from fnas_jax.spaces import base, categorical
from fnas_jax.tasks import tables


def table(missing=0):
    """81 networks, the first of them not in the table."""
    space = categorical.make((3, 3, 3, 3))
    archs = base.enumerate_all(space)[missing:]
    judged = (archs @ np.array([9.0, 3.0, 1.0, 0.3]) / 100).astype(np.float32)
    nan = np.full(len(archs), np.nan, np.float32)
    return tables.Table("t", space, archs, judged, judged[:, None], nan, nan, nan, "made up")


def timed(missing=0, plain=table):
    """The same with 3 seconds for each."""
    found = plain(missing)
    return found._replace(seconds=np.full(len(found.archs), 3, np.float32))


class InOrder:
    """Asks for all networks in order, each of them twice."""

    def __init__(self, space, seed, first):
        self.archs = np.repeat(base.enumerate_all(space), 2, axis=0)
        self.first, self.told, self.seed = first, [], seed

    def start(self):
        asked = iter([*self.first, *self.archs])
        return rivals.Optimiser(lambda: next(asked), self.told.append)


def measured(monkeypatch, evaluations=300, trials=600, seeds=2, warm=False, missing=0):
    made = []

    def start(space, seed, first):
        made.append(InOrder(space, seed, first))
        return made[-1].start()

    monkeypatch.setattr(rivals, "EVALUATIONS", evaluations)
    monkeypatch.setattr(rivals, "TRIALS", trials)
    rival = rivals.Rival(start, "numpy", "numpy", warm)
    other = table() if warm else None
    return rivals.measure(table(missing), rival, seeds, other=other), made


def test_known_networks_are_free_and_tell_their_reading_again(monkeypatch):
    outcome, made = measured(monkeypatch)
    # The last of 81 is the only one of the top, and is asked for at the 161st trial.
    np.testing.assert_array_equal(outcome.hits, [81, 81])
    np.testing.assert_array_equal(outcome.evaluations, [81, 81])
    np.testing.assert_allclose(made[0].told, np.repeat(table().judged, 2)[:160], rtol=1e-6)
    assert [m.seed for m in made] == [0, 1]
    assert outcome.hit_seconds is None
    monkeypatch.setattr("tests.experiments.test_rivals.table", timed)
    outcome, _ = measured(monkeypatch)
    np.testing.assert_array_equal(outcome.hit_seconds, [3 * 81, 3 * 81])
    early, _ = measured(monkeypatch, evaluations=10)
    assert np.isinf(early.hit_seconds).all()


@pytest.mark.parametrize(("limits", "networks"), [((10, 600), 10), ((300, 10), 5)])
def test_a_search_that_ends_early_has_not_arrived(monkeypatch, limits, networks):
    """After so many networks, or after so many trials."""
    outcome, made = measured(monkeypatch, *limits)
    assert np.isinf(outcome.hits).all() and (outcome.evaluations == networks).all()
    assert len(made[0].told) == (18 if networks == 10 else 10)


def test_what_a_search_that_ends_at_the_top_does_not_know_is_left_out(monkeypatch):
    outcome, _ = measured(monkeypatch)
    found = sample_efficiency.figures("t", "optuna_tpe", outcome)
    metrics = {r["metric"] for r in found}
    assert metrics == {"evals_to_top0.1pct", "reached", "evals_spent", "seconds"}
    assert "-" in sample_efficiency.row(found) and "0.00" not in sample_efficiency.row(found)


def test_an_architecture_that_the_table_lacks_is_told_as_failed_and_counts(monkeypatch):
    outcome, made = measured(monkeypatch, evaluations=4, missing=1)
    assert made[0].told[:2] == [None, None] and made[0].told[2] > 0
    assert (outcome.evaluations == 4).all()


def test_a_warm_one_begins_with_the_best_that_its_seed_knows_of_the_other_task(monkeypatch):
    monkeypatch.setattr(presets, "SOURCE_ROWS", 40)
    _, made = measured(monkeypatch, evaluations=20, warm=True)
    other, found = table(), []
    for key, search in zip(table_search.seed_keys(2), made, strict=True):
        rows = np.asarray(table_search.history_rows(key, 81, 40))
        best = sorted(rows, key=lambda row: -other.judged[row])[: rivals.FIRST]
        np.testing.assert_array_equal(search.first, other.archs[best])
        found.append(best)
    assert found[0] != found[1]


def test_a_rival_reads_what_every_method_reads_with_its_seed(monkeypatch):
    readings = table().judged[:, None] + np.float32([0, 0.3, 0.6])
    noisy = table()._replace(readings=readings)
    monkeypatch.setattr("tests.experiments.test_rivals.table", lambda missing=0: noisy)
    _, made = measured(monkeypatch)
    on = table_search.ground(noisy)

    @jax.jit
    def search(key):
        trace = table_search.search(on, random.make(noisy.space, 8), key, 40, (1,)).trace
        return trace.reward.reshape(-1), on.where.row_of(trace.archs.reshape(-1, 4))

    for key, mine in zip(table_search.seed_keys(2), made, strict=True):
        reward, rows = map(np.asarray, search(key))
        told = rows < 80  # the search ends at the last
        np.testing.assert_allclose(reward[told], np.array(mine.told)[2 * rows[told]])


@pytest.mark.parametrize("method", rivals.RIVALS)
def test_a_missing_package_is_one_sentence(method, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(rivals.importlib.util, "find_spec", lambda name: None)
    package = rivals.RIVALS[method].package
    with pytest.raises(UserError, match=f"needs the package {package}"):
        rivals.check([method])
    assert sample_efficiency.main(["--methods", method, "--data", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: the method {method} needs") and said.count("\n") == 1
    rivals.check(["random", "gp_ei"])


@pytest.mark.parametrize("method", ["optuna_tpe", "optuna_tpe_independent", "optuna_tpe_warm"])
def test_optuna_finds_what_is_easy_to_find(method, monkeypatch):
    pytest.importorskip("optuna")
    monkeypatch.setattr(presets, "SOURCE_ROWS", 40)
    monkeypatch.setattr(rivals, "EVALUATIONS", 40)
    outcome = rivals.measure(table(), rivals.RIVALS[method], 3, other=table())
    again = rivals.measure(table(), rivals.RIVALS[method], 1, other=table())
    assert outcome.hits[0] == again.hits[0]
    assert np.median(outcome.hits) <= (rivals.FIRST if method == "optuna_tpe_warm" else 40)


def test_smac_is_asked_and_told(monkeypatch):
    pytest.importorskip("smac")
    monkeypatch.setattr(rivals, "EVALUATIONS", 14)
    outcome = rivals.measure(table(1), rivals.RIVALS["smac"], 1)
    assert outcome.evaluations <= 14
