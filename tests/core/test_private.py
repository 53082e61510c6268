"""Folders of code are made for their user alone, whatever the umask says."""

import os

from fnas_jax.core import private


def test_all_folders_that_are_made_are_private(tmp_path):
    before = os.umask(0o002)
    try:
        private.folder(tmp_path / "a" / "b")
        private.folder(tmp_path / "a")  # which is a cache of its own
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
