"""Reading tables: the published ones, and what is said of broken ones."""

import json

import numpy as np
import pytest

from fnas_jax.core.types import UserError
from fnas_jax.tasks import tables
from fnas_jax.tasks.plain_table import Asked

ROW = {"test_acc": [90.0, 91.0, 92.0], "mean_acc": 91.0, "params": 2e6, "flops": 5e7}


def macro_file(folder, text: str):
    (folder / tables.FILES["macro"]).write_text(text)
    return lambda: tables.load("macro", folder)


def plain_file(folder, text: str, *asked):
    (folder / "t.csv").write_text(text)
    return lambda: tables.load(str(folder / "t.csv"), "", Asked(*asked))


def test_macro_rows_are_read_in_shares_and_millions(tmp_path):
    table = macro_file(tmp_path, json.dumps({"22212220": ROW, "00000000": ROW}))()
    assert table.archs.tolist() == [[2, 2, 2, 1, 2, 2, 2, 0], [0] * 8]
    np.testing.assert_allclose(table.readings[0], [0.90, 0.91, 0.92])
    assert (table.judged[0], table.mflops[0], table.params_m[0]) == (np.float32(0.91), 50, 2)
    assert np.isnan(table.latency_ms).all()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"2221222": ROW}, "line 2: bad entry '2221222': .*eight digits"),
        ({"22212220": ROW, "22212221": ROW | {"mean_acc": "x"}}, "line 3: bad entry '22212221'"),
        ({"22212220": {"mean_acc": 91.0}}, "line 2: .*'test_acc' is missing"),
        ({"22212220": ROW | {"mean_acc": 910}}, "accuracy 910 does not lie in 0..100"),
        ({"22212220": ROW, "00000000": ROW | {"test_acc": [90.0]}}, "test_acc has 1 readings"),
        ({"22212220": 5}, "line 2: bad entry"),
        ({"22212220": ROW | {"mean_acc": 10**400}}, "bad entry '22212220': .*does not lie in 0"),
        ({"22212220": ROW | {"params": 10**400}}, "line 2: bad entry '22212220': params is 1000"),
        ({"22212220": ROW | {"flops": float("inf")}}, "bad entry '22212220': flops is inf"),
        ({"22212220": ROW | {"flops": 0}}, "bad entry '22212220': flops is 0"),
        ({"22212220": ROW | {"params": -1}}, "bad entry '22212220': params is -1"),
        ({"22212220": ROW | {"params": float("nan")}}, "'22212220': params is nan"),
        ({}, "expected an object"),
    ],
)
def test_bad_macro_entries_name_file_and_line(tmp_path, entries, message):
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in entries.items())
    with pytest.raises(UserError, match=f"nas_bench_macro_cifar10.json, .*{message}"):
        macro_file(tmp_path, "{\n" + lines + "}")()


def test_broken_json_names_its_line(tmp_path):
    with pytest.raises(UserError, match="line 3: not JSON"):
        macro_file(tmp_path, '{"22212220":\n{},\n}')()


def test_json_that_python_cannot_hold_is_told_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match="too deep"):
        macro_file(tmp_path, "[" * 100_000)()
    with pytest.raises(UserError, match="thousands of digits"):
        macro_file(tmp_path, '{"22212220": 1' + "0" * 5000 + "}")()


def test_an_entry_that_stands_there_twice_is_told(tmp_path):
    line = f'"22212220": {json.dumps(ROW)}'
    with pytest.raises(UserError, match="line 3: the entry '22212220' stands there twice"):
        macro_file(tmp_path, f"{{{line},\n\n{line}}}")()


def test_where_a_table_was_looked_for_is_said_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = f"at {tmp_path}/a/t.csv nor at {tmp_path}/data/a/t.csv"
    with pytest.raises(UserError, match=f"there is no table a/t.csv, {places}"):
        tables.load("a/t.csv", "data")
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / "t.csv").write_text("decision_0,acc\n0,1\n")
    assert tables.load("a/t.csv", "data").name == "t"
    with pytest.raises(UserError, match=f"no table {tmp_path}/data/nas_bench_macro"):
        tables.load("macro", "data")


def test_keys_for_files_of_ones_own_are_refused_for_published_tables(tmp_path):
    for asked in (Asked("acc"), Asked("", "minimize"), Asked("", "maximize", ("op",))):
        with pytest.raises(UserError, match="and the table macro has what it has"):
            tables.load("macro", tmp_path, asked)
    with pytest.raises(UserError, match="there is no table"):  # more is better of all of them
        tables.load("macro", tmp_path, Asked("", "maximize"))


def test_nats_rows_are_read_by_column(tmp_path):
    head = "architecture,cifar10_test_accuracy,cifar100_test_accuracy\n"
    cell = "|none~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|"
    path = tmp_path / tables.FILES["nats_cifar10"]
    path.write_text(f"{head}{cell},90.5,60.25\n")
    assert tables.load("nats_cifar10", tmp_path).judged.tolist() == [np.float32(0.905)]
    assert tables.load("nats_cifar100", tmp_path).judged.tolist() == [np.float32(0.6025)]
    path.write_text(f"{head}{cell},90.5,60.25\n{cell},90.5,60.25\n")
    with pytest.raises(UserError, match="line 3: the architecture of line 2 again"):
        tables.load("nats_cifar10", tmp_path)
    path.write_text(f"{head}{cell[:-3]},90.5,60.25\n")
    with pytest.raises(UserError, match="line 2: "):
        tables.load("nats_cifar10", tmp_path)


def test_plain_csv_has_its_own_space_metrics_and_costs(tmp_path):
    text = "decision_0,decision_1,mflops,val_acc,test_acc\n0,2,5,50,40\n1,0,6,nan,30\n"
    table = plain_file(tmp_path, text, "val_acc")()
    assert table.space.cardinalities == (2, 3)
    np.testing.assert_allclose(table.judged, [0.5, np.nan])
    np.testing.assert_allclose(table.mflops, [5, 6])
    np.testing.assert_allclose(plain_file(tmp_path, text, "test_acc")().judged, [0.4, 0.3])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("decision_0,acc\n0,0.5\n1\n", "line 3: 1 fields; the header has 2"),
        ("decision_0,acc\n0,0.5\nx,0.5\n", "line 3: decision_0 is 'x'; it must be an integer"),
        ("decision_0,acc\n0,0.5\n-1,0.5\n", "line 3: decision_0 is '-1'"),
        ("decision_0,acc\n0,x\n", "line 2: acc is 'x'; it must be a number"),
        ("decision_0,acc\n0,inf\n", "line 2: acc is 'inf'; it must be finite"),
        ("decision_0,acc\n0,0.5\n0,0.6\n", "line 3: the architecture of line 2 again"),
        ("decision_0,acc\n0,0.5\n1,-0.5\n", "line 3: acc is -0.5"),
        ("decision_0,acc\n0,0.5\n1,500\n", "line 3: acc is 500.0; by its name, it must lie"),
        ("decision_0,mflops\n0,1\n", "line 1: there is no column of accuracies"),
        ("decision_0,decision_2,acc\n0,0,1\n", "line 1: the decisions must be"),
        ("acc\n1\n", "line 1: there is no column 'decision_0'"),
        ("decision_0,acc,acc\n0,1,1\n", "line 1: two columns"),
        ("decision_0,acc\n", "line 2: the table has no rows"),
        ("", "line 1: there is no column"),
    ],
)
def test_malformed_rows_name_file_and_line(tmp_path, text, message):
    with pytest.raises(UserError, match=f"t.csv, {message}"):
        plain_file(tmp_path, text)()


def test_unknown_tables_and_columns(tmp_path):
    with pytest.raises(UserError, match="allowed are macro, nats_cifar10"):
        tables.load("nats", tmp_path)
    with pytest.raises(UserError, match="there is no table"):
        tables.load("macro", tmp_path)
    with pytest.raises(UserError, match="data_dir is empty"):
        tables.load("macro", "")
    with pytest.raises(UserError, match="no metric 'loss'; it has acc"):
        plain_file(tmp_path, "decision_0,acc\n0,1\n", "loss")()


def test_published_tables_have_their_published_best_and_top(tables_dir):
    for name, rows, best in (
        ("macro", 6561, 0.93127),
        ("nats_cifar10", 15625, 0.94373),
        ("nats_cifar100", 15625, 0.73513),
    ):
        table = tables.load(name, tables_dir)
        assert len(table.archs) == rows
        assert abs(table.judged.max() - best) < 1e-5
        assert "test accuracy" in table.note
