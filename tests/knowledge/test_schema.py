"""Files of earlier versions are brought up to date in place, whoever opens them at once."""

import contextlib
import sqlite3
import subprocess
import sys

import pytest

from fnas_jax.core import disk
from fnas_jax.core import reward as rewards
from fnas_jax.core.config import default
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import history, schema, sources, store, task_data
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.knowledge.sources import Asker
from fnas_jax.spaces import categorical

# As the first version had it.
FIRST = """
CREATE TABLE evaluations (
    run TEXT NOT NULL, iteration INTEGER NOT NULL, position INTEGER NOT NULL,
    space TEXT NOT NULL, task TEXT NOT NULL, decisions TEXT NOT NULL, trained INTEGER NOT NULL,
    ok INTEGER NOT NULL, accuracy REAL, reward REAL, latency_ms REAL, mflops REAL, params_m REAL,
    seconds REAL, steps INTEGER NOT NULL, seed INTEGER NOT NULL, versions TEXT NOT NULL,
    time REAL NOT NULL,
    PRIMARY KEY (run, iteration, position)
) WITHOUT ROWID;
CREATE INDEX evaluations_by_task ON evaluations (space, task);
CREATE TABLE tasks (task TEXT PRIMARY KEY, statistics TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE samples (task TEXT PRIMARY KEY, shape TEXT NOT NULL, images BLOB NOT NULL);
"""
SPACE = categorical.make((4, 4), "cells")
ROWS = 60


def rows_of(connection):
    names = "run, iteration, position, space, task, decisions, trained, ok, accuracy, reward,"
    names += " latency_ms, mflops, params_m, seconds, steps, seed, versions, time"
    return connection.execute(f"SELECT {names} FROM evaluations ORDER BY 1, 2, 3").fetchall()


@pytest.fixture
def old(tmp_path):
    """The folder of a history of the first version, with ten rows of a longer space."""
    with contextlib.closing(sqlite3.connect(tmp_path / "history.sqlite")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(FIRST)
        for i in range(ROWS):
            arch = [i % 4, i // 4 % 4] if i < 50 else [0, 0, 0]
            steps = 150 if i % 2 else 0
            row = ("a", i, 0, "cells", "t1", str(arch), 1, 1, i / 100, -1.0, None, 2.0, None, 0.5)
            row += (steps, 7, "{}", 1000.0 + i)
            connection.execute(f"INSERT INTO evaluations VALUES ({', '.join('?' * 18)})", row)
        connection.execute("INSERT INTO tasks VALUES ('t1', '{\"images\": 5.0}')")
        connection.commit()
    return tmp_path


def test_an_old_file_keeps_its_rows_and_takes_new_ones(old):
    with contextlib.closing(sqlite3.connect(old / "history.sqlite")) as connection:
        before = rows_of(connection)
    with contextlib.closing(history.open_(old)) as connection:
        assert rows_of(connection) == before and len(before) == ROWS
        assert schema.missing(connection) == []
        run = history.Run("b", "cells", "t1", 9, 0, {}, SPACE.identity, '{"steps":9}')
        history.record(connection, run, 0, [history.Row(0, (1, 1), True, True, *[0.5] * 6)])
        found = history.rows(connection, SPACE)
        assert len(found.ok) == 51 and found.known.sum() == 1
        assert set(found.protocol[~found.known]) == {""}
        assert task_data.task_statistics(connection) == {"t1": {"images": 5.0}}
    with contextlib.closing(history.open_(old)) as connection:  # a second time changes nothing
        assert len(rows_of(connection)) == ROWS + 1


def test_what_old_rows_do_not_say_is_told_and_steps_tell_them_apart(old, caplog):
    reward = rewards.define(default())
    with contextlib.closing(history.open_(old)) as connection:
        for task in ("t1", "t2"):
            caplog.clear()
            found = sources.load(Asker(SPACE, task, '{"steps":9}', reward), Knowledge(connection))
            assert found.labels == ["t1 (unknown, 0 steps)", "t1 (unknown, 150 steps)"]
            assert found.counts.unknown_protocol == found.counts.unknown_space == 50
            assert found.counts.other_spaces == {"cells": 10}
            assert "10 of another space named cells" in caplog.text
            assert "50 of a protocol that was not written down" in caplog.text
            assert "50 that say of their space only its name cells" in caplog.text


def test_a_crash_half_way_leaves_the_old_file(old, monkeypatch):
    monkeypatch.setattr(schema, "ADDED", schema.ADDED | {"order": "TEXT"})
    with pytest.raises(OSError, match=r"history\.sqlite"):
        history.open_(old)
    monkeypatch.undo()
    with contextlib.closing(sqlite3.connect(old / "history.sqlite")) as connection:
        assert schema.missing(connection) == list(schema.ADDED)
        assert len(rows_of(connection)) == ROWS
    history.open_(old).close()


OPENER = """
import sys
import numpy as np
from fnas_jax.knowledge import history
print("ready", flush=True)
sys.stdin.readline()
connection = history.open_(sys.argv[1])
run = history.Run(sys.argv[2], "cells", "t", 0, 0, {}, '{"name":"cells"}', "{}")
history.record(connection, run, 0, [history.Row(0, [0, 0], True, True, *[0.5] * 6)])
"""


@pytest.mark.parametrize("fresh", [False, True])
def test_processes_that_open_an_old_or_new_file_at_once(old, tmp_path, fresh):
    folder = tmp_path / "new" if fresh else old
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, str(folder), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "bcde"
    ]
    for opener in openers:
        assert opener.stdout.readline() == "ready\n"
    for opener in openers:
        opener.stdin.write("\n")
        opener.stdin.flush()
    for opener in openers:
        opener.communicate(timeout=120)
    assert [opener.returncode for opener in openers] == [0] * 4
    with contextlib.closing(history.open_(folder)) as connection:
        assert len(rows_of(connection)) == 4 + (0 if fresh else ROWS)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_connection_that_is_open_while_another_brings_the_file_up_to_date(old):
    with contextlib.closing(sqlite3.connect(old / "history.sqlite")) as reader:
        assert len(rows_of(reader)) == ROWS
        history.open_(old).close()
        assert len(rows_of(reader)) == ROWS


@pytest.mark.parametrize("error", [KeyboardInterrupt, sqlite3.OperationalError])
def test_what_ends_a_transaction_is_told_and_not_that_it_is_over(error, tmp_path):
    """As after COMMIT, or on a full disk, where SQLite has taken it back itself."""
    with contextlib.closing(history.open_(tmp_path)) as connection:
        with pytest.raises(error), schema.transaction(connection):
            connection.execute("ROLLBACK")
            raise error
        with pytest.raises(error), schema.transaction(connection):
            connection.execute("INSERT INTO descriptions VALUES ('a', 'b')")
            raise error
        assert connection.execute("SELECT count(*) FROM descriptions").fetchone() == (0,)


def test_a_full_disk_is_a_sentence_that_names_the_file(tmp_path):
    with contextlib.closing(history.open_(tmp_path)) as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own SQLITE_FULL
        full = f"disk of '{tmp_path / history.FILE}' is full; the same command goes on once there"
        with pytest.raises(disk.Refused, match=full), schema.transaction(connection):
            connection.execute(f"INSERT INTO descriptions VALUES ('a', '{'b' * 10**5}')")


def test_a_file_of_the_format_before_is_brought_up_to_date_and_a_later_one_refused(old):
    path = old / history.FILE

    def set_format(number):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA user_version = {number}")

    for number in (0, schema.FORMAT):
        with contextlib.closing(history.open_(old)) as connection:
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            assert found == schema.FORMAT and len(rows_of(connection)) == ROWS, number
    set_format(schema.FORMAT + 1)
    before = path.read_bytes()
    told = rf"later version of fnas_jax \(format {schema.FORMAT + 1} there, {schema.FORMAT} here"
    with pytest.raises(UserError, match=told), store.opened(old):
        pass
    assert path.read_bytes() == before


def test_damage_is_told_and_other_errors_of_sqlite_are_not_taken_for_it(old):
    with pytest.raises(UserError, match=r"history\.sqlite' is damaged \(malformed\)"):  # noqa: SIM117
        with store.opened(old):
            raise sqlite3.DatabaseError("malformed")
    with pytest.raises(sqlite3.OperationalError), store.opened(old):
        raise sqlite3.OperationalError("database or disk is full")


@pytest.mark.parametrize(
    "change", ["decisions = '[1,'", "decisions = '5'", "accuracy = 'x'", "steps = x'ff'"]
)
def test_a_damaged_row_is_told(old, change):
    with contextlib.closing(history.open_(old)) as connection:
        connection.execute("DELETE FROM evaluations WHERE iteration >= 50")  # of another space
        connection.execute(f"UPDATE evaluations SET {change} WHERE iteration = 3")
        with pytest.raises(UserError, match="a row of the history is damaged"):
            history.rows(connection, "cells")


def test_a_file_that_another_process_keeps_locked_is_told(tmp_path):
    opened = contextlib.closing(history.open_(tmp_path))
    with opened as one, contextlib.closing(history.open_(tmp_path)) as other:
        other.execute("PRAGMA busy_timeout = 0")
        told = pytest.raises(disk.Refused, match=r"history.sqlite' is kept locked by another")
        with schema.transaction(one), told, schema.transaction(other):
            pytest.fail("it writes")
