"""The categorical space: any cardinalities."""

import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnas_jax.core.types import UserError
from fnas_jax.spaces import base, categorical

cards = st.lists(st.integers(1, 6), min_size=1, max_size=7)


@given(cards, st.integers(0, 2**31 - 1))
@settings(max_examples=25, deadline=None)
def test_samples_are_valid_and_round_trip(cardinalities, seed):
    space = categorical.make(cardinalities)
    samples = np.asarray(space.sample(jax.random.key(seed), 8))
    assert samples.shape == (8, len(cardinalities))
    assert np.asarray(space.validate(samples)).all()
    assert not np.asarray(space.validate(samples + np.array(cardinalities))).any()
    np.testing.assert_array_equal(space.canonical(samples), samples)
    for arch in samples:
        described = space.describe(arch)
        np.testing.assert_array_equal(space.parse(described["text"]), arch)
        json.dumps(described)


def test_graph_and_blocks_separate_all_architectures():
    space = categorical.make((2, 3, 1, 2))
    archs = base.enumerate_all(space)
    ops, adjacency = map(np.asarray, space.graph(archs))
    assert len(archs) == space.size == 12
    assert len(np.unique(ops, axis=0)) == 12
    assert ops.max() < space.num_ops and adjacency.shape == (12, 6, 6)
    blocks = np.asarray(space.blocks(archs))
    assert blocks.shape == (12, 4, 3) and (blocks.sum(axis=-1) == 1).all()


@pytest.mark.parametrize("text", ["1,0", "1,0,3", "1,x,0", "1,-1,0"])
def test_bad_text_is_refused(text):
    with pytest.raises(UserError, match="decision"):
        categorical.make((2, 2, 3)).parse(text)


@pytest.mark.parametrize(
    ("cardinalities", "names"), [((), None), ((0, 2), None), ((2,), ["a", "b"])]
)
def test_bad_spaces_are_refused(cardinalities, names):
    with pytest.raises(UserError):
        categorical.make(cardinalities, names=names)
