"""Rows as CSV, JSON and Parquet, whole or not there."""

import importlib.util
import io
import json
import os

import pytest

from fnas_jax.core import delivery
from fnas_jax.core.types import UserError

COLUMNS = {"a": str, "b": int, "c": float, "d": bool, "e": list}
ROWS = [
    {"a": 'x,"y"', "b": 1, "c": 0.5, "d": True, "e": [1, 2]},
    {"a": "z", "b": 2, "c": None, "d": False, "e": []},
]


def test_csv_quotes_what_has_to_be_and_leaves_empty_what_is_unknown():
    file = io.StringIO()
    delivery.write_csv(file, COLUMNS, iter(ROWS))
    assert file.getvalue() == 'a,b,c,d,e\n"x,""y""",1,0.5,True,"[1, 2]"\nz,2,,False,[]\n'


def test_json_is_a_list_a_line_each():
    for rows in (ROWS, []):
        file = io.StringIO()
        delivery.write_json(file, iter(rows))
        assert json.loads(file.getvalue()) == rows
        assert len(file.getvalue().splitlines()) == max(len(rows), 1)


def test_parquet_has_the_types_of_the_columns(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(delivery, "CHUNK", 1)
    for rows in (ROWS, []):
        with delivery.place(tmp_path / "a.parquet", "wb") as file:
            delivery.write_parquet(file, COLUMNS, iter(rows))
        found = parquet.read_table(tmp_path / "a.parquet")
        assert found.to_pylist() == rows
        assert [str(t) for t in found.schema.types][:4] == ["string", "int64", "double", "bool"]


def test_a_file_that_fails_halfway_is_not_there(tmp_path):
    with pytest.raises(ZeroDivisionError), delivery.place(tmp_path / "a.csv") as file:
        delivery.write_csv(file, ["a"], ({"a": 1 / n} for n in (1, 0)))
    assert list(tmp_path.iterdir()) == []


def test_devices_and_pipes_are_written_to_and_links_stay(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far" / "a.csv")
    for name in ("pipe", "link", "link"):
        with delivery.place(tmp_path / name) as file:
            delivery.write_csv(file, ["b"], ROWS)
    assert os.read(reader, 100) == (tmp_path / "far" / "a.csv").read_bytes() == b"b\n1\n2\n"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "link").is_symlink()
    with pytest.raises(UserError, match="Is a directory"), delivery.place(tmp_path / "far"):
        pass


def test_parquet_without_its_package_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"for Parquet pyarrow is needed: pip install 'fnas-jax\["):
        delivery.check_parquet(tmp_path / "a.parquet")
