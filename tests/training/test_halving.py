"""Who goes on from a rung, and what becomes of those who do not."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fnas_jax.training import halving

NAN = np.nan
UNIT = st.floats(0, 1, width=32)
SOME = st.one_of(UNIT, st.just(NAN))


@pytest.mark.parametrize(
    ("steps", "eta", "most", "found"),
    [
        (100, 2, 2, (25, 50)),
        (90, 3, 2, (10, 30)),
        (100, 4, 1, (25,)),
        (100, 0, 2, ()),
        (3, 2, 3, (1, 2)),  # a rung at 0 is none, and neither is the end
        (1, 2, 2, ()),
    ],
)
def test_rungs_are_shares_of_the_steps(steps, eta, most, found):
    assert halving.rungs(steps, eta, most) == found


@given(st.integers(1, 60), st.integers(0, 4).filter(lambda n: n != 1), st.integers(1, 3))
def test_what_children_are_expected_to_make_is_what_many_make(steps, eta, most):
    """Of eta^3 times 8 children, of which exactly one in eta goes on at each rung."""
    at = halving.rungs(steps, eta, most)
    children = left = 8 * max(eta, 1) ** 3
    made, judged, before = 0, 0, 0
    for rung in at:
        made += left * (rung - before)
        judged += left
        left, before = left // eta, rung
    made += left * (steps - before)
    assert halving.share(at, steps, eta) == pytest.approx(made / children / steps)
    # All are judged again in the end.
    assert halving.judgings(at, eta) == pytest.approx((judged + children) / children)


def ladder(rewards=(), rungs=1):
    """A ladder that knows these rewards at its first rung."""
    empty = halving.empty(rungs)
    filled = np.array(empty.rewards)
    if len(rewards):
        filled[0, -len(rewards) :] = rewards
    return empty._replace(rewards=jnp.asarray(filled))


@given(
    arrays.arrays(np.float32, st.integers(0, halving.WINDOW), elements=UNIT),
    arrays.arrays(np.float32, st.integers(1, 8), elements=SOME),
    st.integers(2, 5),
)
def test_those_go_on_that_are_among_the_best_of_all_that_are_known(before, own, eta):
    found = halving.goes_on(ladder(before), 0, own, eta)
    every = sorted([*before, *own[np.isfinite(own)]], reverse=True)
    for value, goes in zip(own, found, strict=True):
        if not np.isfinite(value):
            assert not goes
            continue
        # Its place among all, from 0, where equal ones share the first of theirs.
        assert goes == (every.index(value) < np.ceil(len(every) / eta))
    if not len(before) and np.isfinite(own).any():
        assert found[np.nanargmax(own)]


def test_one_alone_goes_on_and_one_behind_earlier_ones_does_not():
    own = np.array([0.5], np.float32)
    assert halving.goes_on(ladder(), 0, own, 2)[0]
    assert not halving.goes_on(ladder([0.6, 0.7]), 0, own, 2)[0]
    assert halving.goes_on(ladder([0.6, 0.4]), 0, own, 2)[0]
    assert not halving.goes_on(ladder([0.6, 0.4]), 0, own, 3)[0]


def settled(of, readings, accuracy, going, rewards=None):
    numbers = (readings, readings if rewards is None else rewards, accuracy)
    at = (10, 30)[: np.shape(readings)[1]]
    return halving.settle(
        of,
        jnp.asarray(at),
        *(jnp.asarray(x, jnp.float32) for x in numbers),
        jnp.asarray(going),
        jnp.int32(90),
    )


def test_what_was_stopped_is_expected_to_gain_what_others_have_gained():
    # Two that went to the end gained 0.3 and 0.5 from the first rung on, and 0.1 and 0.2 from the
    # second; one was stopped at the second, one at the first, and one failed.
    readings = [[0.5, 0.7], [0.4, 0.7], [0.4, 0.6], [0.2, NAN], [NAN, NAN]]
    accuracy, going = [0.8, 0.9, 0.6, 0.2, NAN], [True, True, False, False, False]
    known, found = settled(halving.empty(2), readings, accuracy, going)
    np.testing.assert_allclose(found.accuracy, [0.8, 0.9, 0.75, 0.6, NAN], rtol=1e-6)
    assert found.stopped.tolist() == [0, 0, 30, 10, 0]
    assert int(known.stopped) == 2 and int(known.saved) == 60 + 80
    np.testing.assert_allclose(known.gains[:, -2:], [[0.3, 0.5], [0.1, 0.2]], rtol=1e-5)
    assert np.isnan(known.gains[:, :-2]).all()
    np.testing.assert_allclose(known.rewards[0, -4:], [0.5, 0.4, 0.4, 0.2])
    np.testing.assert_allclose(known.rewards[1, -3:], [0.7, 0.7, 0.6])
    np.testing.assert_allclose(known.finished[-2:], [0.8, 0.9])
    # Of a batch in which nobody went on, by those of before; its counts are added.
    later, again = settled(known, [[0.1, NAN]], [0.1], [False])
    np.testing.assert_allclose(again.accuracy, [0.5], rtol=1e-6)
    assert int(later.stopped) == 3 and int(later.saved) == 60 + 80 + 80
    np.testing.assert_allclose(later.rewards[0, -5:], [0.5, 0.4, 0.4, 0.2, 0.1])


def test_nothing_is_expected_to_be_better_than_all_that_are_known():
    """Here the one that went on for a low reading has gained much."""
    rewards = [[0.9, NAN], [0.1, NAN]]
    _, found = settled(
        halving.empty(2), [[0.1, 0.4], [0.6, NAN]], [0.5, 0.6], [True, False], rewards
    )
    np.testing.assert_allclose(found.accuracy, [0.5, 0.6])
    # Where nobody has made all steps, what was read is all that there is.
    _, found = settled(halving.empty(2), [[0.6, NAN]], [0.6], [False])
    np.testing.assert_allclose(found.accuracy, [0.6])


@given(st.integers(1, 3 * halving.WINDOW))
def test_the_newest_are_known(count):
    numbers = np.arange(count, dtype=np.float32)[:, None]
    known, _ = settled(halving.empty(1), numbers, numbers[:, 0], [True] * count)
    newest = numbers[-halving.WINDOW :, 0]
    np.testing.assert_array_equal(known.rewards[0, -len(newest) :], newest)
    np.testing.assert_array_equal(known.finished[-len(newest) :], newest)
    assert np.isnan(known.rewards[0, : -len(newest)]).all() or len(newest) == halving.WINDOW
