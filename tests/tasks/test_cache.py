import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fnas_jax.core.types import Metrics
from fnas_jax.tasks import cache


def measured(values, new) -> Metrics:
    v = jnp.asarray(values, jnp.float32)
    return Metrics(v, v, v, v, v, v, ok=jnp.ones(len(v), bool), fresh=new)


def feed(state, forms, values, mask=None):
    """One evaluation of `forms`, as an evaluator does it, where the new ones measure `values`."""
    forms = jnp.asarray(forms, jnp.int32)
    mask = jnp.ones(len(forms), bool) if mask is None else jnp.asarray(mask)
    found = cache.look_up(state, forms, mask)
    state = cache.remember(state, found, forms, measured(values, found.new))
    return state, found, cache.recall(state, found)


def test_first_readings_stay():
    state = cache.empty(4, 2)
    state, _, first = feed(state, [[0, 1], [2, 3]], [0.5, 0.6])
    assert first.fresh.tolist() == [True, True]
    state, _, again = feed(state, [[2, 3], [0, 0]], [0.9, 0.7])
    assert again.fresh.tolist() == [False, True]
    np.testing.assert_allclose(again.accuracy, [0.6, 0.7])
    np.testing.assert_allclose(again.seconds, [0.0, 0.7])
    assert state.size == 3


def test_of_equal_ones_in_a_batch_the_first_is_measured():
    _, found, metrics = feed(cache.empty(4, 1), [[1], [2], [1], [1]], [0.1, 0.2, 0.3, 0.4])
    assert found.new.tolist() == [True, True, False, False]
    np.testing.assert_allclose(metrics.accuracy, [0.1, 0.2, 0.1, 0.1])


def test_masked_entries_are_neither_measured_nor_recalled():
    state, _, metrics = feed(
        cache.empty(4, 1), [[1], [1], [2]], [0.1, 0.2, 0.3], [False, True, True]
    )
    assert metrics.fresh.tolist() == [False, True, True]
    assert metrics.ok.tolist() == [False, True, True]
    assert metrics.accuracy[0] == 0 and np.isnan(metrics.mflops[0])
    _, _, metrics = feed(state, [[1]], [0.9], [False])
    assert not metrics.ok[0]


def test_a_full_memo_measures_nothing_more():
    state, _, _ = feed(cache.empty(2, 1), [[1]], [0.1])
    state, found, metrics = feed(state, [[2], [3], [1]], [0.2, 0.3, 0.4])
    assert found.new.tolist() == [True, False, False]
    assert metrics.ok.tolist() == [True, False, True]
    assert state.size == 2


@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=6))
def test_agrees_with_a_dictionary(batches):
    state, known, value = cache.empty(16, 1), {}, 0
    look_up = jax.jit(cache.look_up)
    for batch in batches:
        values = [value + i for i in range(len(batch))]
        value += len(batch)
        forms = jnp.asarray(batch, jnp.int32)[:, None]
        found = look_up(state, forms, jnp.ones(len(batch), bool))
        state = cache.remember(state, found, forms, measured(values, found.new))
        fresh = []
        for form, reading in zip(batch, values, strict=True):
            fresh.append(form not in known)
            known.setdefault(form, reading)
        result = cache.recall(state, found)
        assert result.fresh.tolist() == fresh
        np.testing.assert_allclose(result.accuracy, [known[form] for form in batch])


def test_the_best_come_first_and_what_gave_no_result_last():
    state, _, _ = feed(cache.empty(6, 1), [[3], [1], [4], [2]], [0.5, 0.7, 0.5, 0.9])
    failed = state.metrics._replace(ok=state.metrics.ok.at[3].set(False))
    order, good = cache.best_first(state._replace(metrics=failed))
    assert order[:3].tolist() == [1, 0, 2] and sorted(order.tolist()) == list(range(6))
    assert good.tolist() == [True, True, True, False, False, False]
