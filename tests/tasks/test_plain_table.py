"""What a table of the user's own is searched for, and in what."""

import numpy as np
import pytest

from fnas_jax.core.types import UserError
from fnas_jax.tasks import plain_table
from fnas_jax.tasks.plain_table import Asked

NAMED = "op,kernel,val_acc,seed\npool,11,0.5,1\nconv,3,0.75,2\nconv,11,0.25,3\n"


def read(folder, text, *asked):
    (folder / "t.csv").write_text(text)
    return plain_table.read(folder / "t.csv", Asked(*asked))


def test_decisions_of_any_name_take_the_values_that_occur(tmp_path):
    table = read(tmp_path, NAMED, "val_acc", "maximize", ("op", "kernel"))
    assert table.space.names == ("op", "kernel")
    assert table.space.choices == (("conv", "pool"), (3, 11))  # numbers by size, not as texts
    assert table.archs.tolist() == [[1, 1], [0, 0], [0, 1]]
    assert table.space.describe(table.archs[0])["text"] == "op=pool,kernel=11"
    assert table.notes[0] == "maximising val_acc of 3 rows, decisions op, kernel; not used: seed"


def test_columns_named_decision_with_any_suffix_need_no_naming(tmp_path):
    table = read(tmp_path, "decision_op,decision_width,acc\na,1.50,0.5\nb,2,0.6\na,2.0,0.7\n")
    assert table.space.choices == (("a", "b"), (1.5, 2))
    assert table.archs.tolist() == [[0, 0], [1, 1], [0, 1]]


def test_numbered_decisions_are_integers_as_ever_unless_they_are_named(tmp_path):
    text = "decision_0,acc\n0,0.5\n2,0.7\n"
    assert read(tmp_path, text).space.cardinalities == (3,)
    named = read(tmp_path, text, "", "maximize", ("decision_0",))
    assert named.space.choices == ((0, 2),)
    floats = "decision_0,acc\n0.0,0.5\n1.0,0.7\n"
    with pytest.raises(UserError, match=r"line 2: decision_0 is '0.0'.*task.decisions names"):
        read(tmp_path, floats)
    assert read(tmp_path, floats, "", "maximize", ("decision_0",)).space.choices == ((0, 1),)


@pytest.mark.parametrize(
    ("text", "asked", "message"),
    [
        (NAMED, (), "no column 'decision_0'; task.decisions=.*of op, kernel, val_acc, seed"),
        (NAMED, ("", "maximize", ("opp",)), "no column 'opp'.*did you mean 'op'"),
        (NAMED, ("", "maximize", ("op", "op")), "names a column twice"),
        (NAMED, ("op", "maximize", ("op", "kernel")), "'op', which is one of the decisions"),
        (NAMED, ("", "maximize", ("op", "kernel")), "task.metric=NAME names one of val_acc, seed"),
        (NAMED, ("val_acc", "maximize", ("op",)), "line 4: the architecture of line 3 again"),
        ("op,acc\n,0.5\n", ("", "maximize", ("op",)), "line 2: op, a decision, is empty"),
        ('op,acc\n"a,b",0.5\n', ("", "maximize", ("op",)), "'a,b' of 'op'"),
        ("decision_0,acc\n0,1e39\n", (), "line 2: acc is '1e39'; it must be finite"),
        ("decision_0,mflops\n0,1\n", (), "can name one of the costs mflops"),
    ],
)
def test_what_the_file_leaves_open_is_asked_for(tmp_path, text, asked, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, text, *asked)


def test_texts_beside_the_only_numbers_are_no_metrics(tmp_path):
    table = read(tmp_path, "decision_0,name,top1\n0,first,50\n1,second,75\n")
    assert table.measure.name == "top1" and table.notes[0].endswith("not used: name")


@pytest.mark.parametrize(
    ("column", "values", "direction", "kind", "scale", "figures"),
    [
        ("acc", (0.5, 1), "maximize", "share", 1.0, (0.5, 1)),
        ("acc", (50, 100), "maximize", "share", 1.0, (0.5, 1)),
        ("loss", (3, 1), "minimize", "error", 2.0, (-3, -1)),
        ("loss", (0, 0), "minimize", "error", 1.0, (0, 0)),
        ("score", (-3, 1), "minimize", "number", 1.0, (3, -1)),
        ("score", (-3, 1), "maximize", "number", 1.0, (-3, 1)),
        ("score", (3, 1000), "maximize", "number", 1.0, (3, 1000)),
    ],
)
def test_the_measure_by_direction_and_values(
    tmp_path, column, values, direction, kind, scale, figures
):
    text = f"decision_0,{column}\n" + "".join(f"{i},{v}\n" for i, v in enumerate(values))
    table = read(tmp_path, text, column, direction)
    assert (table.measure.kind, table.measure.scale) == (kind, scale)
    np.testing.assert_array_equal(table.values, figures)
    verb = {"maximize": "maximising", "minimize": "minimising"}[direction]
    assert table.notes[0].startswith(f"{verb} {column} of 2 rows")


@pytest.mark.parametrize(
    ("column", "direction", "warned"),
    [
        ("val_loss", "maximize", True),
        ("top-1 error", "maximize", True),
        ("RMSE", "maximize", True),
        ("val_loss", "minimize", False),
        ("terror", "maximize", False),
        ("val_acc", "minimize", True),
        ("accuracy", "maximize", False),
    ],
)
def test_a_name_that_speaks_against_the_direction_is_warned_of(tmp_path, column, direction, warned):
    table = read(tmp_path, f"decision_0,{column}\n0,0.5\n", column, direction)
    assert any(note.startswith("warning: ") for note in table.notes) == warned


def test_trainings_that_failed_are_counted(tmp_path):
    assert "no acc in 1 of 2 rows (line 2: 'nan'): trainings that failed" in (
        read(tmp_path, "decision_0,acc\n0,nan\n1,0.5\n").notes
    )
