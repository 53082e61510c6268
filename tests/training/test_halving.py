"""Who goes on from a rung, and what becomes of those who do not."""

import math

import jax
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


@given(
    st.integers(1, 60),
    st.integers(0, 4).filter(lambda n: n != 1),
    st.integers(1, 3),
    st.integers(1, 4),
)
def test_what_children_are_expected_to_make_is_what_many_make(steps, eta, most, brackets):
    """Of each bracket eta^3 times its count, of which one in eta goes on at each of its rungs."""
    at = halving.rungs(steps, eta, most)
    rungs = len(at)
    made, judged, children = 0, 0, 0
    for bracket in range(min(brackets, rungs + 1)):
        s, before = rungs - bracket, 0
        left = max(eta, 1) ** 3 * math.ceil((rungs + 1) / (s + 1) * eta**s)
        children += left
        judged += left  # in the end
        for rung in at[bracket:]:
            made += left * (rung - before)
            judged += left
            left, before = left // eta, rung
        made += left * (steps - before)
    assert halving.share(at, steps, eta, brackets) == pytest.approx(made / children / steps)
    assert halving.judgings(at, eta, brackets) == pytest.approx(judged / children)


def test_brackets_have_hyperbands_numbers_of_children():
    """Li et al., JMLR 2018: those of R = 81 and eta = 3 begin with 81, 34, 15, 8 and 5."""
    np.testing.assert_allclose(halving.shares(4, 3, 5), np.array([81, 34, 15, 8, 5]) / 143)
    np.testing.assert_allclose(halving.shares(2, 3, 2), np.array([9, 5]) / 14)
    # There are no more than rungs can be skipped.
    assert halving.shares(2, 3, 9) == halving.shares(2, 3, 3)
    assert halving.shares(0, 0, 3) == halving.shares(2, 3, 1) == (1.0,)
    assert halving.places(2, 3) == [(0, 0), (0, 1), (1, 1)] == halving.places(2, 2)


@given(
    arrays.arrays(bool, st.integers(1, 12)), st.integers(1, 3), st.integers(0, 3), st.integers(0, 9)
)
def test_each_batch_has_the_shares_as_near_as_so_many_can(new, brackets, rungs, seed):
    among, key = halving.shares(rungs, 3, brackets), jax.random.key(seed)
    found = halving.dealt(key, jnp.asarray(new), among)
    assert found.dtype == np.int32 and not found[~new].any()
    counts = np.bincount(found[new], minlength=len(among))
    assert (abs(counts - new.sum() * np.array(among)) < 1 + 1e-5).all()
    np.testing.assert_array_equal(found, halving.dealt(key, jnp.asarray(new), among))


def test_every_child_has_the_same_chance_of_each_bracket():
    new, among = jnp.array([True, True, False, True]), halving.shares(2, 3, 3)
    found = np.array([halving.dealt(jax.random.key(i), new, among) for i in range(400)])
    for bracket, chance in enumerate(among):
        share = (found[:, [0, 1, 3]] == bracket).mean(axis=0)
        np.testing.assert_allclose(share, chance, atol=4 * (chance * (1 - chance) / 400) ** 0.5)


def ladder(rewards=(), rungs=1, brackets=1, place=0):
    """A ladder that knows these rewards at its first rung, or another place of `places`."""
    empty = halving.empty(rungs, brackets)
    filled = np.array(empty.rewards)
    if len(rewards):
        filled[place, -len(rewards) :] = rewards
    return empty._replace(rewards=jnp.asarray(filled))


def goes_on(known, rung, rewards, eta, brackets=None):
    brackets = np.zeros(len(rewards), np.int32) if brackets is None else np.asarray(brackets)
    return halving.goes_on(known, rung, np.asarray(rewards, np.float32), eta, brackets)


@given(
    arrays.arrays(np.float32, st.integers(0, halving.WINDOW), elements=UNIT),
    arrays.arrays(np.float32, st.integers(1, 8), elements=SOME),
    st.integers(2, 5),
)
def test_those_go_on_that_are_among_the_best_of_all_that_are_known(before, own, eta):
    found = goes_on(ladder(before), 0, own, eta)
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
    assert goes_on(ladder(), 0, own, 2)[0]
    assert not goes_on(ladder([0.6, 0.7]), 0, own, 2)[0]
    assert goes_on(ladder([0.6, 0.4]), 0, own, 2)[0]
    assert not goes_on(ladder([0.6, 0.4]), 0, own, 3)[0]


def test_children_are_compared_within_their_bracket():
    """At the second of two rungs: bracket 0 has come past the first, 1 comes, 2 never stops."""
    own, brackets = [0.9, 0.8, 0.5, 0.4, 0.1, NAN], [0, 0, 1, 1, 2, 2]
    nobody = halving.empty(2, 3)
    assert goes_on(nobody, 1, own, 2, brackets).tolist() == [True, False, True, False, True, True]
    # Those of before are their own bracket's.
    for place, found in ((1, [False, False, True, False]), (2, [True, False, False, False])):
        known = ladder([1.0] * 5, 2, 3, place)
        assert goes_on(known, 1, own, 2, brackets).tolist() == [*found, True, True]
    # All but bracket 0 skip the first rung.
    known = ladder([1.0] * 5, 2, 3)
    assert goes_on(known, 0, own, 2, brackets).tolist() == [False, False, True, True, True, True]


def test_a_ladder_learns_where_children_of_which_bracket_were_compared():
    readings = [[0.5, 0.7], [0.4, NAN], [NAN, 0.6], [NAN, NAN]]
    accuracy, going = [0.8, 0.4, 0.6, 0.9], [True, False, False, True]
    known, found = settled(halving.empty(2, 3), readings, accuracy, going, brackets=[0, 0, 1, 2])
    assert found.stopped.tolist() == [0, 10, 30, 0]
    # What children gain from a rung on is asked of all that went on from there.
    np.testing.assert_allclose(found.accuracy, [0.8, 0.7, 0.7, 0.9], rtol=1e-6)
    np.testing.assert_allclose(known.rewards[:, -2:], [[0.5, 0.4], [NAN, 0.7], [NAN, 0.6]])
    np.testing.assert_allclose(known.finished[-2:], [0.8, 0.9])
    assert int(known.saved) == 80 + 60


def settled(of, readings, accuracy, going, rewards=None, brackets=None):
    numbers = (readings, readings if rewards is None else rewards, accuracy)
    at = (10, 30)[: np.shape(readings)[1]]
    return halving.settle(
        of,
        jnp.asarray(at),
        *(jnp.asarray(x, jnp.float32) for x in numbers),
        jnp.asarray(going),
        jnp.int32(90),
        jnp.zeros(len(going), jnp.int32) if brackets is None else jnp.asarray(brackets),
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
