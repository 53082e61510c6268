"""Rows of a query as arrays, whatever the number of rows that are looked at at a time."""

import contextlib
import json
import sqlite3

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    assert found["task"].whole().tolist() == ["x" * i for i in range(7)]
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
    assert found["task"].whole().dtype.kind == "U" and found["accuracy"].dtype == float


def test_texts_that_stand_in_many_rows_are_kept_once(monkeypatch):
    rows = [("[1]", 1, 0.5, "ab"[i // 3 % 2], 1) for i in range(12)]
    found, _ = read(rows, 5, monkeypatch)
    assert found["task"].different == ["a", "b"]
    assert found["task"].place.tolist() == [0, 0, 0, 1, 1, 1] * 2


def test_a_number_in_place_of_a_text_is_refused(monkeypatch):
    with pytest.raises(TypeError, match="7 stands where a text should"):
        read([("[1]", 1, 0.5, 7, 1)], 5, monkeypatch)


def by_json(column):
    """The rows, or None where a text is no JSON."""
    try:
        return [json.loads(text) for text in column]
    except ValueError:
        return None


NUMBERS = st.one_of(st.integers(0, 12), st.integers(-20, 2**31 - 1))
WRITTEN = st.integers(1, 4).flatmap(
    lambda t: st.lists(st.lists(NUMBERS, min_size=t, max_size=t).map(json.dumps), min_size=1)
)
ODD = st.lists(
    st.one_of(
        st.lists(NUMBERS, max_size=3).map(json.dumps),
        st.text("0123,[] ", max_size=8),  # damaged, or written by somebody else
        st.sampled_from(["[1,2]", "[01, 2]", "[1, 2 3]", "[, 4]", "[1, 2], [3, 4]", "[ 1, 2]"]),
    ),
    min_size=1,
    max_size=4,
)


@given(st.one_of(WRITTEN, ODD))
def test_decisions_are_those_that_json_has(column):
    expected = by_json(column)
    numbers = expected is not None and all(
        isinstance(row, list) and all(isinstance(n, int) for n in row) for row in expected
    )
    if not numbers:
        # What is a list of lists by chance only, over several rows, may be taken or refused.
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            columns.decisions(column)
        return
    found, sizes = columns.decisions(column)
    assert sizes == set(map(len, expected))
    assert found.dtype == np.int32
    assert found.tolist() == (expected if len(sizes) == 1 else [])


@pytest.mark.parametrize(
    "column", [["[01, 2]"], ["[1, 2 3]", "[, 4]"], ["[1, 2]", ""], ["[1, 2"], ["x"], ["[1]", "2"]]
)
def test_texts_that_are_no_decisions_are_refused(column):
    with pytest.raises((ValueError, TypeError)):
        columns.decisions(column)


def test_decisions_as_they_are_written_make_no_objects(monkeypatch):
    """Which is why millions of rows are read in seconds."""
    monkeypatch.delattr(columns.jsons, "parse")
    found, _ = columns.decisions(["[0, 12, 3]", "[100, 0, 999999999]"])
    assert found.tolist() == [[0, 12, 3], [100, 0, 999999999]]
