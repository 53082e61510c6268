"""Tables as other programs write them are read as the same table."""

import csv
import io

import pytest

from fnas_jax.core.types import UserError
from fnas_jax.tasks import delimited

ROWS = [["decision_0", "pr\u00e9cision"], ["0", "0.5"], ["1", "0.75"]]


def text(rows=ROWS, delimiter=",", end="\n", quoting=csv.QUOTE_MINIMAL):
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(rows)
    return out.getvalue()


def read(folder, data):
    path = folder / "t.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return delimited.read(path)


@pytest.mark.parametrize(
    "data",
    [
        text(),
        text(end="\r\n"),
        text(end="\r"),
        text(quoting=csv.QUOTE_ALL),
        text(delimiter=";"),
        text(delimiter="\t"),
        text(delimiter="|"),
        "sep=;\r\n" + text(delimiter=";"),
        "\n\n" + text() + "\n,\n",
        text().encode("utf-8-sig"),
        text().encode("utf-16"),
        text().encode("utf-16-le"),
        text().encode("utf-32"),
        text().encode("cp1252"),
    ],
)
def test_the_same_table_however_it_was_written(tmp_path, data):
    content = read(tmp_path, data)
    assert content.columns == ("decision_0", "pr\u00e9cision")
    assert [list(row.fields.values()) for row in content.rows] == ROWS[1:]
    guessed = data == text().encode("cp1252")
    assert bool(content.notes) == guessed


def test_lines_are_those_of_the_file(tmp_path):
    assert [row.line for row in read(tmp_path, "sep=;\na;b\n0;1\n\n1;2\n").rows] == [3, 5]


@pytest.mark.parametrize("head", ["", "Unnamed: 0"])
def test_row_numbers_without_a_name_are_left_out_and_told(tmp_path, head):
    content = read(tmp_path, f"{head},a,b\n1,5,6\n0,7,8\n")
    assert content.columns == ("a", "b")
    assert content.notes == ("the row numbers in the column without a name are not used",)
    # What only looks like them may be a metric.
    assert read(tmp_path, "Unnamed: 0,a\n3,5\n0,7\n").columns == ("Unnamed: 0", "a")


def test_a_delimiter_at_the_end_of_each_line_makes_no_column(tmp_path):
    content = read(tmp_path, "a;b;\n0;1;\n1;2;\n")
    assert content.columns == ("a", "b") and content.notes == ()


def test_decimal_commas_are_numbers_where_commas_divide_no_columns():
    assert delimited.number("-0,5", True) == -0.5
    assert delimited.number("1,5e-3", True) == 1.5e-3
    for wrong in ("1.234,5", "1_0", "1,2,3", ""):
        with pytest.raises(ValueError):
            delimited.number(wrong, True)
    with pytest.raises(ValueError):
        delimited.number("0,5")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a,a\n0,1\n", "line 1: two columns have the same name, 'a'"),
        ("a,b\n0\n", "line 2: 1 fields; the header has 2"),
        ("a,b\n", "line 2: the table has no rows"),
        ("a,b\n,\n\n", "the table has no rows"),
        (b"a,b\n" + b"x" * 2000 + b"\0,1\n", "bytes of no text"),
    ],
)
def test_what_is_no_table_is_told(tmp_path, data, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, data)


def test_a_missing_file_is_named_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"there is no table {tmp_path}/x.csv"):
        delimited.text_of(delimited.Path("x.csv"))
