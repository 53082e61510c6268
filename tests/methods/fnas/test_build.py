"""FNAS from a configuration: its knowledge store, its refusals, and a whole small search."""

import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax import loop
from fnas_jax.core import config as config_lib
from fnas_jax.core import identity
from fnas_jax.core import reward as rewards
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import history, task_data
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.knowledge.sources import Asker
from fnas_jax.methods.fnas import build
from fnas_jax.methods.scores import rank_scores
from tests.methods import toy


def row(position, arch, reward, ok=True):
    return history.Row(position, arch, True, ok, reward, reward, *[np.nan] * 3, seconds=1.0)


@pytest.fixture
def store(tmp_path):
    """30 rows of one task and 12 of another, of the toy space."""
    connection = history.open_(tmp_path)
    rng = np.random.default_rng(0)
    for task, n in (("images/a", 30), ("images/b", 12)):
        run = history.Run(task, toy.SPACE.name, task, 10, 0, {})
        archs = rng.integers(0, toy.SPACE.cardinalities, (n, 5))
        rows = [row(i, a, float(toy.accuracy(a[None])[0])) for i, a in enumerate(archs)]
        history.record(connection, run, 0, [*rows, row(n, archs[0], 0.0, ok=False)])
    task_data.record_task(connection, "images/a", {"images": 100.0})
    task_data.record_task(connection, "images/b", {"images": 900.0})
    yield Knowledge(connection)
    connection.close()


def asker(task, space=toy.SPACE):
    return Asker(space, task, "", rewards.define(config_lib.default()))


def test_source_rows_are_the_measured_ones_of_other_tasks(store):
    found = build.source_tasks(asker("images/c"), {"images": 300.0}, store, 100)
    assert found.rows == 42 and len(found.archs) == 42  # failed ones stay away
    assert found.embedding.shape == (3, 1)
    assert found.embedding[0] < found.embedding[2] < found.embedding[1]
    np.testing.assert_allclose(found.reward, toy.accuracy(found.archs), rtol=1e-5)
    assert build.source_tasks(asker("images/c"), {}, store, 25).rows == 25


def test_one_task_by_two_protocols_is_ranked_apart(store):
    """Short trainings reach less: joined, all of them would rank below the long ones."""
    connection = store.history
    archs = np.asarray(toy.SPACE.sample(jax.random.key(0), 30))
    accuracy = toy.accuracy(archs).astype(float)
    connection.execute("DELETE FROM evaluations")
    for steps, scale in ((10, 0.1), (100, 1.0)):
        protocol = identity.text({"steps": steps})
        run = history.Run(
            str(steps), toy.SPACE.name, "images/a", steps, 0, {}, toy.SPACE.identity, protocol
        )
        rows = [row(i, a, scale * r) for i, (a, r) in enumerate(zip(archs, accuracy, strict=True))]
        history.record(connection, run, 0, rows)
        task_data.record_task(connection, "images/a", {"images": float(steps)}, protocol)
    found = build.source_tasks(asker("images/c"), {"images": 30.0}, store, 100)
    assert found.embedding.shape == (3, 1) and len(set(found.embedding[:, 0])) == 3
    scores = [rank_scores(jnp.asarray(found.reward), found.task == t) for t in (0, 1)]
    one, two = (np.asarray(s)[found.task == t] for t, s in enumerate(scores))
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_too_few_source_rows_are_none(store):
    assert build.source_tasks(asker("images/a"), {}, store, 100) is None  # 12 are left
    other = toy.SPACE._replace(cardinalities=(2, 2, 2, 2, 2))  # choices out of its range
    assert build.source_tasks(asker("images/c", other), {}, store, 100) is None


def test_what_was_written_after_a_run_began_stays_unseen(store):
    began = time.time()
    assert build.source_tasks(asker("images/c"), {}, store._replace(until=began), 9)
    early = store._replace(until=began - 3600)
    assert build.source_tasks(asker("images/c"), {}, early, 9) is None


def configuration(path, **changes):
    config = config_lib.default()
    flat = toy.SMALL_FNAS | {
        "task.name": f"tabular/{path}",
        "method.name": "fnas",
        "search.budget": 24,
        "search.batch": 4,
    }
    return config_lib.nest(config_lib.flatten(config) | flat | changes)


@pytest.fixture
def table(tmp_path):
    archs = np.stack(np.meshgrid(*[np.arange(3)] * 4, indexing="ij"), -1).reshape(-1, 4)
    lines = [",".join(map(str, a)) + f",{50 + 5 * a.sum() + a[0] / 10}" for a in archs]
    path = tmp_path / "plain.csv"
    path.write_text("\n".join(["decision_0,decision_1,decision_2,decision_3,acc", *lines]))
    return path


def test_a_search_predicts_verifies_and_reports(table, tmp_path):
    result = loop.run(configuration(table), tmp_path / "run")
    assert result["best"]["reward"] > 0.85  # of 0.902 at most
    assert result["counts"]["trained"] >= 24
    assert result["counts"]["predicted"] > 0 and result["counts"]["replayed"] > 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    for name in ("mae", "tau", "coverage", "trained_now", "predicted_now", "replayed", "ess"):
        assert name in last
    connection = history.open_(tmp_path / "run" / "knowledge")
    predicted = history.rows(connection, "categorical/plain", trained=False)
    assert len(predicted.reward) == result["counts"]["predicted"]
    connection.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fnas.verify": 5}, "fnas.verify is 5; at most search.batch"),
        (
            {"uac.hidden": 9, "uac.uncertainty": "ensemble"},
            "uac.hidden is 9; it must be even",
        ),
        ({"uac.members": 3}, "uac.members is 3, which only a critic of networks reads; set uac"),
        ({"fnas.optimism": 1.0}, "fnas.optimism is 1.0, which only a critic of networks reads"),
        ({"ppo.minibatches": 3}, "ppo.minibatches is 3; it must divide search.batch"),
    ],
)
def test_numbers_that_do_not_fit_are_refused_in_a_sentence(table, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        loop.run(configuration(table, **changes), tmp_path / "run")
