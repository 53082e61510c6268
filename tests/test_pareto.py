"""The front against its definition."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fnas_jax import pareto


@given(arrays(int, st.tuples(st.integers(0, 12), st.integers(1, 4)), elements=st.integers(0, 3)))
def test_the_front_is_what_no_other_beats(figures):
    accuracy, costs = figures[:, 0].astype(float), figures[:, 1:].astype(float)
    chosen = pareto.front(accuracy, costs)

    def beats(i, j):
        no_worse = accuracy[i] >= accuracy[j] and (costs[i] <= costs[j]).all()
        return no_worse and (accuracy[i] > accuracy[j] or (costs[i] < costs[j]).any() or i < j)

    n = len(accuracy)
    expected = [not any(beats(i, j) for i in range(n) if i != j) for j in range(n)]
    np.testing.assert_array_equal(chosen, expected)
