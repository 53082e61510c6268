"""The initial design."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.methods.tnas import design, method
from fnas_jax.methods.tnas.source_tasks import SourceTasks
from tests.methods import toy
from tests.methods.tnas import small


def first(ctx, key):
    """The initial design of a search, in one program."""

    @jax.jit
    def run(key):
        state = method.init(ctx, jax.random.key(0))
        return design.initial(ctx, state.cold, state.warm, key)

    return run(key)


def test_medoids_are_those_of_a_search_by_hand():
    xi = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
    distance = np.linalg.norm(xi[:, None] - xi, axis=-1)
    chosen = [3]
    for _ in range(3):
        costs = [
            np.minimum(distance[:, chosen].min(axis=1), distance[:, j]).sum() for j in range(12)
        ]
        chosen.append(min((c, j) for j, c in enumerate(costs) if j not in chosen)[1])
    got = jax.jit(design.k_medoids, static_argnums=2)(xi, jnp.int32(3), 4)
    np.testing.assert_array_equal(got, chosen)


def test_the_top_k_are_judged_by_source_tasks_where_these_know_them():
    archs = jnp.arange(6)[:, None]
    known = SourceTasks(
        jnp.array([[[0], [1]], [[0], [2]]]),
        jnp.array([[1.0, 0.2], [0.0, -1.0]]),
        jnp.ones((2, 2), bool),
    )
    predicted = jnp.array([9.0, 9.0, 9.0, 0.3, 0.6, -2.0])
    best, score = jax.device_get(jax.jit(design.top_k)(known, archs, predicted))
    finite = np.isfinite(score)
    np.testing.assert_array_equal(best[finite][:, 0], [4, 0, 3, 1, 2, 5])
    np.testing.assert_allclose(score[finite], [0.6, 0.5, 0.3, 0.2, -1.0, -2.0])


@pytest.mark.parametrize("most_listed", [1000, 10], ids=["listed", "drawn"])
def test_the_initial_design_is_canonical_different_and_of_the_asked_size(most_listed):
    config = dataclasses.replace(small.SMALL, start=4, start_warm=3, pool=48)
    for source in (None, small.known()):
        ctx = small.context(config, source=source, most_listed=most_listed)
        got = np.asarray(first(ctx, jax.random.key(1)))
        assert got.shape == (4 if source is None else 3, len(toy.SPACE.cardinalities))
        assert len(np.unique(got, axis=0)) == len(got)
        np.testing.assert_array_equal(toy.SPACE.canonical(got), got)


def test_a_random_design_is_the_first_of_the_drawn_ones():
    config = dataclasses.replace(small.SMALL, design="random", start_warm=3)
    ctx = small.context(config, source=small.known())
    key = jax.random.key(1)
    got = first(ctx, key)
    drawn = design.random(ctx, jax.random.split(key)[0])
    np.testing.assert_array_equal(got, drawn[:3])
