"""Synthetic landscapes: their values, their tops, and what counts as an evaluation."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import landscapes
from experiments.benchmarks.landscapes import KINDS, Kind

SMALL = Kind(8, 3, 2)
EVERYTHING = np.array(list(itertools.product(range(3), repeat=8)), np.int32)


def draw(kind, noise=0.0, seed=0):
    return jax.jit(partial(landscapes.draw, kind, noise))(jax.random.key(seed))


def values(kind, land, archs):
    return np.asarray(jax.jit(partial(landscapes.value, kind))(land, jnp.asarray(archs)))


def test_a_value_is_the_mean_of_what_decisions_give_together():
    land = draw(SMALL)
    numbers, others = np.asarray(land.numbers), np.asarray(land.others)
    for t in range(8):
        assert len({t, *others[t]}) == 3  # two others, none twice
    expected = [
        np.mean([numbers[t, a[t] + 3 * a[others[t, 0]] + 9 * a[others[t, 1]]] for t in range(8)])
        for a in EVERYTHING
    ]
    got = values(SMALL, land, EVERYTHING)
    np.testing.assert_allclose(
        got, (np.array(expected) - float(land.middle)) / float(land.std), atol=1e-5
    )
    np.testing.assert_allclose((got.mean(), got.std()), (0, 1), atol=0.05)


def test_without_others_it_is_additive():
    kind = KINDS["nk0_10x3"]
    land = draw(kind)
    archs = np.asarray(jax.random.randint(jax.random.key(1), (50, 10), 0, 3))
    one_hot = (archs[..., None] == np.arange(3)).reshape(50, -1)
    got = values(kind, land, archs)
    fit = np.linalg.lstsq(np.c_[one_hot, np.ones(50)], got, rcond=None)[0]
    np.testing.assert_allclose(np.c_[one_hot, np.ones(50)] @ fit, got, atol=1e-4)


@pytest.mark.parametrize("name", ["sizes_5x9", "nk3_6x5"])
def test_the_top_is_a_thousandth_and_noise_is_a_multiple_of_its_spread(name):
    kind, land = KINDS[name], draw(KINDS[name], 0.5)
    archs = np.asarray(
        jax.random.randint(jax.random.key(9), (60_000, kind.decisions), 0, kind.choices)
    )
    found = values(kind, land, archs)
    top = found >= float(land.least)
    assert 0.0005 < top.mean() < 0.0015
    np.testing.assert_allclose(float(land.noise), 0.5 * found[top].std(), rtol=0.3)


def test_sizes_grow_on_the_whole_but_for_what_nothing_predicts():
    kind = KINDS["sizes_5x9"]
    land = draw(kind)
    small, large = np.full((1, 5), 0), np.full((1, 5), 8)
    assert values(kind, land, large)[0] > values(kind, land, small)[0] + 3
    again = values(kind, land, np.concatenate([large, large]))
    assert again[0] == again[1]  # the same network has the same chance
    other = values(kind, land._replace(seed=land.seed + 1), large)
    assert other[0] != again[0]


def test_an_evaluation_is_a_new_network_and_its_first_reading_stays():
    land = draw(SMALL, 1.0)
    on = landscapes.evaluator(SMALL, land, 8)
    evaluate = jax.jit(on.evaluate)
    archs = jnp.asarray(EVERYTHING[[3, 7, 3, 9]])
    mask = jnp.array([True, True, True, False])
    known, first = evaluate(on.init(), archs, mask, jax.random.key(0))
    assert first.fresh.tolist() == [True, True, False, False]
    assert first.ok.tolist() == mask.tolist()
    assert first.reward[0] == first.reward[2] and float(first.reward[3]) == 0
    assert abs(float(first.reward[0]) - values(SMALL, land, archs)[0]) > 1e-4  # noise
    _, again = evaluate(known, archs, jnp.ones(4, bool), jax.random.key(1))
    assert again.fresh.tolist() == [False, False, False, True]
    np.testing.assert_array_equal(again.reward[:3], first.reward[:3])


@pytest.mark.slow
def test_methods_search_the_same_landscape_of_a_seed_and_arrive():
    kind = Kind(5, 3, 0)
    hits = {
        name: landscapes.measure(kind, 0.0, landscapes.PRESETS[name], 120, 3, 0)
        for name in ("random", "local")
    }
    for found in hits.values():
        assert found.shape == (3,) and (found >= 1).all()
    # Additive, and 243 networks: climbing takes few steps from anywhere.
    assert (hits["local"] <= 80).all()
    one = landscapes.measure(kind, 0.0, landscapes.PRESETS["local"], 120, 1, 2)
    assert one[0] == hits["local"][2]
    few = landscapes.measure(kind, 0.0, landscapes.PRESETS["random"], 10, 3, 0)
    assert (np.isinf(few) == (hits["random"] > 10)).all()
