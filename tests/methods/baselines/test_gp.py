"""The Gaussian process against textbook formulas and on a problem with a known answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fnas_jax.core.config import default
from fnas_jax.core.types import UserError
from fnas_jax.methods.baselines import gp
from fnas_jax.methods.baselines.config import ACQUISITIONS, Gp
from fnas_jax.spaces import macro
from fnas_jax.spaces.enumerate import enumerate_networks
from tests.methods import toy

FORMS = enumerate_networks(toy.SPACE)


@pytest.fixture(scope="module", params=[20_000, 10], ids=["listed", "drawn"])
def searched(request):
    """Four searches; the space of 216 is listed whole, or too large for that."""
    method = gp.make(
        toy.SPACE, Gp(start=6, noise=0.01), 2, capacity=60, most_listed=request.param, pool=96
    )
    return method, *toy.search(method, 4, 28)


def test_it_finds_the_best_in_a_quarter_of_the_space(searched):
    _, state, trace = searched
    assert (np.asarray(trace.reward).max(axis=(1, 2)) > 0.99).all()
    assert np.asarray(state.best.reward).min() > 0.99


def test_no_network_is_proposed_twice(searched):
    _, state, trace = searched
    assert np.asarray(trace.fresh).all()
    for archs in np.asarray(trace.archs):
        assert len(np.unique(archs.reshape(-1, 5), axis=0)) == 56
    assert (np.asarray(state.places) == 56).all()


def test_the_factor_grown_row_by_row_is_the_cholesky_factor(searched):
    _, state, _ = searched
    forms = np.asarray(state.canonical[0])[:56]
    distance = (forms[:, None] != forms).sum(axis=-1)
    expected = np.linalg.cholesky(np.exp(-distance / 2) + 0.01 * np.eye(56))
    factor = np.linalg.inv(np.asarray(state.white[0], np.float64)[:56, :56])
    np.testing.assert_allclose(factor, expected, atol=2e-4)


@pytest.mark.parametrize("acquisition", ACQUISITIONS)
def test_the_choice_is_that_of_the_textbook(acquisition):
    method = gp.make(toy.SPACE, Gp(acquisition, start=8, noise=0.01, beta=0.7), 1, 40)
    state, _ = toy.search(method, 1, 20)
    state = jax.tree.map(lambda x: x[0], state)
    known, rewards = np.asarray(state.canonical)[:20], np.asarray(state.rewards)[:20]
    y = stats.norm.ppf((stats.rankdata(rewards) - 0.5) / 20)

    def kernel(a, b):
        return np.exp(-(a[:, None] != b).sum(axis=-1) / 2)

    inverse = np.linalg.inv(kernel(known, known) + 0.01 * np.eye(20))
    cross = kernel(FORMS, known)
    mean = cross @ inverse @ y
    sd = np.sqrt(1 - np.einsum("ij,jk,ik->i", cross, inverse, cross))
    z = (mean - y.max()) / sd
    value = {"ei": sd * (z * stats.norm.cdf(z) + stats.norm.pdf(z)), "ucb": mean + 0.7 * sd}
    value = value[acquisition]
    value[(FORMS[:, None] == known).all(-1).any(1)] = -np.inf
    _, proposal = jax.jit(method.ask)(state, jax.random.key(0))
    chosen = (np.asarray(proposal.archs[0]) == FORMS).all(axis=1).argmax()
    assert value[chosen] >= value.max() - 2e-3 * abs(value.max())


def test_failed_children_are_the_worst_and_the_state_keeps_its_shape():
    method = toy.compiled(gp.make(toy.SPACE, Gp(start=3), 3, 9))
    state = method.init(jax.random.key(0))
    asked, proposal = method.ask(state, jax.random.key(1))
    told = method.tell(asked, proposal, toy.metrics([0.2, 0.9, 0.4], ok=[True, False, True]))
    assert np.asarray(told.observed).sum() == 3
    np.testing.assert_allclose(told.rewards[:3], [0.2, 0.0, 0.4])
    np.testing.assert_allclose(told.best.reward, 0.4)
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (state, asked, told)]
    assert shapes[0] == shapes[1] == shapes[2]


def test_beyond_its_capacity_it_goes_on_without_learning():
    method = gp.make(toy.SPACE, Gp(start=2), 4, capacity=6)
    state, trace = toy.search(method, 2, 4)
    assert (np.asarray(state.places) == 6).all() and np.asarray(state.observed).all()
    assert trace.archs.shape == (2, 4, 4, 5)


def test_forms_of_macro_are_its_3969_networks():
    forms = enumerate_networks(macro.make())
    assert forms.shape == (3969, 8)
    np.testing.assert_array_equal(macro.canonical(jnp.asarray(forms)), forms)


def test_unknown_acquisitions_are_refused_and_the_builder_reads_the_config():
    with pytest.raises(UserError, match="'pi' is none of ei, ucb"):
        gp.make(toy.SPACE, Gp(acquisition="pi"), 1, 9)
    config = default()
    config.search.batch = 2

    class Task:
        evaluator, allowed, existing, refuses = "evaluator", None, None, False

    method, evaluator = gp.build(config, toy.SPACE, Task, None)
    method = toy.compiled(method)
    _, proposal = method.ask(method.init(jax.random.key(0)), jax.random.key(1))
    assert evaluator == "evaluator" and proposal.archs.shape == (2, 5)
