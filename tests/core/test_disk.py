"""Files that are whole or not there, and what is said where a disk refuses them."""

import errno
import os
import pathlib
import sqlite3
import subprocess
import sys
import time

import pytest

from fnas_jax.core import disk
from fnas_jax.core.types import Failed, UserError

ROOM = "the same command goes on once there is room"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.json"
    with disk.replacing(path) as file:
        file.write("old")
    with pytest.raises(ZeroDivisionError), disk.replacing(path) as file:
        file.write("new")
        _ = 1 / 0
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]


def test_texts_are_written_as_utf_8_whatever_the_locale(tmp_path):
    """Python itself says where a file is opened by the locale."""
    program = (
        "import pathlib, warnings; from fnas_jax.core import disk\n"
        "warnings.simplefilter('error', EncodingWarning)\n"
        "with disk.replacing(pathlib.Path('x')) as file: file.write('\u2192')\n"
    )
    command = [sys.executable, "-X", "warn_default_encoding", "-c", program]
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "x").read_bytes() == "\u2192".encode()


def test_a_full_disk_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    path.write_text("old")

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(disk.Refused) as refused, disk.replacing(path) as file:
        file.write("new")
    assert str(refused.value) == f"the disk of {str(path)!r} is full; {ROOM}"
    assert isinstance(refused.value, Failed)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]


def test_drafts_of_the_dead_are_removed_and_those_of_the_living_stay(tmp_path):
    for name in (".x.json.1", ".x.json.2", ".notes.3", ".lock", ".x.json.4.txt"):
        (tmp_path / name).touch()
    os.utime(tmp_path / ".x.json.1", (0, time.time() - 2 * disk.ABANDONED))
    with disk.replacing(tmp_path / "x.json"):
        pass
    names = {entry.name for entry in tmp_path.iterdir()}
    assert names == {"x.json", ".x.json.2", ".notes.3", ".lock", ".x.json.4.txt"}
    disk.sweep(tmp_path, ("x.json", "y.json"))
    names = {entry.name for entry in tmp_path.iterdir()}
    assert names == {"x.json", ".notes.3", ".lock", ".x.json.4.txt"}


def of_sqlite(code):
    error = sqlite3.OperationalError("as SQLite has it")
    error.sqlite_errorcode = code
    return error


def caused(error):
    outer = ValueError("what a library makes of it")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, ""), f"the disk of 'w' is full; {ROOM}"),
        (OSError(errno.EDQUOT, ""), f"the disk of 'w' has no room left in its quota; {ROOM}"),
        (OSError(errno.ENOSPC, "", "w/x"), f"the disk of 'w/x' is full; {ROOM}"),
        (
            OSError(errno.EROFS, ""),
            "the disk of 'w' is read-only; the same command goes on once it can be written",
        ),
        (
            PermissionError(errno.EACCES, ""),
            "'w' cannot be written or read: Permission denied; the same command goes on once it"
            " can be",
        ),
        (of_sqlite(sqlite3.SQLITE_FULL), f"the disk of 'w' is full; {ROOM}"),
        (
            of_sqlite(sqlite3.SQLITE_BUSY_SNAPSHOT),
            "'w' is kept locked by another process; the same command goes on once it is not",
        ),
        (
            of_sqlite(sqlite3.SQLITE_READONLY_DBMOVED),
            "the disk of 'w' is read-only; the same command goes on once it can be written",
        ),
        (
            ValueError("Error writing x: No space left on device"),
            f"the disk of 'w' is full; {ROOM}",
        ),
        (caused(OSError(errno.ENOSPC, "")), f"the disk of 'w' is full; {ROOM}"),
        (ExceptionGroup("", [OSError(errno.ENOSPC, "")]), f"the disk of 'w' is full; {ROOM}"),
    ],
)
def test_each_refusal_is_a_sentence(error, said):
    with pytest.raises(disk.Refused) as refused, disk.at("w", texts=True):
        raise error
    assert str(refused.value) == said


def behind(error, outer, told=True):
    """`outer`, which was raised where `error` was handled; `told`: and says nothing else of it."""
    outer.__context__ = error
    outer.__suppress_context__ = not told
    return outer


def test_a_bug_where_a_refusal_was_handled_is_none():
    closed = PermissionError(errno.EACCES, "", "x")
    assert disk.refusal(behind(closed, KeyError("x"))) is None
    assert disk.refusal(behind(closed, OSError("x"), told=False)) is None
    assert "'x' cannot be" in str(disk.refusal(behind(closed, OSError("closing it failed, too"))))
    with pytest.raises(disk.Refused), disk.at("w"):  # where nothing is done but to write
        raise behind(closed, ValueError("closing it failed, too"))


def test_a_text_is_of_a_disk_where_libraries_write_alone():
    said = RuntimeError("ssh: Permission denied")
    assert disk.refusal(said) is None
    with pytest.raises(RuntimeError, match="ssh"), disk.at("w"):
        raise said


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, ""), ValueError("x")])
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)) as found, disk.at("w"):
        raise error
    assert found.value is error
    assert disk.refusal(error) is None


def test_the_innermost_place_is_told_once():
    with pytest.raises(disk.Refused) as refused, disk.at("outer"), disk.at("inner"):
        raise OSError(errno.ENOSPC, "")
    assert "'inner'" in str(refused.value)
    outer = behind(refused.value, RuntimeError("closing it failed, too"))
    assert disk.refusal(outer, "outer") is refused.value


def test_what_cannot_be_written_at_first_is_wrong_input_unless_its_disk_is_full():
    closed = disk.unusable("workdir 'w' cannot be written", OSError(errno.EACCES, "denied"))
    assert (type(closed), str(closed)) == (UserError, "workdir 'w' cannot be written: denied")
    full = disk.unusable("workdir 'w' cannot be written", OSError(errno.ENOSPC, "full"))
    assert type(full) is disk.Refused
    assert str(full) == f"workdir 'w' cannot be written: {os.strerror(errno.ENOSPC)}; {ROOM}"
