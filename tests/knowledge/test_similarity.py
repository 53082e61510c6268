"""Cosine similarity of block descriptors."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnas_jax.knowledge.similarity import cosine
from fnas_jax.spaces import mnas


def test_by_hand():
    a, b = jnp.array([[1.0, 0.0, 0.5]]), jnp.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    weights = jnp.array([2.0, 1.0, 4.0])
    # 2 / (sqrt(2 + 1) * sqrt(2 + 1)), and nothing is like nothing
    np.testing.assert_allclose(cosine(a, b, weights), [[2 / 3, 0.0]], rtol=1e-6)


@given(st.integers(0, 2**31 - 1))
def test_it_is_one_for_equal_blocks_only(seed):
    space = mnas.make(blocks=2)
    rng = np.random.default_rng(seed)
    blocks = space.blocks(jnp.asarray(rng.integers(0, space.cardinalities, (6, 14)))).reshape(
        12, -1
    )
    got = np.asarray(cosine(blocks, blocks, jnp.asarray(mnas.descriptor_weights((4, *[1] * 6)))))
    equal = (np.asarray(blocks)[:, None] == np.asarray(blocks)).all(axis=-1)
    assert (got[equal] == 1).all() and (got[~equal] < 1).all()
    assert (got >= 0).all()
    np.testing.assert_allclose(got, got.T, atol=1e-6)


def test_weights_are_those_of_the_fields():
    space = mnas.make(blocks=1)
    texts = ("conv-e3-k3", "conv-e3-k5", "sepconv-e3-k3")
    archs = jnp.asarray([space.parse(f"{text}-se0-none-f1-l+0") for text in texts])
    blocks = space.blocks(archs)[:, 0]
    for op, kernel, nearest in ((9, 1, 1), (0, 9, 2)):
        weights = jnp.asarray(mnas.descriptor_weights((op, 1, kernel, 1, 1, 1, 1)))
        assert 1 + cosine(blocks[:1], blocks[1:], weights)[0].argmax() == nearest
    with pytest.raises(ValueError, match="zip"):
        mnas.descriptor_weights((1, 2))
