"""The mixture of Gaussian processes against plain NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats as scipy_stats

from fnas_jax.core.types import Features
from fnas_jax.methods import scores
from fnas_jax.methods.fnas import grid, improvement, processes, transfer
from fnas_jax.spaces import base
from tests.methods import toy

CARDS = toy.SPACE.cardinalities
ALL = base.enumerate_all(toy.SPACE)
TRUTH = np.asarray(toy.accuracy(np.asarray(ALL)), np.float32)
ROWS = 24
SEEN = np.random.default_rng(0).permutation(216)[:ROWS]
MASK = jnp.arange(ROWS) < 20
SCORES = scores.rank_scores(jnp.asarray(TRUTH)[SEEN], MASK)


def source(sign=1.0, tasks=1):
    task, nothing = (np.arange(216) % tasks).astype(np.int32), np.zeros((tasks + 1, 0), np.float32)
    return transfer.SourceTasks(np.asarray(ALL), sign * TRUTH, task, nothing, 60)


def fitted(ctx, mask=MASK, values=SCORES):
    state = jax.jit(partial(processes.init, ctx))(jax.random.key(0))
    return jax.jit(partial(processes.fit, ctx))(state, jnp.asarray(ALL[SEEN]), values, mask)


COLD = processes.Context(toy.SPACE, ROWS, None)
WARM = processes.Context(toy.SPACE, ROWS, source())
BY_FEATURES = np.float32([1.0, 1.0, 1.0])  # a reward that features say all of
TWO = processes.Context(toy.SPACE, ROWS, source(tasks=2))


posterior_of_cold = jax.jit(partial(processes.posterior, COLD))  # one program for all tests


@pytest.fixture(scope="module")
def cold():
    return fitted(COLD)


def reference_distance(code, x, y):
    """[n, m] as the module's docstring has it."""
    cards = np.asarray(CARDS)
    if code == 0:
        differ = (x[:, None] != y[None]).sum(-1)
        return differ / np.sum(1 - 1 / cards)
    by_how_much = (np.abs(x[:, None] - y[None]) / (cards - 1)).sum(-1)
    pairs = [np.abs(np.subtract.outer(np.arange(k), np.arange(k))).mean() / (k - 1) for k in cards]
    return by_how_much / np.sum(pairs)


@pytest.mark.parametrize("code", [0, 1])
def test_distances_count_what_differs_and_have_mean_one(code):
    got = np.asarray(grid.distances(toy.SPACE, jnp.asarray(ALL), jnp.asarray(ALL)).decisions)[code]
    np.testing.assert_allclose(got, reference_distance(code, ALL, ALL), atol=2e-5)
    np.testing.assert_allclose(got.mean(), 1, rtol=1e-4)


def test_decisions_between_two_have_one_code():
    assert len(grid.codes((2, 2, 1), jnp.zeros((1, 3), jnp.int32))) == 1


NUMBERS = np.random.default_rng(1).normal(size=(216, 3)).astype(np.float32)
NUMBERS = (NUMBERS - NUMBERS.mean(0)) / NUMBERS.std(0)
INFORMED = toy.SPACE._replace(
    features=Features(
        ("a", "b", "c"), lambda archs: jnp.asarray(NUMBERS)[archs @ base.place_values(CARDS)], "{}"
    )
)


def apart_by_features(x, y):
    """[n, m] of mean 1 over the space."""
    mine, theirs = (NUMBERS[archs @ base.place_values(CARDS)] for archs in (x, y))
    return ((mine[:, None] - theirs) ** 2).sum(-1) / 6


def test_features_have_a_distance_of_mean_one_and_points_of_the_grid():
    got = grid.distances(INFORMED, jnp.asarray(ALL), jnp.asarray(ALL[:50]))
    np.testing.assert_allclose(got.features, apart_by_features(ALL, ALL[:50]), atol=2e-5)
    assert apart_by_features(ALL, ALL).mean() == pytest.approx(1, rel=1e-4)
    plain, points = grid.grid(toy.SPACE), grid.grid(INFORMED)
    assert len(points.rate) == 2 * len(plain.rate)
    assert plain.share is None  # so that a search of before there were any can go on
    assert sorted(set(points.share.tolist())) == [0, 0.5]
    assert np.exp(points.log_prior).sum() == pytest.approx(1, rel=1e-5)


def component_of(state, u):
    index = int(state.used.place[u])
    return index, jax.tree.map(lambda x: np.asarray(x)[index].item(), state.components)


def kernel(component, x, y):
    share = component.share or 0.0
    distance = (1 - share) * reference_distance(component.code, x, y)
    if share:
        distance += share * apart_by_features(x, y)
    return np.exp(-component.rate * distance)


@pytest.mark.parametrize("space", [toy.SPACE, INFORMED], ids=["decisions", "features"])
def test_a_cold_component_is_a_gaussian_process(cold, space):
    state, found = cold, posterior_of_cold
    if space.features is not None:
        # Numbers that say all of the reward, so that components with them are the likeliest.
        ctx = processes.Context(space, ROWS, None)
        by_features = scores.rank_scores(jnp.asarray(NUMBERS[SEEN] @ BY_FEATURES), MASK)
        state, found = fitted(ctx, values=by_features), partial(processes.posterior, ctx)
        assert all(component_of(state, u)[1].share for u in range(processes.USED))
    values = SCORES if space.features is None else by_features
    found = jax.jit(found)(state, jnp.asarray(ALL))
    own, y = ALL[SEEN][:20], np.asarray(values)[:20]
    for u in range(processes.USED):
        _, c = component_of(state, u)
        full = kernel(c, own, own) + c.noise * np.eye(20)
        cross = kernel(c, own, ALL)
        square = y @ np.linalg.solve(full, y)
        amplitude = (square + processes.AMPLITUDE) / (20 + processes.AMPLITUDE)
        variance = 1 - np.einsum("ij,ij->j", cross, np.linalg.solve(full, cross)) + c.noise
        np.testing.assert_allclose(found.mean[u], cross.T @ np.linalg.solve(full, y), atol=2e-3)
        np.testing.assert_allclose(found.variance[u], amplitude * variance, atol=2e-3)
        density = scipy_stats.multivariate_normal(cov=amplitude * full).logpdf(y)
        constant = -10 * np.log(2 * np.pi) + np.log(len(state.components.rho))
        np.testing.assert_allclose(state.used.log_weight[u], density - constant, atol=2e-2)


def test_the_likeliest_components_are_used(cold):
    state = cold
    index = jnp.arange(len(state.components.rho))
    squared = grid.distances(toy.SPACE, state.archs, state.archs)
    one = partial(processes.condition, state, (SCORES, MASK), squared, None)
    weights = np.asarray(jax.jit(jax.vmap(one))(index).log_weight)
    best = np.argsort(-weights)[: processes.USED]
    np.testing.assert_array_equal(np.sort(state.used.place), np.sort(best))
    assert len(weights) == 2 * len(grid.RATES) * len(grid.NOISES)


@pytest.mark.parametrize("kind", ["one task", "two tasks", "features"])
def test_a_warm_component_is_the_joint_process_of_all_tasks(kind):
    ctx, truth, values = {"one task": WARM, "two tasks": TWO}.get(kind), TRUTH, SCORES
    if ctx is None:
        truth = NUMBERS @ BY_FEATURES
        values = scores.rank_scores(jnp.asarray(truth[SEEN]), MASK)
        ctx = processes.Context(INFORMED, ROWS, source()._replace(reward=truth))
    state = fitted(ctx, values=values)
    found = jax.jit(partial(processes.posterior, ctx))(state, jnp.asarray(ALL))
    found_of = [(u, component_of(state, u)[1]) for u in range(processes.USED)]
    u, c = next((u, c) for u, c in found_of if c.rho > 0)
    assert bool(c.share) == (kind == "features")
    other = np.asarray(state.foreign.archs)
    place = {tuple(a): i for i, a in enumerate(ALL)}
    rows = np.array([place[tuple(a)] for a in other])
    task = np.asarray(ctx.source.task)[rows]
    same = task[:, None] == task
    there = np.zeros(len(rows))
    for t in range(len(ctx.source.embedding) - 1):
        ranks = scipy_stats.rankdata(truth[rows][task == t])
        there[task == t] = scipy_stats.norm.ppf((ranks - 0.5) / len(ranks))
    own, y = ALL[SEEN][:20], np.asarray(values)[:20]
    among = kernel(c, other, other) * np.where(same, 1, c.rho) + c.noise * np.eye(len(rows))
    prior = c.rho * kernel(c, other, own).T @ np.linalg.solve(among, there)
    std = max(prior.std(), scores.LEAST_STD) / y.std()
    shift = prior.mean() - y.mean() * std
    joint = np.block(
        [
            [among, c.rho * kernel(c, other, own)],
            [c.rho * kernel(c, own, other), kernel(c, own, own) + c.noise * np.eye(20)],
        ]
    )
    cross = np.concatenate([c.rho * kernel(c, other, ALL), kernel(c, own, ALL)])
    mean = cross.T @ np.linalg.solve(joint, np.concatenate([there, shift + std * y]))
    variance = 1 - np.einsum("ij,ij->j", cross, np.linalg.solve(joint, cross)) + c.noise
    np.testing.assert_allclose(found.mean[u], (mean - shift) / std, atol=2e-2)
    amplitude = float(state.used.amplitude[u]) / std**2
    np.testing.assert_allclose(found.variance[u], amplitude * variance, rtol=2e-2, atol=2e-3)
    looked_through = jax.jit(partial(improvement.means, ctx))(state, jnp.asarray(ALL))
    np.testing.assert_allclose(looked_through, processes.mixture(state, found)[0], atol=2e-2)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_other_tasks_count_by_what_they_say_of_own_samples(sign):
    ctx = processes.Context(toy.SPACE, ROWS, source(sign))
    start = jax.jit(partial(processes.init, ctx))(jax.random.key(0))
    means = np.asarray(jax.jit(partial(processes.foreign_mean, ctx))(start, jnp.asarray(ALL)))
    assert sign * scipy_stats.kendalltau(means, TRUTH).statistic > 0.6
    assert float(processes.foreign_share(start)) > 0.99  # nothing speaks against them yet
    share = float(processes.foreign_share(fitted(ctx)))
    assert share > 0.9 if sign > 0 else share < 0.1


def test_own_scores_may_be_those_of_a_part_of_what_was_trained():
    """The best of a long search: their scores have neither mean 0 nor deviation 1."""
    rng = np.random.default_rng(0)
    mean, mask = rng.normal(size=30).astype(np.float32), np.arange(30) < 25
    values = (2 * mean + 1).astype(np.float32)
    shift, std = processes.where_own_scores_lie(values, mean, mask)
    np.testing.assert_allclose(shift + std * values[mask], mean[mask], atol=1e-5)
    none = processes.where_own_scores_lie(0 * values, mean, 0 * mask > 0)
    assert float(none[1]) == 1


def test_a_component_whose_factorisation_fails_is_not_used(cold):
    state = cold
    broken = state.components.noise.at[3].set(-2.0)
    state = state._replace(components=state.components._replace(noise=broken))
    state = jax.jit(partial(processes.fit, COLD))(state, jnp.asarray(ALL[SEEN]), SCORES, MASK)
    assert 3 not in np.asarray(state.used.place)
    assert np.isfinite(np.asarray(state.used.log_weight)).all()


def test_before_any_sample_the_best_by_other_tasks_is_picked():
    start = jax.jit(partial(processes.init, WARM))(jax.random.key(0))
    archs, new = jnp.asarray(ALL), jnp.ones(216, bool)
    picks, _ = jax.jit(lambda s: improvement.pick(WARM, s, jax.random.key(2), archs, new, 1, 8))(
        start
    )
    mean = processes.mixture(start, jax.jit(partial(processes.posterior, WARM))(start, archs))[0]
    assert int(picks[0]) in np.argsort(-np.asarray(mean))[:3]


def test_a_mixture_has_the_moments_of_a_mixture(cold):
    state = cold
    found = posterior_of_cold(state, jnp.asarray(ALL[:5]))
    share = np.asarray(jax.nn.softmax(state.used.log_weight))
    mean, std = processes.mixture(state, found)
    expected = share @ np.asarray(found.mean)
    within = share @ np.asarray(found.variance)
    between = share @ (np.asarray(found.mean) - expected) ** 2
    np.testing.assert_allclose(mean, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(std, np.sqrt(within + between), rtol=1e-3)


def test_a_believed_reading_shrinks_variances_as_a_sample_does(cold):
    state = cold
    archs = jnp.asarray(ALL)
    found = posterior_of_cold(state, archs)
    others = np.setdiff1d(np.arange(216), SEEN)[[3, 40, 41]]
    got = found._replace(own_cross=jnp.pad(found.own_cross, ((0, 0), (0, 3), (0, 0))))
    believe = jax.jit(partial(improvement.believe, COLD))
    for k, i in enumerate(others):
        got = believe(state, got, archs, i, ROWS + k)
    np.testing.assert_array_equal(got.mean, found.mean)
    for u in range(processes.USED):
        _, c = component_of(state, u)
        own = np.concatenate([ALL[SEEN][:20], ALL[others]])
        full = kernel(c, own, own) + c.noise * np.eye(23)
        cross = kernel(c, own, ALL)
        variance = 1 - np.einsum("ij,ij->j", cross, np.linalg.solve(full, cross)) + c.noise
        expected = float(state.used.amplitude[u]) * variance
        np.testing.assert_allclose(got.variance[u], expected, rtol=2e-2, atol=2e-3)


def test_picks_are_new_and_differ_and_the_first_improves_most(cold):
    state = cold
    archs = jnp.asarray(np.concatenate([ALL, ALL]))  # every candidate stands there twice
    new = jnp.asarray(~np.isin(np.arange(432) % 216, SEEN))
    picks, elite = jax.jit(
        lambda s: improvement.pick(COLD, s, jax.random.key(2), archs, new, 5, 8)
    )(state)
    assert np.asarray(new)[picks].all() and len(set(np.asarray(picks) % 216)) == 5
    found = posterior_of_cold(state, archs)
    value = np.where(new, improvement.log_improvement(state, found), -np.inf)
    assert value[picks[0]] == value.max()
    np.testing.assert_allclose(np.sort(value[np.asarray(elite)]), np.sort(value[:216])[-8:])
    # The second one improves most once the first is believed.
    found = found._replace(own_cross=jnp.pad(found.own_cross, ((0, 0), (0, 1), (0, 0))))
    found = jax.jit(partial(improvement.believe, COLD))(state, found, archs, picks[0], ROWS)
    open_ = np.asarray(new) & (np.arange(432) % 216 != int(picks[0]) % 216)
    value = np.where(open_, improvement.log_improvement(state, found), -np.inf)
    assert value[picks[1]] == value.max()


def test_means_are_those_of_the_posterior_without_variances():
    for ctx in (COLD, WARM):
        state = fitted(ctx)
        found = jax.jit(partial(processes.posterior, ctx))(state, jnp.asarray(ALL))
        mean, _ = processes.mixture(state, found)
        got = jax.jit(partial(improvement.means, ctx))(state, jnp.asarray(ALL))
        np.testing.assert_allclose(got, mean, atol=5e-3)


def test_a_shortlist_has_the_highest_means_and_others_at_random(monkeypatch):
    monkeypatch.setattr(improvement, "SHORT", 20)
    mean, new = jnp.arange(100.0), jnp.arange(100) != 99
    one, two = (np.asarray(improvement.shortlist(jax.random.key(k), mean, new)) for k in (0, 1))
    assert set(range(89, 99)) == set(one[:10]) and len(set(one)) == 20
    assert set(one[10:]) != set(two[10:]) and 99 not in one
    np.testing.assert_array_equal(
        improvement.shortlist(jax.random.key(0), mean[:9], new[:9]), range(9)
    )


def test_a_cold_fit_factorises_every_process_once():
    def within(jaxpr):
        found = 0
        for equation in jaxpr.eqns:
            inner = [
                getattr(p, "jaxpr", p) for p in jax.tree.leaves(list(equation.params.values()))
            ]
            found += equation.primitive.name == "cholesky"
            found += sum(within(p) for p in inner if hasattr(p, "eqns"))
        return found

    def factorised(function, *given):
        return within(jax.make_jaxpr(function)(*given).jaxpr)

    state = jax.eval_shape(lambda: processes.init(COLD, jax.random.key(0)))
    archs, squared = jnp.asarray(ALL[SEEN]), jnp.zeros((2, ROWS, ROWS))
    squared = grid.Distances(squared, None)
    one = factorised(
        lambda s: processes.condition(s, (SCORES, MASK), squared, None, jnp.int32(0)), state
    )
    whole = factorised(lambda s: processes.fit(COLD, s, archs, SCORES, MASK), state)
    assert whole == one > 0
