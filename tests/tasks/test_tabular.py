"""The tabular task: what is counted, what is remembered, what noise does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core.config import default
from fnas_jax.core.types import UserError
from fnas_jax.spaces import base, macro
from fnas_jax.tasks import table_index, tables, tabular

SPACE = macro.make()


def accuracy_only(accuracy, latency_ms, mflops, params_m):
    return accuracy


def make_table(rows: int = 6561) -> tables.Table:
    """Macro architectures with made-up accuracies; equal networks have equal rows."""
    archs = base.enumerate_all(SPACE)[:rows]
    code = np.asarray(SPACE.canonical(archs)) @ 3 ** np.arange(8)
    judged = (0.1 + code / 10000).astype(np.float32)
    readings = judged[:, None] + np.array([-0.01, 0.0, 0.01], np.float32)
    nan = np.full(rows, np.nan, np.float32)
    return tables.Table("t", SPACE, archs, judged, readings, nan, nan + 1, nan, "test accuracy")


def setup(table, noisy=False):
    where = table_index.of(table)
    evaluator = tabular.evaluator(table, where, accuracy_only, noisy)
    return where, evaluator.init(), jax.jit(evaluator.evaluate)


def parse(*texts):
    return jnp.array([SPACE.parse(t) for t in texts])


def test_equal_networks_are_fresh_once_within_and_across_batches():
    _, known, evaluate = setup(make_table())
    twins = parse("22212220", "22212202", "00000000", "22212220")
    known, first = evaluate(known, twins, jnp.ones(4, bool), jax.random.key(0))
    assert np.asarray(first.fresh).tolist() == [True, False, True, False]
    assert np.asarray(first.ok).all() and not np.asarray(first.seconds).any()
    assert first.accuracy[0] == first.accuracy[1] == first.accuracy[3]
    known, second = evaluate(known, twins[::-1], jnp.ones(4, bool), jax.random.key(1))
    assert not np.asarray(second.fresh).any()
    np.testing.assert_array_equal(second.accuracy, first.accuracy[::-1])


def test_masked_entries_cost_nothing_and_are_not_remembered():
    _, known, evaluate = setup(make_table())
    batch = parse("22212220", "22212220")
    known, metrics = evaluate(known, batch, jnp.array([False, True]), jax.random.key(0))
    assert np.asarray(metrics.fresh).tolist() == [False, True]
    assert np.asarray(metrics.ok).tolist() == [False, True]
    assert metrics.accuracy[0] == metrics.reward[0] == 0
    _, known, evaluate = setup(make_table())
    known, _ = evaluate(known, batch, jnp.zeros(2, bool), jax.random.key(0))
    assert (np.asarray(known.row) == -1).all()


def test_noisy_queries_see_one_reading_and_keep_the_first():
    table = make_table()
    where, start, evaluate = setup(table, noisy=True)
    batch, mask = parse("22212220", "01201201"), jnp.ones(2, bool)
    rows = np.asarray(where.row_of(batch))
    seen = []
    for seed in range(60):
        known, metrics = evaluate(start, batch, mask, jax.random.key(seed))
        _, again = evaluate(known, batch, mask, jax.random.key(seed + 1000))
        np.testing.assert_array_equal(again.accuracy, metrics.accuracy)
        offset = np.asarray(metrics.accuracy) - table.judged[rows]
        seen.append(np.round(offset * 100).astype(int))
    values, counts = np.unique(np.array(seen), return_counts=True)
    assert values.tolist() == [-1, 0, 1]
    assert counts.min() > 20  # 120 draws of three readings


def test_failed_architectures_count_once_and_absent_ones_never():
    table = make_table(rows=100)
    table = table._replace(readings=table.readings.copy(), judged=table.judged.copy())
    table.judged[0] = np.nan
    _, known, evaluate = setup(table)
    batch = parse("22222222", "00000000", "22222222")
    # What the table lacks is no evaluation; a training that failed is one.
    for fresh in ([False, True, False], [False, False, False]):
        known, metrics = evaluate(known, batch, jnp.ones(3, bool), jax.random.key(0))
        assert np.asarray(metrics.fresh).tolist() == fresh
        assert not np.asarray(metrics.ok).any()
        assert np.asarray(metrics.reward).tolist() == [0, 0, 0]


def test_a_form_that_the_table_lacks_has_the_row_of_an_equal_network():
    table = make_table()
    keep = np.asarray(SPACE.canonical(table.archs) == table.archs).all(axis=1)
    small = tables.Table(*[f[keep] if isinstance(f, np.ndarray) else f for f in table])
    where = table_index.of(small)
    rows = np.asarray(where.row_of(table.archs))
    assert (rows >= 0).all()
    np.testing.assert_array_equal(small.judged[rows], table.judged)


def test_large_spaces_are_matched_row_by_row(tmp_path):
    header = ",".join(f"decision_{t}" for t in range(12))
    rows = np.random.default_rng(0).integers(0, 9, (50, 12))
    rows[0] = 8
    lines = [",".join(map(str, row)) + f",{i / 100}" for i, row in enumerate(rows)]
    (tmp_path / "big.csv").write_text("\n".join([header + ",acc", *lines]))
    table = tables.load(str(tmp_path / "big.csv"), "")
    where, known, evaluate = setup(table)
    np.testing.assert_array_equal(where.row_of(jnp.asarray(table.archs)), np.arange(50))
    absent = jnp.zeros((1, 12), jnp.int32)
    assert np.asarray(where.row_of(absent)).tolist() == [-1]
    batch = jnp.concatenate([jnp.asarray(table.archs[3:5]), absent, table.archs[3:4]])
    known, metrics = evaluate(known, batch, jnp.ones(4, bool), jax.random.key(0))
    assert np.asarray(metrics.fresh).tolist() == [True, True, False, False]
    assert np.asarray(metrics.ok).tolist() == [True, True, False, True]
    np.testing.assert_allclose(metrics.accuracy, [0.03, 0.04, 0, 0.03], rtol=1e-6)


def test_build_from_config(tables_dir):
    config = default()
    config.task.name, config.task.data_dir = "tabular/macro", str(tables_dir)
    task = tabular.build(config, macro.make())
    assert task.name == "tabular/macro" and task.space.name == "macro"
    best, network = task.final(macro.make().parse("22212220"), jax.random.key(0))
    assert network is None
    assert abs(best["accuracy"] - 0.93127) < 1e-5
    assert best["rank"] == 1 and best["regret_points"] == 0
    assert "test accuracy" in best["measures"]
    config.reward.cost, config.reward.target = "latency_ms", 5.0
    with pytest.raises(UserError, match="table macro does not hold"):
        tabular.build(config)
    config.reward.cost, config.reward.target = "mflops", 80.0
    task = tabular.build(config)
    arch = parse("22212220")
    _, metrics = task.evaluator.evaluate(
        task.evaluator.init(), arch, jnp.ones(1, bool), jax.random.key(0)
    )
    expected = float(metrics.accuracy[0]) * (float(metrics.mflops[0]) / 80) ** -0.07
    np.testing.assert_allclose(metrics.reward, [expected], rtol=1e-5)


def test_top_rows_of_the_published_tables(tables_dir):
    for name, threshold in (
        ("macro", 0.93057),
        ("nats_cifar10", 0.9418),
        ("nats_cifar100", 0.7272),
    ):
        table = tables.load(name, tables_dir)
        top = tabular.top_rows(table)
        assert top.sum() in (7, 16, 17)
        assert table.judged[top].min() >= threshold - 3e-5 > table.judged[~top].max() - 3e-5


def test_wrong_task_names_and_spaces_are_refused(tables_dir):
    config = default()
    with pytest.raises(UserError, match="tables are tabular/macro"):
        tabular.space(config)
    config.task.name, config.task.data_dir = "tabular/nats_cifar10", str(tables_dir)
    with pytest.raises(UserError, match="is about space cell, not macro"):
        tabular.build(config, macro.make())


@pytest.mark.parametrize(
    ("key", "value"), [("objective", "regression"), ("class_weights", "balanced")]
)
def test_what_networks_are_trained_for_is_refused_beside_a_table(tmp_path, key, value):
    config = minimised(tmp_path)
    config.task[key] = value
    message = f"task.{key} is '{value}', which says how networks are trained on images, and tabular"
    for read in (tabular.space, tabular.build):
        with pytest.raises(UserError, match=message):
            read(config)


def minimised(folder):
    path = folder / "t.csv"
    path.write_text("decision_0,loss\n0,3\n1,1\n2,2\n3,nan\n")
    config = default()
    config.task.name, config.task.direction = f"tabular/{path}", "minimize"
    return config


def test_regret_rank_and_top_of_what_is_minimised(tmp_path):
    table = tabular.load(minimised(tmp_path))
    assert tabular.top_rows(table).tolist() == [False, True, False, False]
    where = table_index.of(table)
    facts = [tabular.judge(table, where, [i]) for i in range(4)]
    assert [f["rank"] for f in facts] == [3, 1, 2, None]
    assert [f["regret_points"] for f in facts] == [2, 0, 1, None]
    assert [f["value"] for f in facts] == [3, 1, 2, None]
    assert [f["accuracy"] for f in facts] == [None] * 4


def test_the_task_of_what_is_minimised_says_its_measure_and_rewards_less(tmp_path):
    config = minimised(tmp_path)
    task = tabular.build(config)
    assert (task.measure.name, task.measure.kind, task.measure.scale) == ("loss", "error", 2)
    state, archs = task.evaluator.init(), jnp.arange(4)[:, None]
    _, metrics = task.evaluator.evaluate(state, archs, jnp.ones(4, bool), jax.random.key(0))
    np.testing.assert_allclose(metrics.accuracy, [-3, -1, -2, 0])
    # scale / (scale + loss), and 0 for the failed one
    np.testing.assert_allclose(metrics.reward, [2 / 5, 2 / 3, 2 / 4, 0], rtol=1e-6)


def test_what_is_left_falls_to_none_and_absent_forms_never_count():
    table = make_table(rows=100)
    where, known, evaluate = setup(table)
    evaluator = tabular.evaluator(table, where, accuracy_only, False)
    networks = len(np.unique(np.asarray(SPACE.canonical(table.archs)), axis=0))
    assert int(evaluator.left(known)) == networks and not where.complete
    for archs in (jnp.asarray(table.archs), parse("22222222")):
        known, _ = evaluate(known, archs, jnp.ones(len(archs), bool), jax.random.key(0))
        assert int(evaluator.left(known)) == 0


def test_existing_has_the_rows_and_their_canonical_forms():
    table = make_table()
    assert tabular.existing(table, table_index.of(table)) is None
    few = tables.Table(*[f[5:9] if isinstance(f, np.ndarray) else f for f in table])
    found = np.asarray(tabular.existing(few, table_index.of(few))).tolist()
    forms = np.asarray(SPACE.canonical(few.archs)).tolist()
    assert sorted(found) == sorted({tuple(a): a for a in [*few.archs.tolist(), *forms]}.values())
