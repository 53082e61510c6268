"""Large parts beside checkpoints: whole or not there, on disk once, and nobody else's to delete."""

import contextlib
import errno
import logging
import os
import shutil

import numpy as np
import pytest

from fnas_jax.core import apart, checkpoint

PART = {"weights": np.arange(12.0, dtype=np.float32).reshape(3, 4)}
BLANK = {"weights": np.zeros((3, 4), np.float32)}


@pytest.fixture
def version(tmp_path):
    """Version 3 of a store."""
    with contextlib.closing(checkpoint.open_(tmp_path / "versions")) as manager:
        checkpoint.save(manager, 3, PART)
    return tmp_path / "versions" / "3"


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_link_takes_no_room_and_outlives_its_store(tmp_path, version):
    folder = tmp_path / "apart"
    assert apart.link(version, folder / "5")
    numbers = {path.stat().st_ino for path in files(version)}
    assert {path.stat().st_ino for path in files(folder / "5")} == numbers
    shutil.rmtree(version)
    found = apart.version_of(folder, 5)
    assert found == 3
    np.testing.assert_array_equal(apart.read(folder, 5, found, BLANK)["weights"], PART["weights"])


def test_a_disk_without_links_is_told_once_and_leaves_nothing(
    tmp_path, version, monkeypatch, caplog
):
    real, left = os.link, [2]

    def link(source, target, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(source, target, **kwargs)

    monkeypatch.setattr(os, "link", link)
    with caplog.at_level(logging.WARNING):
        assert not apart.link(version, tmp_path / "apart" / "5")
        assert not apart.link(version, tmp_path / "apart" / "6")
    assert len(caplog.messages) == 1 and "written once more" in caplog.text
    assert "Invalid cross-device link" in caplog.text
    assert not files(tmp_path / "apart")
    assert apart.version_of(tmp_path / "apart", 5) == apart.NONE
    assert apart.write(tmp_path / "apart", 5, PART) == apart.OWN
    back = apart.read(tmp_path / "apart", 5, apart.OWN, BLANK)
    np.testing.assert_array_equal(back["weights"], PART["weights"])


def test_a_kill_leaves_the_whole_part_or_none(tmp_path, version, monkeypatch):
    class Kill(BaseException):
        pass

    def killed(*args, **kwargs):
        raise Kill

    monkeypatch.setattr(os, "link", killed)
    # A killed process removes nothing.
    monkeypatch.setattr(apart.shutil, "rmtree", lambda *args, **kwargs: None)
    with pytest.raises(Kill):
        apart.link(version, tmp_path / "apart" / "5")
    monkeypatch.undo()
    assert apart.version_of(tmp_path / "apart", 5) == apart.NONE
    assert apart.link(version, tmp_path / "apart" / "5")
    apart.prune(tmp_path / "apart", [5])
    assert [path.name for path in (tmp_path / "apart").iterdir()] == ["5"]
    apart.prune(tmp_path / "apart", [])
    assert not list((tmp_path / "apart").iterdir())


def test_another_version_than_the_named_one_is_not_taken(tmp_path, version):
    apart.link(version, tmp_path / "apart" / "5")
    with pytest.raises(FileNotFoundError, match="version 2 is not in"):
        apart.read(tmp_path / "apart", 5, 2, BLANK)
    with pytest.raises(FileNotFoundError):
        apart.read(tmp_path / "apart", 6, 3, BLANK)
