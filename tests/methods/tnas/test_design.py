"""The initial design."""

import jax.numpy as jnp
import numpy as np

from fnas_jax.methods.tnas import design
from fnas_jax.methods.tnas.source_tasks import SourceTasks


def test_medoids_are_those_of_a_search_by_hand():
    xi = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
    distance = np.linalg.norm(xi[:, None] - xi, axis=-1)
    chosen = [3]
    for _ in range(3):
        costs = [
            np.minimum(distance[:, chosen].min(axis=1), distance[:, j]).sum() for j in range(12)
        ]
        chosen.append(min((c, j) for j, c in enumerate(costs) if j not in chosen)[1])
    got = design.k_medoids(jnp.asarray(xi), jnp.int32(3), 4)
    np.testing.assert_array_equal(got, chosen)


def test_favourites_are_judged_by_other_tasks_where_these_know_them():
    forms = jnp.arange(6)[:, None]
    known = SourceTasks(
        jnp.array([[[0], [1]], [[0], [2]]]),
        jnp.array([[1.0, 0.2], [0.0, -1.0]]),
        jnp.ones((2, 2), bool),
    )
    foretold = jnp.array([9.0, 9.0, 9.0, 0.3, 0.6, -2.0])
    found, score = design.top_k(known, forms, foretold)
    finite = np.isfinite(score)
    np.testing.assert_array_equal(found[finite][:, 0], [4, 0, 3, 1, 2, 5])
    np.testing.assert_allclose(score[finite], [0.6, 0.5, 0.3, 0.2, -1.0, -2.0])
