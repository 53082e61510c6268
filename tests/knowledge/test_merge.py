"""Several stores as one: each row once, and the stores as they were."""

import contextlib
import os
import pathlib
import shutil
import sqlite3

import pytest

from fnas_jax.core.types import UserError
from fnas_jax.knowledge import history, merge, reading, schema, task_data
from tests.knowledge.test_listing import ACCURACY, LOSS, row, run


def fill(folder, *searches):
    """A store with searches (id, iterations of rows of one accuracy)."""
    with contextlib.closing(history.open_(folder)) as known:
        for id_, accuracies in searches:
            for number, accuracy in enumerate(accuracies):
                record = [row(0, (0, 1), accuracy), row(1, (1, 2), accuracy / 2)]
                history.record(known, run(id_, protocol=ACCURACY), number, record)
        task_data.record_task(known, f"t-{folder.name}", {"n": 1.0}, ACCURACY)
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def rows_of(folder):
    with contextlib.closing(history.open_(folder)) as known:
        fields = "run, iteration, position, decisions, accuracy, space_key, protocol, method"
        return known.execute(f"SELECT {fields} FROM evaluations ORDER BY 1, 2, 3").fetchall()


def test_each_row_is_there_once_with_all_that_tells_it_apart(tmp_path):
    first = fill(tmp_path / "a", ("x", (0.5, 0.6)), ("y", (0.7,)))
    second = fill(tmp_path / "b", ("x", (0.5, 0.6, 0.8)), ("z", (0.9,)))
    before = contents(first), contents(second)
    assert set(before[0]) == {history.FILE}
    found = merge.merge([first, second], tmp_path / "new" / "c")
    assert (contents(first), contents(second)) == before
    assert found == merge.Merged(10, (6, 4), 4, 0, ())
    assert rows_of(tmp_path / "new" / "c") == sorted({*rows_of(first), *rows_of(second)})
    with contextlib.closing(history.open_(tmp_path / "new" / "c")) as known:
        assert len(task_data.task_statistics(known)) == 2
        (group,) = history.groups(known)
        assert (group.settings, group.measured, group.runs) == (ACCURACY, 10, 3)
    assert {p.name.partition("-")[0] for p in (tmp_path / "new" / "c").iterdir()} == {history.FILE}


def test_rows_that_differ_are_counted_and_those_of_the_first_store_stand(tmp_path):
    first, second = fill(tmp_path / "a", ("x", (0.5,))), fill(tmp_path / "b", ("x", (0.25,)))
    found = merge.merge([second, first], tmp_path / "c")
    assert (found.rows, found.doubled, found.differing) == (2, 2, 2)
    assert rows_of(tmp_path / "c") == rows_of(second)


def test_a_store_of_an_earlier_version_is_brought_up_to_date_in_the_new_one_only(tmp_path):
    old = fill(tmp_path / "old", ("x", (0.5,)))
    with contextlib.closing(sqlite3.connect(old / history.FILE)) as known, known:
        known.execute("PRAGMA journal_mode = DELETE")
        for column in schema.ADDED:
            known.execute(f"ALTER TABLE evaluations DROP COLUMN {column}")
        known.execute("DROP TABLE descriptions")
        known.execute("PRAGMA user_version = 0")
    new, before = fill(tmp_path / "new", ("y", (0.7,))), contents(old)
    merge.merge([old, new], tmp_path / "c")
    assert contents(old) == before
    assert [r[0:2] + r[5:] for r in rows_of(tmp_path / "c")][::2] == [
        ("x", 0, None, None, None),
        ("y", 0, *rows_of(new)[0][5:]),
    ]


def test_a_store_that_is_written_to_is_read_with_its_log(tmp_path):
    first, second = fill(tmp_path / "a", ("x", (0.5,))), fill(tmp_path / "b", ("y", (0.5,)))
    with contextlib.closing(history.open_(first)) as known:
        history.record(known, run("z", protocol=LOSS), 0, [row(0, (0, 0), 0.1)])
        assert (first / f"{history.FILE}-wal").stat().st_size
        assert merge.merge([first, second], tmp_path / "c").taken == (3, 2)
        history.record(known, run("z"), 1, [row(0, (0, 0), 0.1)])  # it can write still


def test_a_log_that_nobody_holds_is_read_and_nothing_is_left_beside_it(tmp_path):
    """As `kill -9` leaves it, as a copy of that without locks, and where one may not write."""
    live, other = fill(tmp_path / "live", ("x", (0.5,))), fill(tmp_path / "b", ("y", (0.5,)))
    with contextlib.closing(history.open_(live)) as known:
        history.record(known, run("z"), 0, [row(0, (0, 0), 0.1)])
        killed = shutil.copytree(live, tmp_path / "killed")
    moved = shutil.copytree(killed, tmp_path / "moved")
    (moved / f"{history.FILE}-shm").unlink()
    for store in (killed, moved):
        before = contents(store)
        for mode in (0o755, 0o555):
            store.chmod(mode)
            found = merge.merge([store, other], tmp_path / f"{store.name}{mode}")
            store.chmod(0o755)
            assert found.taken == (3, 2)
            for name in (history.FILE, f"{history.FILE}-wal"):
                assert contents(store)[name] == before[name]
            assert set(contents(store)) == set(before)


def test_a_store_that_changes_while_it_is_copied_is_copied_again(tmp_path, monkeypatch):
    first, second = fill(tmp_path / "a", ("x", (0.5,))), fill(tmp_path / "b", ("y", (0.5,)))
    way, late = reading._way, iter([True])

    def asked(path):
        found = way(path)
        if path.parent == first and next(late, False):
            fill(first, ("z", (0.7,)))
        return found

    monkeypatch.setattr(reading, "_way", asked)
    assert merge.merge([first, second], tmp_path / "c").taken == (4, 2)
    monkeypatch.setattr(reading, "_copy", lambda path, copy: False)
    with pytest.raises(UserError, match="others write to it all the time"):
        merge.merge([first, second], tmp_path / "d")


def test_pools_are_not_merged_which_is_told(tmp_path):
    first, second = fill(tmp_path / "a", ("x", (0.5,))), fill(tmp_path / "b", ("y", (0.5,)))
    (first / "pool").mkdir()
    (second / "surrogates").mkdir()
    found = merge.merge([first, second], tmp_path / "c")
    assert found.left == (str(first / "pool"), str(second / "surrogates"))
    assert not (tmp_path / "c" / "pool").exists()


def test_what_cannot_be_merged_leaves_nothing(tmp_path):
    first = fill(tmp_path / "a", ("x", (0.5,)))
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / history.FILE).write_text("no database" * 1000)
    later = fill(tmp_path / "later", ("y", (0.5,)))
    with contextlib.closing(sqlite3.connect(later / history.FILE)) as known:
        known.execute("PRAGMA user_version = 99")
    wrong = {
        "empty": "there is no knowledge store in",
        "broken": "cannot be read: file is not a database",
        "later": "it was written by a later version of fnas_jax",
        "a/../a": "is given twice",
    }
    for name, text in wrong.items():
        with pytest.raises(UserError, match=text):
            merge.merge([first, tmp_path / name], tmp_path / "c")
        assert not (tmp_path / "c").exists()
    with pytest.raises(UserError, match=r"there is a knowledge store in .* already"):
        merge.merge([later, first], first)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is no folder"):
        merge.merge([first, fill(tmp_path / "b")], tmp_path / "file")


def test_a_store_that_appears_meanwhile_stays(tmp_path, monkeypatch):
    first, second = fill(tmp_path / "a", ("x", (0.5,))), fill(tmp_path / "b", ("y", (0.5,)))
    link = os.link

    def late(source, target):
        pathlib.Path(target).write_text("another one")
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(UserError, match="there is a knowledge store"):
        merge.merge([first, second], tmp_path / "c")
    assert contents(tmp_path / "c") == {history.FILE: b"another one"}
