"""Training times of a table: which column has them, which are wrong, what evaluations take."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core.config import default
from fnas_jax.core.types import UserError
from fnas_jax.spaces import cell, macro
from fnas_jax.tasks import images, table_index, tables, tabular
from fnas_jax.tasks.plain_table import Asked

TEXT = "decision_0,acc,gpu_s,op\n0,0.9,30,a\n1,0.6,10.5,b\n2,nan,20,c\n"


def table_of(folder, text=TEXT, **asked):
    (folder / "t.csv").write_text(text)
    return tables.load("t.csv", folder, Asked(**asked))


def test_the_column_that_is_named_has_the_seconds_and_is_told(tmp_path):
    table = table_of(tmp_path, time="gpu_s")
    assert table.seconds.tolist() == [30, 10.5, 20] and table.seconds.dtype == np.float32
    assert table.metric == "acc"  # though there are two columns of numbers
    assert "20 s in the median, 0.01681 h in all" in table.notes[-1]
    assert "not used: op" in table.notes[0] and "gpu_s" not in table.notes[0]


def test_without_times_there_are_none(tmp_path):
    assert table_of(tmp_path, metric="acc").seconds is None


def test_a_column_of_the_usual_name_is_taken_unless_it_is_something_else(tmp_path):
    text = TEXT.replace("gpu_s", "train_seconds")
    assert table_of(tmp_path, text).seconds.tolist() == [30, 10.5, 20]
    searched = table_of(tmp_path, text, metric="train_seconds", direction="minimize")
    assert searched.seconds is None
    assert table_of(tmp_path, text, decisions=("train_seconds",), metric="acc").seconds is None


def test_times_with_decimal_commas_are_read(tmp_path):
    table = table_of(tmp_path, "decision_0;acc;s\n0;0,9;1,5\n1;0,8;2\n", time="s")
    assert table.seconds.tolist() == [1.5, 2]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("gpu_sec", "has no column 'gpu_sec' .task.time.; .* is gpu_s, op; .*'gpu_s'"),
        ("decision_0", "task.time is 'decision_0', in .*t.csv one of the decisions; it names"),
        ("mflops", "task.time is 'mflops', in .*t.csv one of the costs, which say how large"),
        ("acc", "task.time is 'acc', in .*t.csv what is searched for; it names"),
    ],
)
def test_a_column_that_has_no_times_is_told(tmp_path, column, message):
    text = TEXT.replace(",op", ",op,mflops").replace("a\n", "a,1\n")
    text = text.replace("b\n", "b,1\n").replace("c\n", "c,1\n")
    with pytest.raises(UserError, match=message):
        table_of(tmp_path, text, time=column, metric="acc")


def test_times_alone_are_no_metric(tmp_path):
    text = "decision_0,train_seconds\n0,3\n1,4\n"
    with pytest.raises(UserError, match=r"task.metric can name one of the costs train_seconds"):
        table_of(tmp_path, text)


BAD = ["-1", "0", "nan", "", "NA", "inf", "1e39", "1e-60", "many", "1_0"]


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_time_is_told_with_its_line_where_it_is_asked_for(tmp_path, text):
    with pytest.raises(UserError, match=r"line 3: gpu_s is .*; a training time is a finite number"):
        table_of(tmp_path, TEXT.replace("10.5", text), time="gpu_s")


def test_times_that_were_not_asked_for_are_warned_of_and_not_used(tmp_path):
    text = TEXT.replace("gpu_s", "train_seconds").replace("10.5", "-1")
    table = table_of(tmp_path, text)
    assert table.seconds is None
    assert table.notes[-1].startswith("warning: no training times, which would be those of train_s")
    assert "line 3: train_seconds is '-1'" in table.notes[-1]


NONE = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


@pytest.mark.parametrize(("column", "asked"), [("cifar10_train_seconds", ""), ("hours", "hours")])
def test_the_published_table_of_cells_may_have_times(tmp_path, column, asked):
    text = f"architecture,cifar10_test_accuracy,{column}\n{NONE},90,1500\n"
    (tmp_path / tables.FILES["nats_cifar10"]).write_text(text)
    table = tables.load("nats_cifar10", tmp_path, Asked(time=asked))
    assert table.seconds.tolist() == [1500] and "1500 s" in table.notes[-1]
    assert table.space.name == cell.make().name
    with pytest.raises(UserError, match="has no column 'minutes'"):
        tables.load("nats_cifar10", tmp_path, Asked(time="minutes"))


def test_the_other_published_table_has_none(tmp_path):
    with pytest.raises(UserError, match=r"task.time is 'x', and the table macro has what it has"):
        tables.load("macro", tmp_path, Asked(time="x"))


def test_images_have_none():
    config = default()
    config.task.time = "seconds"
    with pytest.raises(UserError, match=r"task.time names columns of a .csv table"):
        images.build(config, macro.make(), None)


def task_of(folder, text=TEXT, **keys):
    (folder / "t.csv").write_text(text)
    config = default()
    flat = {"task.name": f"tabular/{folder}/t.csv", "task.time": "gpu_s", **keys}
    config.update_from_flattened_dict(flat)
    return tabular.build(config)


def test_first_readings_take_the_time_of_their_rows_and_others_none(tmp_path):
    task = task_of(tmp_path)
    assert task.simulated
    archs, mask = jnp.array([[1], [2], [1], [0]]), jnp.array([True, True, True, False])
    evaluate = jax.jit(task.evaluator.evaluate)
    known, first = evaluate(task.evaluator.init(), archs, mask, jax.random.key(0))
    assert first.seconds.tolist() == [10.5, 20, 0, 0]  # the one that failed took time, too
    assert first.ok.tolist() == [True, False, True, False]
    _, second = evaluate(known, archs, jnp.ones(4, bool), jax.random.key(1))
    assert second.seconds.tolist() == [0, 0, 0, 30]


def test_rows_that_are_left_out_take_their_times_along(tmp_path):
    text = "decision_0,acc,gpu_s,mflops\n0,0.9,30,-1\n1,0.6,10,5\n2,0.5,20,6\n"
    task = task_of(tmp_path, text, **{"limits.mflops": 5.5, "task.metric": "acc"})
    archs = jnp.array([[0], [1], [2]])
    inputs = (task.evaluator.init(), archs, jnp.ones(3, bool), jax.random.key(0))
    assert jax.jit(task.evaluator.evaluate)(*inputs)[1].seconds.tolist() == [0, 10, 0]


def test_times_do_not_change_what_rows_are_comparable_with(tmp_path):
    (tmp_path / "t.csv").write_text(TEXT)
    of = [task_of(tmp_path, **keys) for keys in ({}, {"task.time": "", "task.metric": "acc"})]
    assert of[0].evaluator.protocol == of[1].evaluator.protocol
    assert [bool(task.simulated) for task in of] == [True, False]


def test_equal_networks_of_several_rows_take_the_time_of_the_one_that_was_asked_for():
    space = macro.make()
    twins = np.array([space.parse(text) for text in ("22212220", "22212202")])
    half, nan = np.full(2, 0.5, np.float32), np.full(2, np.nan, np.float32)
    table = tables.Table("t", space, twins, half, half[:, None], nan, nan, nan, "made up")
    table = table._replace(seconds=np.float32([3, 5]))
    evaluator = tabular.evaluator(table, table_index.of(table), lambda a, *_: a, False)
    evaluate = jax.jit(evaluator.evaluate)
    for order, seconds in ((twins, 3), (twins[::-1], 5)):
        inputs = (evaluator.init(), jnp.asarray(order), jnp.ones(2, bool), jax.random.key(0))
        assert evaluate(*inputs)[1].seconds.tolist() == [seconds, 0]
