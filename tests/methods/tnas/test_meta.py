"""Meta-learning: single steps against their definition, and that it learns."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fnas_jax.methods.tnas import losses, meta, networks
from tests.methods.tnas import small

KNOWN = small.known()


def iterate(ctx, w, train, key):
    """One iteration from weights `w`, compiled."""
    return jax.jit(functools.partial(meta.iterate, ctx))(meta.init(w), train, key)


def difference(a, b):
    return max(
        float(np.abs(x - y).max()) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)
    )


@pytest.fixture(scope="module")
def trained():
    ctx = small.learner(dataclasses.replace(small.SMALL, iterations=30), KNOWN, checks=3)
    return jax.jit(lambda key: meta.fit(ctx, small.weights(), key))(jax.random.key(0))


def test_the_loss_is_the_negative_log_density_of_scipy():
    from scipy import stats

    rng = np.random.default_rng(0)
    xi, score = rng.normal(size=(7, 3)), rng.normal(size=7)
    task = np.array([0, 0, 0, 1, 1, 2, 2])
    p = networks.start_hyper()
    rows = losses.Rows(*map(jnp.asarray, (xi, task, score)), jnp.ones(7, bool))
    r = np.sqrt(5) * np.linalg.norm(xi[:, None] - xi, axis=-1) / 2
    k = (1 + r + r**2 / 3) * np.exp(-r)
    k *= np.where(task[:, None] == task, 1, 1 / (1 + np.exp(-2)))
    expected = -stats.multivariate_normal(np.zeros(7), k + 0.05 * np.eye(7)).logpdf(score)
    density = jax.jit(losses.negative_log_likelihood)
    np.testing.assert_allclose(density(p, rows), expected, rtol=1e-4)
    known, new = jax.tree.map(lambda x: x[:5], rows), jax.tree.map(lambda x: x[5:], rows)
    mean = jax.jit(losses.predict)(p, known, new.xi, new.task).mean
    inverse = np.linalg.inv(k[:5, :5] + 0.05 * np.eye(5))
    np.testing.assert_allclose(mean, k[5:, :5] @ inverse @ score[:5], atol=1e-4)


@pytest.mark.parametrize("method", [pytest.param("reptile", marks=pytest.mark.slow), "joint"])
def test_one_step_is_adams_and_reptile_takes_a_fraction_of_it(method):
    """One task and one inner step: both are Adam on that mini-batch, Reptile times `outer`."""
    config = dataclasses.replace(small.SMALL, meta=method, tasks=1, inner=1, outer=0.25)
    ctx = small.learner(config, KNOWN)
    w, train = small.weights(), jnp.asarray(np.asarray(KNOWN.mask) & [[True], [False]])
    key = jax.random.key(5)
    state = iterate(ctx, w, train, key)
    _, key_steps = jax.random.split(key)
    key_loss = jax.random.split(key_steps, (1, 1))[0, 0]
    slope = jax.jit(jax.grad(lambda w: meta.loss(ctx, train, w, jnp.int32(0), key_loss)))(w)
    clip = jax.jit(optax.clip_by_global_norm(10.0).update)
    clipped = jax.device_get(clip(slope, optax.EmptyState())[0])
    share = 0.25 if method == "reptile" else 1.0
    rates = meta.rates(config, w)
    expected = jax.tree.map(
        lambda x, g, r: x - np.float32(share) * r * g / (np.abs(g) + np.float32(1e-8)),
        jax.device_get(w),
        clipped,
        jax.device_get(rates),
    )
    # Adam divides gradients by themselves: where they are nearly 0, rounding decides.
    wrong, slope = (
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])
        for tree in (jax.tree.map(np.subtract, jax.device_get(state.weights), expected), clipped)
    )
    clear = (slope == 0) | (np.abs(slope) > 1e-5)
    assert np.abs(wrong[clear]).max() < 1e-6 and clear.mean() > 0.5
    assert np.abs(wrong).max() < 1e-4
    assert state.iteration == 1


def test_it_predicts_rows_held_out(trained):
    assert trained.iteration == 30
    assert trained.tau > 0.6
    assert difference(trained.best, small.weights()) > 1e-3


@pytest.mark.slow
def test_parts_of_a_training_are_the_training(trained):
    ctx = small.learner(dataclasses.replace(small.SMALL, iterations=30), KNOWN, checks=3)
    advance = jax.jit(lambda s: meta.advance(ctx, s, jax.random.key(0)))
    state = meta.init(small.weights())
    for _ in range(3):
        state = advance(state)
    assert difference(state.best, trained.best) < 1e-4
    np.testing.assert_allclose(state.tau, trained.tau, atol=1e-5)


@pytest.mark.parametrize(("iterations", "checks"), [(11, 10), (25, 10), (7, 3), (2, 10), (12, 4)])
def test_a_training_has_the_iterations_it_was_given(monkeypatch, iterations, checks):
    """Whatever the number of checks; the way that Reptile takes falls to 0 and no lower."""
    ends = lambda ctx, w, train, task, keys: jax.tree.map(lambda x: x + 1, w)  # noqa: E731
    monkeypatch.setattr(meta, "inner_loop", ends)
    monkeypatch.setattr(meta, "check", lambda ctx, w, parts, key: w.hyper.share)
    config = dataclasses.replace(small.SMALL, iterations=iterations)
    ctx = small.learner(config, KNOWN, checks)
    state = jax.jit(lambda key: meta.fit(ctx, small.weights(), key))(jax.random.key(0))
    assert state.iteration == iterations
    # outer (1 + (n - 1) / n + .. + 1 / n), the last of them judged as well
    way = state.best.hyper.share - small.weights().hyper.share
    np.testing.assert_allclose(way, config.outer * (iterations + 1) / 2, rtol=1e-5)


def test_a_fifth_of_many_tasks_is_held_out_whole_and_of_few_tasks_rows():
    many = small.known(tasks=6, rows=20)
    parts = jax.jit(meta.split)(many, jax.random.key(0))
    assert sorted(np.asarray(parts.check).sum(axis=1)) == [0, 0, 0, 0, 20, 20]
    assert not (parts.check & parts.train).any()
    few = jax.jit(meta.split)(KNOWN, jax.random.key(0))
    assert 8 < few.check.sum() < 40 and (few.check | few.train).sum() == 120


def test_a_check_sees_the_rows_that_it_is_given_and_no_others(monkeypatch):
    def embed(space, config, w, source, task, row):
        return losses.Rows(row, task, source.scores[task, row], jnp.ones(len(task), bool))

    monkeypatch.setattr(losses, "embed_rows", embed)
    mask = (jnp.arange(120) % 9 == 4).reshape(2, 60)
    some = jax.jit(functools.partial(meta.some_rows, small.learner()))
    rows = jax.tree.map(np.asarray, some(small.weights(), mask, jax.random.key(0)))
    seen = np.zeros((2, 60), int)
    np.add.at(seen, (rows.task[rows.mask], rows.xi[rows.mask]), 1)
    np.testing.assert_array_equal(seen, mask)


def test_minibatches_have_different_rows_of_the_task():
    mask = jnp.zeros((2, 30), bool).at[1, :9].set(True)
    row, valid = meta.draw(mask, jax.random.key(0), jnp.int32(1), 12)
    assert sorted(np.asarray(row)[np.asarray(valid)]) == list(range(9))


@pytest.mark.slow
def test_rho_is_learnt_from_pairs_of_tasks_only(trained):
    """One task alone says nothing about what tasks have in common."""
    alone = KNOWN._replace(**{f: getattr(KNOWN, f)[:1] for f in ("archs", "scores", "mask")})
    w = small.weights(tasks=1)
    ctx = small.learner(source=alone)
    state = iterate(ctx, w, alone.mask, jax.random.key(1))
    assert state.weights.hyper.share == w.hyper.share
    assert trained.weights.hyper.share != w.hyper.share
    # More tasks than there are cannot be picked, so it is the same iteration with one.
    one = small.learner(dataclasses.replace(small.SMALL, tasks=1), alone)
    again = iterate(one, w, alone.mask, jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, state.weights, again.weights)
