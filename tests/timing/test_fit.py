"""From operations to networks: known truths are found, and the clock is read as it is meant."""

import numpy as np
import pytest

from fnas_jax.timing import clock, fit
from fnas_jax.timing.units import Unit

UNITS = [Unit("conv", 8, 8, 8 * i, 16, kernel=3) for i in (1, 2, 3, 4)]
UNITS += [Unit("depthwise", 8, 8, 8 * i, 8 * i, kernel=3) for i in (1, 2, 3, 4)]
ALONE = dict(zip(UNITS, (0.1, 0.2, 0.3, 0.4, 1.0, 2.0, 3.0, 4.0), strict=True))


def networks(count, seed):
    draw = np.random.default_rng(seed)
    return [[UNITS[i] for i in draw.integers(0, len(UNITS), 6)] for _ in range(count)]


def test_families_that_take_another_time_within_networks_are_found():
    factors = {"conv": 0.6, "depthwise": 1.3}
    true = fit.Prediction(0.2, {u: ms * factors[u.kind] for u, ms in ALONE.items()})
    seen, unseen = networks(30, 0), networks(30, 1)
    measured = np.asarray([fit.total(true, network) for network in seen])
    found = fit.fit(ALONE, seen, measured, 0.1)
    truth = np.asarray([fit.total(true, network) for network in unseen])
    before = fit.Prediction(0.1, ALONE)
    errors = [
        fit.quality(np.asarray([fit.total(p, n) for n in unseen]), truth).median_error
        for p in (before, found)
    ]
    assert errors[0] > 0.2 and errors[1] < 0.01


def test_a_few_readings_of_a_busy_machine_change_little():
    true = fit.Prediction(0.1, {unit: 1.2 * ms for unit, ms in ALONE.items()})
    seen = networks(30, 0)
    measured = np.asarray([fit.total(true, network) for network in seen])
    measured[[3, 11, 20]] *= 3
    found = fit.fit(ALONE, seen, measured, 0.1)
    unseen = networks(30, 1)
    predicted, truth = (np.asarray([fit.total(p, n) for n in unseen]) for p in (found, true))
    assert fit.quality(predicted, truth).largest_error < 0.05


def test_a_fixed_part_that_is_larger_than_a_call_is_found():
    """As where every network, but no call of a single operation, wakes other threads."""
    seen = networks(30, 0)
    sizes = [len(UNITS), *range(1, 7)]
    seen = [network[: sizes[i % len(sizes)]] for i, network in enumerate(seen)]
    true = fit.Prediction(3.0, ALONE)
    measured = np.asarray([fit.total(true, network) for network in seen])
    assert fit.fit(ALONE, seen, measured, 0.01).fixed == pytest.approx(3.0, rel=0.1)


def test_what_agrees_already_stays():
    seen = networks(10, 0)
    before = fit.Prediction(0.1, ALONE)
    found = fit.fit(ALONE, seen, np.asarray([fit.total(before, n) for n in seen]), 0.1)
    np.testing.assert_allclose(list(found.units.values()), list(ALONE.values()), rtol=1e-9)
    assert found.fixed == pytest.approx(0.1)


def test_no_operation_takes_less_than_no_time():
    seen = networks(10, 0)
    found = fit.fit(ALONE, seen, np.full(10, 1e-3), 0.1)
    assert min(found.units.values()) >= 0 and found.fixed >= 0


def test_quality_by_hand():
    found = fit.quality(np.asarray([1.1, 2.0, 2.0]), np.asarray([1.0, 1.0, 4.0]))
    assert found.median_error == pytest.approx(0.5) and found.largest_error == pytest.approx(1.0)
    # One pair in the order of the clock, one in a tie by each: tau-b.
    assert found.kendall_tau == pytest.approx(1 / 2)


def test_of_one_program_a_low_quantile_of_the_medians_of_three_counts():
    passes = np.asarray([9.0, 1.0, 9.0, 2.0, 3.0, 4.0, 4.0, 0.1, 5.0])
    assert clock.undisturbed(passes) == pytest.approx(np.quantile([9.0, 3.0, 4.0], 0.1))
    assert clock.undisturbed(passes[:5]) == 3.0  # the last two belong to the group before
    assert clock.undisturbed(passes[:3]) == 9.0 and clock.undisturbed(passes[:1]) == 9.0


@pytest.mark.parametrize(("quiet", "rounds"), [(0, clock.ROUNDS), (10, 20)])
def test_other_work_on_the_machine_does_not_count(monkeypatch, quiet, rounds):
    """Two programs of 1 and 3 ms; before the `quiet` round another one takes as much again."""
    now, done = [0.0], [0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])

    def call(ms):
        now[0] += ms / 1e3 * (2 if done[0] < quiet else 1)

    def tell(number):
        done[0] = number

    found = clock.interleaved([lambda: call(1.0), lambda: call(3.0)], tell)
    np.testing.assert_allclose(found, [1.0, 3.0])
    assert done[0] == rounds  # of two thirds of them, enough are quiet


def test_rounds_go_on_until_they_change_nothing():
    steady = np.ones((10, 12))
    assert clock.settled(steady)
    late = steady.copy()
    late[:, -4:] = 0.9
    assert not clock.settled(late)
    late[1:, -4:] = 1.0  # one in ten may
    assert clock.settled(late)
