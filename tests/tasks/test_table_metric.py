"""Which column of a table is searched for, how it is read, and what is asked for instead."""

import numpy as np
import pytest

from fnas_jax.core import measure
from fnas_jax.core.config import default
from fnas_jax.core.types import UserError
from fnas_jax.tasks import plain_table, table_metric, tabular
from fnas_jax.tasks.plain_table import Asked


def read(folder, header, rows, *asked):
    lines = [f"{i},{row}" for i, row in enumerate(rows)]
    (folder / "t.csv").write_text("\n".join([f"decision_0,{header}", *lines]))
    return plain_table.read(folder / "t.csv", Asked(*asked))


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        # Accuracies as texts leave a column of other numbers alone, which was taken for the metric.
        ("seed,acc", ["1,x", "2,y"], "line 2: acc is 'x', which is no number"),
        ("seed,val_loss", ["1,NA", "2,low"], "line 3: val_loss is 'low', which is no number"),
        ("seed,acc", ["3,91.5%", "1,93.0%"], "names one of seed, acc"),
        ("epoch,acc", ['50,"0,95"', '99,"0,60"'], "names one of epoch, acc"),
        *(
            (name, ["3", "4"], f"there is only {name}, by its name no metric; task.metric={name}")
            for name in ("seed", "epoch", "epochs", "step", "train_time", "run_id", "latency")
        ),
        ("flops", ["3", "4"], "there is only flops, by its name no metric"),
        ("num_params", ["3", "4"], "there is only num_params, by its name no metric"),
        ("seed,acc", ["3,NA", "4,"], "there is only seed"),
    ],
)
def test_nothing_is_searched_for_that_may_not_be_meant(tmp_path, header, rows, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, header, rows)


@pytest.mark.parametrize("name", ["val_loss", "test_error", "RMSE", "latency_ms", "mflops", "time"])
def test_what_is_named_like_a_loss_or_a_cost_needs_a_direction(tmp_path, name):
    with pytest.raises(UserError, match=f"less of {name} is better; task.direction=minimize"):
        read(tmp_path, name, ["3", "4"], name)
    assert read(tmp_path, name, ["3", "4"], name, "minimize").values.tolist() == [-3, -4]
    assert read(tmp_path, name, ["3", "4"], name, "maximize").values.tolist() == [3, 4]


@pytest.mark.parametrize("name", ["acc", "score", "terror", "acc_at_epoch", "time_acc"])
def test_everything_else_is_maximised_by_default(tmp_path, name):
    assert read(tmp_path, name, ["0.25", "0.5"]).measure.direction == "maximize"


def test_without_a_direction_the_command_asks_for_it_too(tmp_path):
    (tmp_path / "t.csv").write_text("decision_0,loss\n0,3\n1,1\n")
    config = default()
    config.task.name = f"tabular/{tmp_path}/t.csv"
    with pytest.raises(UserError, match=r"task\.direction=minimize"):
        tabular.load(config)


def test_percents_and_quoted_decimal_commas_are_numbers(tmp_path):
    table = read(tmp_path, "acc", ["91.5%", "80 %", "0.5%"])
    np.testing.assert_allclose(table.values, [0.915, 0.8, 0.005])
    assert not any("warning" in note for note in table.notes)
    np.testing.assert_allclose(read(tmp_path, "score", ["0.5%", "1%"]).values, [0.005, 0.01])
    table = read(tmp_path, "acc,mflops", ['"0,95","1,5"', '"0,6","2,25"'])
    np.testing.assert_allclose(table.values, [0.95, 0.6])
    np.testing.assert_allclose(table.costs["mflops"], [1.5, 2.25])
    assert "acc is read with decimal commas" in table.notes
    np.testing.assert_allclose(read(tmp_path, "acc", ['"0,950"', '"0,600"']).values, [0.95, 0.6])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["91.5%", "80"], "line 3: acc is '80', and other rows have it with %"),
        (['"1,234"', '"2,345"'], "line 2: acc is '1,234'; it must be a number"),  # thousands?
        (['"0,95"', "0.5"], "line 2: acc is '0,95'; it must be a number"),
        (["101%", "80%"], "line 2: acc is 101.0; by its name"),
    ],
)
def test_what_is_not_clear_of_a_number_is_refused_with_its_line(tmp_path, rows, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, "acc", rows)


def test_decisions_may_have_quoted_decimal_commas(tmp_path):
    (tmp_path / "t.csv").write_text('width,acc\n"0,5",0.7\n"1,25",0.8\n')
    table = plain_table.read(tmp_path / "t.csv", Asked(decisions=("width",)))
    assert table.space.choices == ((0.5, 1.25),)


@pytest.mark.parametrize("text", ["", "NA", "n/a", "null", "-", "NaN"])
def test_what_is_absent_is_a_training_that_failed_and_told(tmp_path, text):
    table = read(tmp_path, "acc", ["0.5", text])
    np.testing.assert_array_equal(table.values, [0.5, np.nan])
    assert f"no acc in 1 of 2 rows (line 3: {text!r}): trainings that failed" in table.notes


def test_a_cost_that_is_searched_for_is_read_as_a_cost(tmp_path):
    table = read(tmp_path, "mflops", ["-1", "7", "0", "5"], "mflops", "minimize")
    np.testing.assert_array_equal(table.values, [np.nan, -7, np.nan, -5])
    assert (table.measure.kind, table.measure.scale) == ("error", 6)
    assert any("2 of 4 rows (line 2: '-1', line 4: '0')" in note for note in table.notes)


def test_shares_among_percents_are_warned_of_with_their_lines(tmp_path):
    notes = read(tmp_path, "acc", ["0.9", "95", "80", "0"]).notes
    (warning,) = (note for note in notes if note.startswith("warning: "))
    assert "acc is read as percents, and not above 1 in 1 of 4 rows (line 2: '0.9')" in warning
    assert not any("warning" in note for note in read(tmp_path, "acc", ["95", "0"]).notes)


@pytest.mark.parametrize(
    "name",
    [
        *("val_acc", "acc1", "Accuracy", "top-5", "top1_val", "macro_f1", "F1", "mAP", "mAP50"),
        *("AP", "auc", "roc_auc", "AUROC", "precision", "recall@10", "IoU", "mean_iou", "dice"),
    ],
)
def test_percents_are_shares_where_the_name_says_so(tmp_path, name):
    table = read(tmp_path, name, ["50", "90"])
    assert table.measure.kind == "share" and table.values.tolist() == [0.5, 0.9]
    with pytest.raises(UserError, match="by its name, it must lie in"):
        read(tmp_path, name, ["50", "101"])


@pytest.mark.parametrize("name", ["score", "bleu", "psnr", "mapped", "recallable", "fps", "reward"])
def test_other_numbers_up_to_100_keep_their_unit(tmp_path, name):
    table = read(tmp_path, name, ["50", "90"])
    assert table.measure.kind == "number" and table.values.tolist() == [50, 90]
    assert read(tmp_path, name, ["0.5", "0.75"]).measure.kind == "share"


def test_a_first_line_of_numbers_is_told(tmp_path):
    path = tmp_path / "t.csv"
    for text in ("0,1,0.5\n1,0,0.7\n", "conv,3,0.5\nconv,5,0.7\n", "0,0,0.5\n1,0,0.7\n"):
        path.write_text(text)
        for decisions in ((), ("a",)):
            with pytest.raises(UserError, match="its first line names no columns"):
                plain_table.read(path, Asked(decisions=decisions))


def test_a_single_row_is_one_row(tmp_path):
    told = read(tmp_path, "acc", ["0.5"]).notes[0]
    assert told == "maximising acc of 1 row, decisions decision_0"


def test_no_pattern_takes_a_word_for_another():
    assert not any(
        pattern.search(name)
        for name in ("op", "kernel", "width", "video", "ideal", "timeless", "flopsy")
        for pattern in (
            table_metric.SHARE,
            measure.LOSS,
            table_metric.COST,
            table_metric.ASIDE,
        )
    )
