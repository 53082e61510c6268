"""The evolutionary stage of SPOS: what children are made of."""

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.methods.oneshot import ranking
from fnas_jax.methods.pgnas import posterior
from fnas_jax.methods.spos import evolution, method
from fnas_jax.methods.spos.config import Spos
from fnas_jax.spaces import categorical
from tests.methods import toy
from tests.methods.pgnas import toy as supernet_toy

SPACE = categorical.make((5,) * 16)


def best_of(*networks, places=4):
    """A ranking with these networks, and places that are free."""
    forms = jnp.asarray(networks, jnp.int32)
    empty = ranking.empty(places, forms.shape[1])
    return ranking.add(empty, forms, jnp.linspace(1.0, 0.5, len(forms)))


def test_a_crossover_takes_each_decision_of_one_of_its_parents():
    best = best_of([0] * 16, [1] * 16, [2] * 16)
    crossed = np.asarray(evolution.crossovers(best, jax.random.key(0), 3000))
    values = [set(row) for row in crossed.tolist()]
    assert all(len(found) <= 2 and found <= {0, 1, 2} for found in values)
    # Two parents are the same one in a third of the cases; halves of two others, on average.
    alone = np.mean([len(found) == 1 for found in values])
    assert abs(alone - 1 / 3) < 0.04
    of_two = crossed[[found == {0, 1} for found in values]]
    assert abs(of_two.mean() - 0.5) < 0.02


def test_a_mutation_draws_decisions_anew_with_its_probability():
    best = best_of([3] * 16)
    mutated = np.asarray(evolution.mutations(SPACE, best, 0.25, jax.random.key(0), 3000))
    # Four in five of the drawn values are other ones.
    assert abs((mutated != 3).mean() - 0.25 * 0.8) < 0.01
    same = evolution.mutations(SPACE, best, 0.0, jax.random.key(0), 10)
    np.testing.assert_array_equal(same, np.full((10, 16), 3))


def test_half_of_the_children_are_crossovers_and_half_mutations():
    best = best_of([0] * 16, [1] * 16)
    counts = set()
    for i in range(8):
        children = evolution.children(SPACE, best, 1.0, jax.random.key(i), 7, None)
        crossed = [set(row) == {0, 1} for row in np.asarray(children).tolist()]
        counts.add(sum(crossed))
    assert counts == {3, 4}  # which kind the odd one is of is chance, also of a single child


def test_children_are_new_allowed_and_differ():
    """Where crossovers and mutations give nothing new, uniform networks stand in."""
    best = best_of([3] * 16)  # a crossover with itself, and no mutation
    children = np.asarray(evolution.children(SPACE, best, 0.0, jax.random.key(0), 8, None))
    assert len(np.unique(children, axis=0)) == 8
    assert not (children == 3).all(-1).any()
    even = lambda archs: archs[:, 0] % 2 == 0  # noqa: E731
    children = np.asarray(evolution.children(SPACE, best, 0.3, jax.random.key(0), 8, even))
    assert (children[:, 0] % 2 == 0).all()


def test_networks_of_two_texts_are_one_child():
    space = toy.IDLE
    asked = jnp.asarray([[0, 3, 1, 2, 0], [1, 2, 0, 1, 1]])  # the first one's form has a 0
    best = ranking.add(ranking.empty(4, 5), asked, jnp.ones(2))
    children = evolution.children(space, best, 0.5, jax.random.key(0), 16, None)
    both = np.concatenate([space.canonical(children), space.canonical(asked)])
    assert len(np.unique(both, axis=0)) == 18
    # As drawn: a decision without effect stays its parents', as the weights are.
    idle = np.asarray(children)[np.asarray(children)[:, 0] == 0]
    assert (idle[:, 1] != 0).any()


def test_the_first_networks_keep_the_limits():
    low = lambda archs: archs[:, 0] == 0  # noqa: E731
    starts = evolution.starts(SPACE, jax.random.key(0), 8, low)
    assert (np.asarray(starts)[:, 0] == 0).mean() == 1
    uniform = evolution.starts(SPACE, jax.random.key(0), 8, None)
    np.testing.assert_array_equal(uniform, SPACE.sample(jax.random.key(0), 8))


def test_it_finds_better_networks_than_uniform_samples():
    """96 of 216 networks are asked for."""
    net = supernet_toy.make(posterior.make(toy.SPACE.cardinalities), None, steps=20)
    found = {}
    for sampling in ("evolution", "uniform"):
        config = Spos(sampling=sampling, start=24, parents=6, mutation=0.2)
        ctx = method.Context(toy.SPACE, net, config, 0.0, 8, lambda key: {"w": jnp.zeros((5, 4))})
        state, _ = toy.search(method.make(ctx, None), seeds=64, iterations=12)
        found[sampling] = float((np.asarray(state.best.reward) == 1).mean())
    assert found["evolution"] > 0.9 > 0.6 > found["uniform"]
