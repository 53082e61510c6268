"""Surrogates on disk."""

import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core.types import UserError
from fnas_jax.knowledge import surrogates


def test_what_is_stored_is_found_and_stays(tmp_path):
    path = surrogates.place(tmp_path, "categorical/mine", "abc")
    assert path.name == "categorical_mine-abc"
    tree = {"w": jnp.arange(4.0), "none": jnp.zeros((0, 2)), "tau": jnp.float32(0.5)}
    assert surrogates.load(path, tree) is None
    surrogates.save(path, tree)
    surrogates.save(path, {**tree, "w": jnp.zeros(4)})
    found = surrogates.load(path, tree)
    np.testing.assert_array_equal(found["w"], np.arange(4.0))
    assert found["none"].shape == (0, 2) and found["tau"] == 0.5
    with pytest.raises(UserError, match="can be read"):
        surrogates.load(path, {**tree, "w": jnp.zeros(5)})
