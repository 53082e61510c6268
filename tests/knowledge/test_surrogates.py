"""Surrogates on disk."""

import os

import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core import leftovers
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import surrogates
from fnas_jax.spaces import categorical, mnas


def test_what_is_stored_is_found_and_stays(tmp_path):
    space = categorical.make((2, 3), "categorical/mine")
    path = surrogates.place(tmp_path, space, "abc")
    assert path.name == f"categorical_mine-{space.key}-abc"
    tree = {"w": jnp.arange(4.0), "none": jnp.zeros((0, 2)), "tau": jnp.float32(0.5)}
    assert surrogates.load(path, tree) is None
    surrogates.save(path, tree)
    surrogates.save(path, {**tree, "w": jnp.zeros(4)})
    found = surrogates.load(path, tree)
    np.testing.assert_array_equal(found["w"], np.arange(4.0))
    assert found["none"].shape == (0, 2) and found["tau"] == 0.5
    with pytest.raises(UserError, match="can be read"):
        surrogates.load(path, {**tree, "w": jnp.zeros(5)})


def test_halves_of_killed_processes_are_removed_and_those_of_others_are_not(tmp_path):
    left, written = (tmp_path / "folder" / n / f"0{leftovers.UNFINISHED}" for n in ("a", "b"))
    for half in (left, written):
        (half / "d").mkdir(parents=True)
    os.utime(left, (0, 0))
    path = tmp_path / "folder" / "c"
    surrogates.save(path, {"w": jnp.arange(4.0)})
    assert not left.exists() and written.exists()
    assert surrogates.load(path, {"w": jnp.zeros(4)}) is not None


def test_spaces_of_one_name_have_surrogates_of_their_own(tmp_path):
    """Of the same decisions, too: the weights would have the same shapes."""
    spaces = [mnas.make(2), mnas.make(3), mnas.make(2, strides=(1, 1)), mnas.make(2, width=0.5)]
    paths = {surrogates.place(tmp_path, space, "abc") for space in spaces}
    assert len(paths) == len(spaces)
    assert surrogates.place(tmp_path, mnas.make(2), "abc") in paths
