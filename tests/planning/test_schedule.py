"""What fits into a time is used, and no more is promised."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fnas_jax.planning import schedule
from fnas_jax.planning.schedule import Facts, Size, Speed
from fnas_jax.training import halving

FACTS = st.builds(
    Facts,
    images=st.integers(500, 2_000_000),
    judged=st.integers(50, 5000),
    devices=st.integers(1, 64),
    batch=st.sampled_from([16, 64, 256]),
    halving=st.just(0),
    winner_share=st.just(schedule.WINNER_SHARE),
)
HALVED = st.builds(
    Facts._replace,
    FACTS,
    halving=st.sampled_from([2, 3]),
    rungs=st.integers(1, 3),
    brackets=st.sampled_from([1, 1, 4]),
)
SPEEDS = st.builds(
    Speed,
    macs=st.floats(1e8, 1e14),
    compilation=st.floats(0.1, 60),
    own=st.one_of(st.just(0.0), st.floats(0.1, 60)),
)
SIZES = st.floats(1e5, 1e9).map(lambda mean: Size(mean, 1.4 * mean))


def child_seconds(facts, speed, size, steps):
    """By hand: steps of training images, and validation images, which cost a third."""
    return (steps * facts.batch + facts.judged / 3) * size.mean / speed.macs + speed.own


@given(FACTS, SPEEDS, SIZES, st.floats(60, 1e6))
def test_what_is_enough_keeps_to_the_time(facts, speed, size, seconds):
    found = schedule.schedule(facts, speed, size, seconds)
    assume(schedule.enough(facts, found, seconds))
    children = (found.children + schedule.UNCOUNTED) * child_seconds(
        facts, speed, size, found.steps
    )
    searching = children / facts.devices + 3 * speed.compilation
    assert found.search_seconds == pytest.approx(searching)
    assert searching <= 1.06 * (1 - schedule.WINNER_SHARE) * seconds
    training = found.winner_steps * facts.batch * size.high / speed.macs / facts.devices
    assert searching + training <= 1.001 * seconds + facts.batch * size.high / speed.macs


def test_what_children_are_expected_to_make_is_that_of_their_brackets():
    facts = CASE._replace(halving=3, rungs=2, brackets=3)
    how = (2, 6), 3, 3
    assert schedule.expected(facts, 18) == (
        halving.share(how[0], 18, *how[1:]),
        halving.judgings(*how),
    )


@given(HALVED, SPEEDS, SIZES, st.floats(60, 1e6))
def test_what_stopped_children_leave_is_used_for_longer_ones_or_for_more(
    facts, speed, size, seconds
):
    found = schedule.schedule(facts, speed, size, seconds)
    plain = schedule.schedule(facts._replace(halving=0), speed, size, seconds)
    if found.children > schedule.LEAST_CHILDREN:  # or there are too many of them for the time
        assert found.search_seconds <= 1.002 * (1 - schedule.WINNER_SHARE) * seconds
    most = facts.rungs + 1  # judgings of a child, which for few steps are more than these save
    if plain.steps > 200 and facts.judged * most < facts.batch * plain.steps / 8:
        assert found.steps * found.children >= plain.steps * plain.children


@given(FACTS, SPEEDS, SIZES, st.floats(60, 1e6))
def test_twice_the_time_is_no_less_of_anything(facts, speed, size, seconds):
    one, two = (schedule.schedule(facts, speed, size, t) for t in (seconds, 2 * seconds))
    assert two.steps >= one.steps and two.winner_steps >= one.winner_steps - 1
    assert two.children * two.steps >= one.children * one.steps * 0.9


CASE = Facts(images=64_000, judged=3000, devices=2, batch=64)
STEP = 0.064 / 3  # seconds, at 3e9 multiply-adds a second; a child's judging takes 1 / 3 s


def test_the_figures_of_a_case():
    """By hand: 400 s of two devices."""
    found = schedule.schedule(CASE, Speed(3e9, compilation=20.0), Size(1e6, 2e6), 1150.0)
    # (460 - 60) * 2 / (48 + 14) = 12.9 s a child, of which 12.6 s are 589 steps
    assert found.steps == 589 and found.children == 48
    assert found.child_seconds == pytest.approx(589 * STEP + 1 / 3)
    # What is left of 1150 s, in steps of twice the work, which two devices share.
    assert found.winner_steps == int((1150 - found.search_seconds) / STEP)
    assert found.winner_epochs == pytest.approx(found.winner_steps * 64 / 67_000)


@pytest.mark.parametrize(("macs", "steps", "children"), [(2e9, 500, 34), (1e9, 313, 24)])
def test_children_are_fewer_before_they_have_too_few_steps(macs, steps, children):
    """By hand: (800 s - 14 full ones) / 16.5 s; half of the children, 800 s / 38 = 21.05 s each."""
    found = schedule.schedule(CASE, Speed(macs, compilation=20.0), Size(1e6, 2e6), 1150.0)
    assert (found.steps, found.children) == (steps, children)
    assert schedule.enough(CASE, found, 1150.0) == (steps == 500)


def test_networks_are_narrow_enough_for_good_children():
    quick = CASE._replace(batch=32)  # steps are of half the work, and a winner's epochs more
    found = schedule.schedule(quick, Speed(4e9, compilation=20.0), Size(1e6, 1e6), 1150.0)
    assert schedule.good_steps(quick) == 500 and schedule.enough(quick, found, 1150.0)
    assert not schedule.enough(quick, found._replace(steps=499), 1150.0)
    assert not schedule.enough(quick, found._replace(winner_epochs=19.9), 1150.0)
    assert schedule.good_steps(CASE._replace(images=6400)) == 100  # an epoch
    assert schedule.good_steps(CASE._replace(images=640)) == schedule.LEAST_STEPS


def test_the_share_of_the_winner_is_the_users():
    usual, less = (
        schedule.schedule(CASE._replace(winner_share=x), Speed(3e9, 20.0), Size(1e6, 2e6), 1150.0)
        for x in (0.6, 0.2)
    )
    # (920 - 60) * 2 / (48 + 14) = 27.7 s a child, of which 27.4 s are 1284 steps
    assert less.steps == 1284 and usual.steps == 589
    assert less.winner_steps == int((1150 - less.search_seconds) / STEP) < usual.winner_steps


def test_children_that_are_compiled_each_are_shorter():
    """By hand: as the first case, where 0.5 s of each child are its compilation."""
    found = schedule.schedule(CASE, Speed(3e9, 20.0, own=0.5), Size(1e6, 2e6), 1150.0)
    assert found.steps == int((400 * 2 / 62 - 0.5 - 1 / 3) / STEP) and found.children == 48
    assert found.child_seconds == pytest.approx(found.steps * STEP + 1 / 3 + 0.5)


def test_children_that_stop_early_leave_time_for_longer_ones():
    """By hand: as the first case, where half stop at a half; 14 children are trained in full."""
    facts = CASE._replace(halving=2, rungs=1)
    found = schedule.schedule(facts, Speed(3e9, compilation=20.0), Size(1e6, 2e6), 1150.0)
    # 48 make 3 / 4 of the steps and are judged twice: 800 s = 48 (2/3 + 0.75 s) + 14 (1/3 + s)
    assert found.steps == int((800 - 48 * 2 / 3 - 14 / 3) / (48 * 0.75 + 14) / STEP)
    half = round(found.steps / 2)
    assert found.child_seconds == pytest.approx((half + (found.steps - half) / 2) * STEP + 2 / 3)
    assert found.children == 48
    assert found.search_seconds == pytest.approx(
        (48 * found.child_seconds + 14 * (found.steps * STEP + 1 / 3)) / 2 + 60
    )


def test_few_images_have_an_end():
    facts = Facts(images=600, judged=200, devices=1, batch=64)
    found = schedule.schedule(facts, Speed(1e12, 1.0), Size(1e6, 1e6), 1e5)
    assert found.steps == 50 and found.children == schedule.MOST_CHILDREN
    assert found.winner_steps == schedule.most_winner_steps(facts) == 200 * 800 // 64
    assert schedule.most_winner_steps(facts._replace(images=100, judged=20)) == 1500
