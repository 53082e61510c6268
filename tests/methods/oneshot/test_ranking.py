"""The ranking of samples against sorting."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fnas_jax.methods.oneshot import ranking

# Rewards are a function of the network: the same one never has two readings.
BATCHES = st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=1, max_size=5)


@given(BATCHES)
def test_the_ranking_is_the_head_of_the_sorted_networks(batches):
    state = ranking.empty(2, 1)
    for batch in batches:
        forms = jnp.asarray(batch, jnp.int32)[:, None]
        state = ranking.add(state, forms, forms[:, 0] / 10)
    best = sorted({x for batch in batches for x in batch}, reverse=True)[:2]
    best += [-1] * (2 - len(best))
    assert state.archs[:, 0].tolist() == best


def test_samples_that_change_nothing_are_counted():
    state = ranking.empty(1, 1)
    for reward, stable in ((0.5, 0), (0.4, 1), (0.5, 2), (0.9, 0), (-np.inf, 1)):
        form = jnp.asarray([[int(abs(reward) * 10) if np.isfinite(reward) else 7]])
        state = ranking.add(state, form, jnp.asarray([reward]))
        assert state.stable == stable


def test_what_is_added_has_the_types_of_what_was_there():
    """So that what takes a ranking is compiled once."""
    archs, rewards = jnp.zeros((2, 3), jnp.int32), jnp.zeros(2)
    empty = ranking.empty(4, 3)
    later = jax.eval_shape(ranking.add, empty, archs, rewards)
    shapes = jax.eval_shape(lambda: empty)
    assert jax.tree.map(lambda a: (a.dtype, a.weak_type), later) == jax.tree.map(
        lambda a: (a.dtype, a.weak_type), shapes
    )
