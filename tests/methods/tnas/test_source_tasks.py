"""Source tasks: standardised within tasks, joined by network, named by their content."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fnas_jax.methods.tnas import source_tasks
from fnas_jax.spaces import macro
from tests.methods.tnas import small


def test_scores_are_standardised_within_each_task():
    values, mask = jnp.array([3.0, 1.0, 2.0, 99.0]), jnp.array([True, True, True, False])
    scores = source_tasks.standardise(values, mask, "standard")
    np.testing.assert_allclose(scores, [np.sqrt(1.5), -np.sqrt(1.5), 0, 0], atol=1e-4)
    ranked = source_tasks.standardise(values, mask, "rank")
    assert ranked[0] > ranked[2] > ranked[1] and ranked[3] == 0
    known = small.known(rows=30)
    np.testing.assert_allclose(known.scores.mean(axis=1), 0, atol=1e-5)


def test_many_rows_are_ranked_without_a_table_of_all_pairs():
    """All at once, as `gather` has them; they are those of a comparison of all with all."""
    rows = 1024
    ranked = jax.jit(jax.vmap(source_tasks.standardise))
    values = np.random.default_rng(0).integers(0, 300, (2, rows)).astype(np.float32)
    mask = np.arange(rows) % 7 > 0
    mask = np.stack([mask, ~mask])
    assert f"{rows}x{rows}" not in ranked.lower(values, mask).as_text()
    below = ((values[:, None] < values[:, :, None]) & mask[:, None]).sum(axis=2)
    equal = ((values[:, None] == values[:, :, None]) & mask[:, None]).sum(axis=2)
    share = (below + 0.5 * equal) / mask.sum(axis=1, keepdims=True)
    expected = np.where(mask, stats.norm.ppf(share), 0.0)
    np.testing.assert_allclose(ranked(values, mask), expected, atol=1e-5)


def test_equal_networks_of_a_task_are_one_row_with_their_mean():
    archs = np.array([[2] * 4 + [0, 2, 2, 2], [2, 2, 2, 0, 2, 2, 2, 2], [1] * 8, [1] * 8])
    found = source_tasks.gather(
        macro.make(),
        archs,
        np.array([0.4, 0.6, 0.1, 0.9]),
        np.array([0, 0, 0, 1]),
        None,
        "standard",
    )
    assert found.mask.tolist() == [[True, True], [True, False]]
    twin = np.asarray(found.archs[0] == macro.canonical(jnp.asarray(archs[:1]))).all(axis=1)
    np.testing.assert_allclose(found.scores[0][twin], [1.0], atol=1e-3)  # 0.5 against 0.1


def test_tasks_are_joined_network_by_network():
    """As a dictionary of networks would, in the order of their decisions."""
    space, rng = macro.make(), np.random.default_rng(0)
    archs = rng.integers(0, 3, (300, 8))[rng.integers(0, 100, 300)]
    reward, task = rng.uniform(size=300), rng.integers(0, 3, 300)
    forms = np.asarray(space.canonical(jnp.asarray(archs, jnp.int32)))
    found = source_tasks.gather(space, archs, reward, task, None, "standard")
    for q in range(3):
        seen: dict[tuple[int, ...], list[float]] = {}
        for form, value in zip(forms[task == q].tolist(), reward[task == q], strict=True):
            seen.setdefault(tuple(form), []).append(value)
        own = np.asarray(found.mask[q])
        assert own.tolist() == [True] * len(seen) + [False] * (len(own) - len(seen))
        assert found.archs[q][own].tolist() == [list(form) for form in sorted(seen)]
        mean = np.array([np.mean(seen[form]) for form in sorted(seen)])
        standard = (mean - mean.mean()) / mean.std()
        np.testing.assert_allclose(found.scores[q][own], standard, atol=1e-3)


@pytest.mark.parametrize("choices", [3, 10**7])  # one number holds ten decisions, or does not
def test_different_rows_are_those_of_numpy(choices):
    archs = np.random.default_rng(0).integers(-1, 2, (200, 10)).astype(np.int32)
    archs = np.where(archs == 1, choices - 1, archs)[np.arange(400) % 150]
    rows, place = source_tasks.different(archs)
    expected, index = np.unique(archs, axis=0, return_inverse=True)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(place, index.reshape(-1))


def test_the_support_keeps_the_best_half():
    whole = small.known(rows=60)
    assert source_tasks.support(whole, 120) is whole
    some = source_tasks.support(whole, 40)
    assert some.mask.sum() == 40
    for q in range(2):
        best = np.sort(whole.scores[q])[-10:]
        assert np.isin(best, some.scores[q]).all()
        assert some.scores[q].min() < np.median(whole.scores[q])


def test_the_digest_tells_rows_apart_but_not_their_order():
    whole = small.known(rows=20)
    name = source_tasks.digest(["a", "b"], whole)
    turned = whole._replace(
        archs=whole.archs[:, ::-1], scores=whole.scores[:, ::-1], mask=whole.mask[:, ::-1]
    )
    assert source_tasks.digest(["a", "b"], turned) == name
    assert source_tasks.digest(["a", "c"], whole) != name
    other = whole._replace(scores=whole.scores.at[0, 0].add(0.1))
    assert source_tasks.digest(["a", "b"], other) != name
    told = whole._replace(vectors=jnp.ones((3, 2)))
    assert source_tasks.digest(["a", "b"], told) != name
    assert source_tasks.codes_needed(whole) == source_tasks.codes_needed(told) == 2


@pytest.mark.parametrize("most", [16, 33])
def test_supports_of_any_size_are_whole_rows(most):
    some = source_tasks.support(small.known(rows=60, tasks=3), most)
    assert 2 * 3 <= some.mask.sum() <= most
    assert np.asarray(some.scores)[~np.asarray(some.mask)].sum() == 0
