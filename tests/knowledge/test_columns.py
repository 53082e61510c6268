"""Rows of a query as arrays, whatever the number of rows that are looked at at a time."""

import sqlite3

import numpy as np
import pytest

from fnas_jax.knowledge import columns

KINDS = {"decisions": list, "ok": bool, "accuracy": float, "task": str, "steps": np.int64}


def read(rows, chunk, monkeypatch):
    monkeypatch.setattr(columns, "CHUNK", chunk)
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (decisions, ok, accuracy, task, steps)")
    connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?)", rows)
    return columns.read(connection.execute("SELECT * FROM t ORDER BY rowid"), KINDS)


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_every_row_is_there_once_and_in_its_order(chunk, monkeypatch):
    rows = [
        (f"[{i}, {i + 1}]", i % 2, i / 7 if i % 3 else None, "x" * i or None, i) for i in range(7)
    ]
    found, sizes = read(rows, chunk, monkeypatch)
    assert sizes == {2}
    assert found["decisions"].tolist() == [[i, i + 1] for i in range(7)]
    assert found["decisions"].dtype == np.int32
    assert found["ok"].tolist() == [bool(i % 2) for i in range(7)]
    np.testing.assert_array_equal(found["accuracy"], [i / 7 if i % 3 else np.nan for i in range(7)])
    assert found["task"].tolist() == ["x" * i for i in range(7)]
    assert found["steps"].tolist() == list(range(7))


@pytest.mark.parametrize("chunk", [1, 100])
def test_of_several_numbers_of_decisions_all_are_told(chunk, monkeypatch):
    rows = [(text, 1, 0.5, "a", 1) for text in ("[1]", "[1, 2]", "[1, 2, 3]")]
    found, sizes = read(rows, chunk, monkeypatch)
    assert sizes == {1, 2, 3}
    assert len(found["decisions"]) == 0 and len(found["ok"]) == 3


def test_of_no_rows_there_are_arrays_of_none(monkeypatch):
    found, sizes = read([], 10, monkeypatch)
    assert not sizes
    assert found["decisions"].shape == (0, 0) and found["decisions"].dtype == np.int32
    assert found["task"].dtype.kind == "U" and found["accuracy"].dtype == float
