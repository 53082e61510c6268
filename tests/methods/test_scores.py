"""Rank scores and the map back, against scipy."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from fnas_jax.methods import candidates, scores
from fnas_jax.spaces import macro
from tests.methods import toy

VALUES = np.random.default_rng(0).normal(size=12).astype(np.float32)
VALUES[3] = VALUES[7]
MASK = np.arange(12) != 5
# One program each, not one for every operation in them.
rank_scores, scale_of = jax.jit(scores.rank_scores), jax.jit(scores.scale)
to_reward, to_score = jax.jit(scores.to_reward), jax.jit(scores.to_score)
align, kendall = jax.jit(scores.align), jax.jit(scores.kendall)
draw = jax.jit(candidates.draw, static_argnums=(0, 3))


def test_scores_are_normal_quantiles_of_mid_ranks():
    got = rank_scores(VALUES, MASK)
    expected = stats.norm.ppf((stats.rankdata(VALUES[MASK]) - 0.5) / 11)
    np.testing.assert_allclose(np.asarray(got)[MASK], expected, atol=1e-5)
    assert got[5] == 0


def test_equal_and_infinite_values_and_places_without_one_have_their_ranks():
    values = np.random.default_rng(2).integers(-2, 3, 64).astype(np.float32)
    values[:3], mask = (np.inf, -np.inf, -0.0), np.arange(64) % 5 > 0
    mask[:2], values[~mask] = True, np.nan
    # Not by `stats.rankdata`, of which older versions take infinities of both signs for a NaN.
    less, equal = ((op(values[mask], values[mask][:, None])).sum(1) for op in (np.less, np.equal))
    expected = stats.norm.ppf((less + equal / 2) / mask.sum())
    got = np.asarray(jax.jit(scores.rank_scores)(values, mask))
    np.testing.assert_allclose(got[mask], expected, atol=1e-5)
    assert not got[~mask].any()
    assert not np.asarray(jax.jit(scores.rank_scores)(values, np.zeros(64, bool))).any()


def test_ranks_of_a_full_buffer_need_no_table_of_all_pairs():
    n = 1024
    lowered = jax.jit(scores.rank_scores).lower(jnp.zeros(n), jnp.ones(n, bool))
    assert f"{n}x{n}" not in lowered.as_text()


def test_the_scale_goes_there_and_back_and_beyond_the_best():
    z = np.asarray(rank_scores(VALUES, MASK))
    scale = scale_of(VALUES, z, MASK)
    np.testing.assert_allclose(to_reward(scale, z)[MASK], VALUES[MASK], atol=1e-5)
    np.testing.assert_allclose(to_score(scale, VALUES)[MASK], z[MASK], atol=1e-4)
    best, beyond = float(VALUES[MASK].max()), z.max() + np.float32(0.5)
    assert float(to_reward(scale, beyond)) > best
    np.testing.assert_allclose(to_score(scale, to_reward(scale, beyond)), beyond, atol=1e-4)
    # Also where no place is free.
    scale = scale_of(VALUES[MASK], z[MASK], np.ones(11, bool))
    assert float(to_reward(scale, beyond)) > best
    for count in (0, 1):
        scale = scale_of(VALUES, z, np.arange(12) < count)
        assert np.isfinite(to_reward(scale, np.array([-2.0, 0.0, 2.0], np.float32))).all()


def test_own_scores_get_the_middle_and_deviation_of_what_source_tasks_predict():
    own, predicted = jnp.array([-1.0, 0.0, 1.0, 7.0]), jnp.array([1.0, 2.0, 3.0, -9.0])
    mask = jnp.array([True, True, True, False])
    got, std = align(own, predicted, mask)
    expected = np.std([1.0, 2.0, 3.0])
    np.testing.assert_allclose(std, expected, rtol=1e-5)
    np.testing.assert_allclose(got, [2 - expected, 2, 2 + expected, 0], rtol=1e-5)
    flat, least = align(own, np.full(4, 0.5, np.float32), mask)  # they see no difference
    np.testing.assert_allclose(flat, [0.2, 0.5, 0.8, 0], rtol=1e-5)
    np.testing.assert_allclose(least, scores.LEAST_STD)


def test_kendall_is_that_of_scipy():
    a, b = np.random.default_rng(1).normal(size=(2, 9))
    got = kendall(a.astype(np.float32), b.astype(np.float32), np.arange(9) < 7)
    np.testing.assert_allclose(got, stats.kendalltau(a[:7], b[:7]).statistic, atol=1e-6)


def test_candidates_are_random_and_neighbours_of_the_parents():
    parents = jnp.array([[0, 1, 0, 2, 1], [2, 3, 1, 0, 0]])
    drawn = np.asarray(draw(toy.SPACE, jax.random.key(0), parents, 300))
    assert np.asarray(toy.SPACE.validate(jnp.asarray(drawn))).all()
    distance = (drawn[:, None] != np.asarray(parents)).sum(axis=-1).min(axis=1)
    assert (distance[100:200] == 1).all() and set(distance[200:]) <= {0, 1, 2}
    assert (distance[200:] == 2).mean() > 0.5  # the second change is another one
    assert len(np.unique(drawn[:100], axis=0)) > 60
    space = macro.make()
    forms = draw(space, jax.random.key(0), jnp.zeros((1, 8), jnp.int32), 60)
    np.testing.assert_array_equal(jax.jit(space.canonical)(forms), forms)
