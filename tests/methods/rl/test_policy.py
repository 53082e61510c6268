"""The policy: a distribution over architectures, its samples, log-probabilities and entropy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.methods.rl import policy as policies
from fnas_jax.spaces import base, categorical

CARDS = (3, 2, 4, 1, 2)
ALL = base.enumerate_all(categorical.make(CARDS))  # 48 architectures
POLICY = policies.Policy(CARDS, hidden=8, head_scale=30.0)  # far from uniform
PARAMS = jax.jit(partial(policies.init, POLICY))(jax.random.key(1))
JUDGE = jax.jit(partial(policies.log_prob_and_entropy, POLICY))
SAMPLE = jax.jit(partial(policies.sample, POLICY), static_argnums=2)
LOG_PROB, ENTROPY = map(np.asarray, JUDGE(PARAMS, ALL))


def numpy_log_prob(params, arch):
    """One architecture, written out with plain loops."""
    embed, recur, head, bias = map(np.asarray, params)
    hidden = recur.shape[0]
    h, c, total, previous = np.zeros(hidden), np.zeros(hidden), 0.0, 0

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    for t, k in enumerate(CARDS):
        gates = embed[t, previous] + h @ recur
        i, f, g, o = (gates[j * hidden : (j + 1) * hidden] for j in range(4))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        logits = (h @ head[t] + bias[t])[:k]
        total += logits[arch[t]] - np.log(np.exp(logits).sum())
        previous = arch[t]
    return total


def test_probabilities_sum_to_one():
    np.testing.assert_allclose(np.exp(LOG_PROB).sum(), 1, rtol=1e-5)
    assert np.exp(LOG_PROB).max() > 3 / 48  # the test is about something


def test_log_prob_equals_a_loop_in_numpy():
    expected = [numpy_log_prob(PARAMS, arch) for arch in ALL]
    np.testing.assert_allclose(LOG_PROB, expected, rtol=1e-4, atol=1e-5)


def test_sampled_frequencies_are_the_probabilities():
    n = 40_000
    archs, log_prob = SAMPLE(PARAMS, jax.random.key(2), n)
    weights = np.append(np.cumprod(CARDS[:0:-1])[::-1], 1)
    code = np.asarray(archs) @ weights
    frequency = np.bincount(code, minlength=48) / n
    p = np.exp(LOG_PROB)
    assert np.abs((frequency - p) / np.sqrt(p * (1 - p) / n)).max() < 4.5
    np.testing.assert_allclose(log_prob, LOG_PROB[code], rtol=1e-4, atol=1e-5)


def test_mean_of_path_entropies_is_the_entropy_of_the_policy():
    p = np.exp(LOG_PROB)
    np.testing.assert_allclose((p * ENTROPY).sum(), -(p * LOG_PROB).sum(), rtol=1e-4)


def test_a_new_policy_is_nearly_uniform():
    policy = policies.Policy(CARDS, hidden=32)
    params = jax.jit(partial(policies.init, policy))(jax.random.key(0))
    judge = jax.jit(partial(policies.log_prob_and_entropy, policy))
    log_prob, entropy = judge(params, jnp.asarray(ALL))
    np.testing.assert_allclose(log_prob, -np.log(48), atol=0.02)
    np.testing.assert_allclose(entropy, np.log(48), atol=1e-3)


def test_choices_that_do_not_exist_are_never_sampled_and_get_no_gradient():
    archs, _ = SAMPLE(PARAMS, jax.random.key(3), 500)
    assert (np.asarray(archs) < np.array(CARDS)).all()
    gradient = jax.jit(jax.grad(lambda p: sum(x.sum() for x in JUDGE(p, ALL))))(PARAMS)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    np.testing.assert_array_equal(gradient.bias[1, 2:], 0)
    np.testing.assert_array_equal(gradient.bias[3], 0)


def test_later_decisions_do_not_change_earlier_probabilities():
    def first_two(arch):
        """log pi of a prefix: summed over all completions."""
        same = (ALL[:, :2] == arch[:2]).all(axis=1)
        return np.log(np.exp(LOG_PROB[same]).sum())

    first = [first_two(arch) for arch in ALL]
    prefix, index = np.unique(ALL[:, :2], axis=0, return_index=True)
    assert len(prefix) == 6
    np.testing.assert_allclose(np.exp(np.array(first)[index]).sum(), 1, rtol=1e-5)


@pytest.mark.parametrize("wrong", [(4, 4), (4, 6)])
def test_wrong_shapes_are_refused(wrong):
    with pytest.raises(AssertionError):
        JUDGE(PARAMS, jnp.zeros(wrong, jnp.int32))


def test_marginals_are_those_of_all_architectures():
    p = np.exp(LOG_PROB)
    found = np.asarray(
        jax.jit(partial(policies.marginals, POLICY, n=20_000))(PARAMS, key=jax.random.key(4))
    )
    archs = np.asarray(ALL)
    for t, k in enumerate(CARDS):
        exact = np.bincount(archs[:, t], weights=p, minlength=found.shape[1])
        np.testing.assert_allclose(found[t], exact, atol=0.015)
        assert (found[t, k:] == 0).all()
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-4)
