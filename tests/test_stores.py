"""Results of earlier work in a store, and that searches learn from them; stores made one."""

import contextlib
import json

import numpy as np
import pytest

from fnas_jax import importing, loop, registry, stores, trials
from fnas_jax.core import config as config_lib
from fnas_jax.core.reward import define
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import history, listing, sources
from fnas_jax.tasks.plain_table import ANYTHING, Asked
from tests.soak.searches import write_table

MACRO = registry.SPACES["macro"](config_lib.default().space)


def listed(folder, **asked):
    with contextlib.closing(history.open_(folder)) as known:
        return list(listing.rows(known, listing.Asked(**asked)))


def told(capsys, *arguments, code=0):
    assert stores.command([*map(str, arguments)]) == code
    out, err = capsys.readouterr()
    return err if code else out


def config_of(**changes):
    return config_lib.nest(config_lib.flatten(config_lib.default()) | changes)


def test_a_table_becomes_rows_that_say_where_they_are_from(tmp_path, capsys):
    file = tmp_path / "net.csv"
    write_table(file)
    said = told(capsys, "import", file, f"--knowledge={tmp_path / 'store'}", "--task=mine")
    assert "81 results of mine in the space categorical/net\nwritten to " in said
    found = listed(tmp_path / "store")
    assert len(found) == 81
    first = found[0]
    assert (first["task"], first["space"], first["method"]) == (
        *("mine", "categorical/net", listing.IMPORTED),
    )
    assert (first["text"], first["value"], first["mflops"]) == ("0,0,0,0", 0.5, 50.0)
    again = told(capsys, "import", file, f"--knowledge={tmp_path / 'store'}", "--task=mine")
    assert "all 81 results of" in again and "nothing was changed" in again
    assert listed(tmp_path / "store") == found
    told(capsys, "import", file, f"--knowledge={tmp_path / 'store'}", "--task=other")
    assert len(listed(tmp_path / "store")) == 162


def earlier_and_new(tmp_path, capsys):
    """(folder of a store with a table's rows, keys of a search on another table of that space)."""
    (tmp_path / "old").mkdir()
    write_table(tmp_path / "old" / "net.csv", sign=-1.0)
    write_table(tmp_path / "net.csv")
    store = tmp_path / "store"
    told(capsys, "import", tmp_path / "old" / "net.csv", f"--knowledge={store}", "--task=mine")
    return store, {"task.name": f"tabular/{tmp_path / 'net.csv'}", "knowledge.dir": str(store)}


def test_searches_in_their_space_may_learn_from_them_and_others_not(tmp_path, capsys):
    store, changes = earlier_and_new(tmp_path, capsys)
    config = config_of(**changes)
    task = registry.build_task(config)
    asker = sources.Asker(task.space, task.name, task.evaluator.protocol, define(config))
    with contextlib.closing(history.open_(store)) as known:
        found = sources.find(known, asker)
        other = sources.find(known, asker._replace(space=MACRO))
    assert (found.counts.used, found.names, other.counts.used) == (81, ["mine"], 0)
    best = found.decisions[np.argmax(found.reward)]
    assert best.tolist() == [0] * 4 and found.reward.max() == pytest.approx(0.5)


@pytest.mark.slow
def test_critics_and_kernels_start_warm_from_them(tmp_path, capsys):
    _, changes = earlier_and_new(tmp_path, capsys)
    changes |= {"search.budget": 4, "search.batch": 2, "uac.warmup": 2, "jax.cache_dir": ""}
    changes |= {"log.tensorboard": False, "tnas.iterations": 2}
    for name in ("fnas", "tnas"):
        run = tmp_path / name
        loop.run(config_of(**changes, **{"method.name": name}), run)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
        assert max(line.get("foreign_rows", 0) for line in lines) == 81, name


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def test_decisions_of_a_space_of_ours_are_read_in_words_numbers_or_as_a_text(tmp_path):
    words = MACRO.labels[0]
    names = ",".join(MACRO.names)
    by_column = write(
        tmp_path / "a.csv",
        f"{names},acc",
        ",".join([*(words[2],) * 8, "0.5"]),
        ",".join([*"01201201", "nan"]),
    )
    found = importing.read(by_column, ANYTHING, MACRO, "")
    assert found.archs.tolist() == [[2] * 8, [0, 1, 2, 0, 1, 2, 0, 1]]
    np.testing.assert_array_equal(found.values, [0.5, np.nan])
    by_text = write(
        tmp_path / "b.csv",
        "number,text,trained,ok,value,accuracy",
        "0,22222222,True,True,0.5,0.5",
        "1,01201201,True,False,,0",
        "2,00000000,False,True,,",
    )
    found = importing.read(by_text, Asked(metric="accuracy"), MACRO, "")
    assert found.archs.tolist() == [[2] * 8, [0, 1, 2, 0, 1, 2, 0, 1]]
    np.testing.assert_array_equal(found.values, [0.5, np.nan])
    assert "1 rows are left out, which were predicted and not measured" in found.notes


def test_training_times_are_taken_along(tmp_path, capsys):
    """By their usual name, or by that which is given; in a space of ours and in the file's own."""
    store = f"--knowledge={tmp_path / 'store'}"
    own = write(tmp_path / "own.csv", "decision_0,acc,train_seconds", "0,0.5,100.5", "1,nan,7")
    said = told(capsys, "import", own, store, "--task=own")
    assert "training times are train_seconds, read as seconds: 53.75 s in the median" in said
    ours = write(tmp_path / "ours.csv", "text,acc,gpu_s", "22222222,0.5,3", "01201201,0.6,4")
    more = ("--task=ours", "--space=macro", "--metric=acc")
    said = told(capsys, "import", ours, store, *more, "--time=gpu_s")
    assert "training times are gpu_s" in said
    assert {r["seconds"] for r in listed(tmp_path / "store", task="own")} == {100.5, 7.0}
    assert {r["seconds"] for r in listed(tmp_path / "store", task="ours")} == {3.0, 4.0}
    none = told(capsys, "import", ours, store, "--task=none", *more[1:])
    assert "training times" not in none
    assert {r["seconds"] for r in listed(tmp_path / "store", task="none")} == {None}
    for arguments, text in {
        (own, "--time=gpu_s"): r"no column 'gpu_s' (--time); what is not used otherwise is acc,",
        (ours, *more[1:], "--time=text"): "--time is 'text', in",
        (ours, *more[1:], "--time=acc"): "what is searched for; it names the column with the sec",
    }.items():
        assert text in told(capsys, "import", *arguments, store, "--task=t", code=2)


def test_what_trials_writes_can_be_imported(tmp_path, capsys):
    write_table(tmp_path / "net.csv")
    changes = {
        "task.name": f"tabular/{tmp_path / 'net.csv'}",
        "method.name": "random",
        "search.budget": 5,
        "log.tensorboard": False,
    }
    loop.run(config_of(**changes), tmp_path / "run")
    assert trials.command([str(tmp_path / "run"), f"--out={tmp_path / 'tried.csv'}"]) == 0
    capsys.readouterr()
    more = (f"--knowledge={tmp_path / 'store'}", "--task=t", "--metric=accuracy")
    search = f"--config.task.name={changes['task.name']}"
    told(capsys, "import", tmp_path / "tried.csv", *more, search)
    (run,) = {row["run"] for row in listed(tmp_path / "store")}
    with contextlib.closing(history.open_(tmp_path / "run" / "knowledge")) as known:
        of_run = list(listing.rows(known, listing.Asked()))
    found = listed(tmp_path / "store")
    assert {(r["text"], r["value"]) for r in found} == {(r["text"], r["value"]) for r in of_run}
    with contextlib.closing(history.open_(tmp_path / "store")) as known:
        identity = history.identity_of(known, run)
    with contextlib.closing(history.open_(tmp_path / "run" / "knowledge")) as known:
        assert history.identity_of(known, of_run[0]["run"]) == identity


def test_what_is_wrong_in_a_file_is_told_with_its_line(tmp_path):
    names = ",".join(MACRO.names)
    wrong = {
        (f"{names},acc", "0,0,0,0,0,0,0,3,0.5"): r"line 2: stage2/layer2 is '3'; allowed are ",
        (f"{names},acc", "0,0,0,0,0,0,0,0,x"): "line 2: acc is 'x'",
        (f"{names},acc", *["0,0,0,0,0,0,0,0,0.5"] * 2): "line 3: the architecture of line 2 again",
        ("text,acc", "0120120,0.5"): "line 2: text: ",
        (
            "a,b,acc",
            "0,0,0.5",
        ): "has no column 'stage0/layer0', a decision of the space macro, nor a",
        ("text,trained,acc", "00000000,False,0.5"): "has no measured row",
    }
    for lines, text in wrong.items():
        with pytest.raises(UserError, match=text):
            importing.read(write(tmp_path / "a.csv", *lines), ANYTHING, MACRO, "")


def test_wrong_flags_are_told(tmp_path, capsys):
    write_table(tmp_path / "net.csv")
    lines = (tmp_path / "net.csv").read_text().splitlines()
    two = write(
        tmp_path / "two.csv", *(f"{line},{'b' * (i == 0) or 1}" for i, line in enumerate(lines))
    )
    store, task = f"--knowledge={tmp_path / 'store'}", "--task=t"
    file = tmp_path / "net.csv"
    wrong = {
        (): "store needs a word: merge or import",
        ("merg",): "store 'merg' is unknown; allowed are merge, import; did you mean 'merge'?",
        ("merge", tmp_path): "store merge takes two stores or more, and was given 1",
        ("merge", "a", "b"): "--out is missing",
        ("import", store, task): "store import takes one file, and was given 0",
        ("import", file, store): "--task is missing",
        ("import", file, task): "--knowledge is missing",
        ("import", file, store, task, "--space=macroo"): "--space is 'macroo'; allowed are mnas,",
        ("import", file, store, task, "--direction=up"): "--direction is 'up'; allowed are max",
        ("import", file, store, task, "--space=macro", "--config.seed=1"): "give one of them",
        ("import", file, store, task, "--space=macro", "--decisions=a"): "--decisions is for a",
        ("import", two, store, task): "which column is searched for: --metric=NAME names one of",
        ("import", tmp_path / "no.csv", store, task): "there is no table",
    }
    for arguments, text in wrong.items():
        assert text in told(capsys, *arguments, code=2), arguments
    assert not (tmp_path / "store").exists()


def test_merging_says_what_became_of_each_store(tmp_path, capsys):
    for name, sign in (("a", 1.0), ("b", -1.0)):
        write_table(tmp_path / name / "net.csv", sign)
        place = f"--knowledge={tmp_path / name / 'store'}"
        told(capsys, "import", tmp_path / name / "net.csv", place, f"--task={name}")
    (tmp_path / "a" / "store" / "pool").mkdir()
    both = [tmp_path / name / "store" for name in ("a", "b")]
    said = told(capsys, "merge", *both, f"--out={tmp_path / 'c'}")
    first, pool, last = said.splitlines()
    assert first == f"162 rows: 81 of {both[0]}, 81 of {both[1]}"
    assert pool.startswith(f"only histories are merged; not taken: {both[0] / 'pool'} (")
    assert last == f"written to {tmp_path / 'c'}"
    assert {row["task"] for row in listed(tmp_path / "c")} == {"a", "b"}
    said = told(capsys, "merge", both[0], tmp_path / "c", f"--out={tmp_path / 'd'}")
    assert "81 were in several of them, and are there once" in said
