"""Every method, where a table lacks most of its space: it asks for what is there, and no other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax import registry, scan
from fnas_jax.core.config import default
from fnas_jax.methods import candidates, existing
from fnas_jax.methods.rl import policy as policies
from fnas_jax.spaces import categorical
from fnas_jax.tasks import tabular
from tests.methods import toy

ROWS = np.unique(np.random.default_rng(0).integers(0, 4, (40, 12)), axis=0)  # of 4^12
CARDS = (4,) * 12
BATCH = 4


@pytest.fixture
def config(tmp_path):
    head = ",".join(f"decision_{t}" for t in range(12))
    lines = [",".join(map(str, row)) + f",{row.mean() / 4}" for row in ROWS]
    (tmp_path / "t.csv").write_text("\n".join([head + ",acc", *lines]))
    found = default()
    found.update_from_flattened_dict(
        toy.SMALL_FNAS
        | {
            "task.name": f"tabular/{tmp_path}/t.csv",
            "search.budget": 50,
            "search.batch": BATCH,
            "evolution.population": 8,
            "evolution.sample": 3,
            "bananas.steps": 10,
        }
    )
    return found


def trace_of(config, name, iterations, seeds=2):
    """[S, I, N, ..] the trace of `seeds` whole searches under jit and vmap, and what is left."""
    config.method.name = name
    task = tabular.build(config)
    build = registry.importlib.import_module(registry.METHODS[name]).build
    method, evaluator = build(config, task.space, task, None)
    keys = jax.random.split(jax.random.key(1), seeds)
    run = jax.vmap(lambda key: scan.run(method, evaluator, key, iterations))
    _, known, trace = jax.jit(run)(keys)
    return trace, np.asarray(jax.vmap(evaluator.left)(known))


@pytest.mark.parametrize(
    "name",
    [
        "random",
        "evolution",
        "local",
        "gp",
        pytest.param("bananas", marks=pytest.mark.slow),
        "tpe",
        "ppo",
        pytest.param("fnas", marks=pytest.mark.slow),
        pytest.param("tnas", marks=pytest.mark.slow),
    ],
)
def test_methods_ask_for_nothing_that_the_table_lacks(config, name):
    trace, left = trace_of(config, name, 12)
    rows = {tuple(row) for row in ROWS.tolist()}
    asked = np.asarray(trace.archs).reshape(-1, 12).tolist()
    assert {tuple(arch) for arch in asked} <= rows
    trained = np.asarray(trace.fresh).sum(axis=(1, 2))
    np.testing.assert_array_equal(trained + left, len(ROWS))
    if name not in ("ppo", "fnas"):  # which repeat what they like, or predict the rest
        np.testing.assert_array_equal(left, 0)


def test_unasked_ones_are_uniform_and_come_first():
    rows, asked = jnp.arange(5)[:, None], jnp.array([True, False, False, True, False])
    drawn, after = existing.unasked(rows, asked, jax.random.key(0), 4)
    assert set(np.asarray(drawn)[:3, 0]) == {1, 2, 4} and int(drawn[3, 0]) in (0, 3)
    assert np.asarray(after).all()
    first = jax.jit(jax.vmap(lambda key: existing.unasked(rows, asked, key, 1)[0][0, 0]))
    counts = np.bincount(np.asarray(first(jax.random.split(jax.random.key(1), 900))), minlength=5)
    assert (counts[[0, 3]] == 0).all() and counts[[1, 2, 4]].min() > 240
    assert existing.unasked(rows, asked, jax.random.key(0), 8)[0].shape == (8, 1)


def test_the_nearest_are_those_by_hamming_distance_and_none_twice():
    rows, key = jnp.asarray(ROWS), jax.random.key(0)
    none, nearest = np.zeros(len(ROWS), bool), jax.jit(existing.nearest)
    wanted = jnp.asarray(np.random.default_rng(1).integers(0, 4, (6, 12)))
    found, asked = nearest(rows, none, key, wanted)
    taken = []
    for arch, got in zip(np.asarray(wanted), np.asarray(found), strict=True):
        free = [row for row in ROWS.tolist() if row not in taken]
        distances = [np.sum(arch != row) for row in free]
        assert np.sum(arch != got) == min(distances)
        taken.append(got.tolist())
    assert np.asarray(asked).sum() == 6 and len({tuple(a) for a in taken}) == 6
    every = np.ones(len(ROWS), bool)
    np.testing.assert_array_equal(nearest(rows, every, key, ROWS[3:5])[0], ROWS[3:5])


def test_each_has_its_nearest_whatever_the_others_have():
    rows, wanted = jnp.asarray(ROWS), np.random.default_rng(2).integers(0, 4, (9, 12))
    found = np.asarray(existing.nearest_of_each(rows, jax.random.key(0), jnp.asarray(wanted)))
    for arch, got in zip(wanted, found, strict=True):
        assert got.tolist() in ROWS.tolist()
        assert np.sum(arch != got) == min(np.sum(arch != row) for row in ROWS)
    same = existing.nearest_of_each(rows, jax.random.key(0), rows[jnp.array([3, 3, 5])])
    np.testing.assert_array_equal(same, ROWS[[3, 3, 5]])
    # Of equally near ones each comes.
    two, between = jnp.array([[0, 0], [1, 1]]), jnp.tile(jnp.array([[0, 1]]), (200, 1))
    share = np.asarray(existing.nearest_of_each(two, jax.random.key(1), between))[:, 0].mean()
    assert 0.3 < share < 0.7


def test_candidates_are_near_their_parents_and_exist():
    rows, parents = jnp.asarray(ROWS), jnp.asarray(ROWS[:2])
    space = categorical.make(CARDS)
    drawn = np.asarray(candidates.draw(space, jax.random.key(0), parents, 30, rows))
    assert drawn.shape == (30, 12)
    assert {tuple(a) for a in drawn.tolist()} <= {tuple(a) for a in ROWS.tolist()}
    for i, arch in enumerate(drawn[10:12]):  # the nearest of each is itself
        np.testing.assert_array_equal(arch, ROWS[i])
    listed = candidates.listed(space, 100, existing=rows)
    np.testing.assert_array_equal(listed, ROWS)
    assert candidates.listed(space, 10, existing=rows) is None


def test_a_policy_over_what_exists_is_a_distribution_over_it():
    cards = (3, 2, 4)
    rows = jnp.array([[0, 0, 1], [0, 1, 3], [2, 1, 0], [2, 1, 2]])
    policy = policies.Policy(cards, hidden=8, head_scale=8.0, existing=rows)
    params = jax.jit(functools.partial(policies.init, policy))(jax.random.key(0))
    judge = jax.jit(functools.partial(policies.log_prob_and_entropy, policy, params))
    log_prob, _ = judge(rows)
    np.testing.assert_allclose(np.exp(log_prob).sum(), 1, rtol=1e-5)
    sample = jax.jit(lambda key: policies.sample(policy, params, key, 4000))
    drawn, of_drawn = jax.device_get(sample(jax.random.key(1)))
    places = (drawn[:, None] == np.asarray(rows)).all(axis=2)
    assert places.any(axis=1).all()
    np.testing.assert_allclose(of_drawn, judge(drawn)[0], atol=1e-4)
    np.testing.assert_allclose(places.mean(axis=0), np.exp(log_prob), atol=0.03)
    # It is the policy over all, given what was chosen before, among what can still be reached.
    free = policy._replace(existing=None)
    first = jnp.array([[0, 0, 0], [2, 0, 0]])
    pi = np.exp(jax.jit(functools.partial(policies.log_prob_and_entropy, free))(params, first)[0])
    assert np.isfinite(pi).all()
    summed = lambda p: policies.log_prob_and_entropy(policy, p, rows)[0].sum()  # noqa: E731
    gradient = jax.jit(jax.grad(summed))(params)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
    # Of what does not exist something finite is said: it never weighs anything.
    assert np.isfinite(judge(jnp.array([[1, 0, 0]]))[0]).all()
