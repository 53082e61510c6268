"""A whole search as one function: keys, counting, the incumbent, seeds side by side."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax import scan
from fnas_jax.methods.baselines import evolution, random
from fnas_jax.methods.baselines.config import Evolution
from fnas_jax.spaces import base, categorical
from fnas_jax.tasks import table_index, tables, tabular

SPACE = categorical.make((3, 3, 3))


def toy():
    """27 architectures; accuracy grows with the sum of the decisions."""
    archs = base.enumerate_all(SPACE)
    judged = (archs.sum(axis=1) / 10).astype(np.float32)
    nan = np.full(27, np.nan, np.float32)
    table = tables.Table("toy", SPACE, archs, judged, judged[:, None], nan, nan, nan, "made up")
    table = table._replace(seconds=np.arange(1, 28, dtype=np.float32))
    where = table_index.of(table)
    return table, where, tabular.evaluator(table, where, lambda accuracy, *_: accuracy, False)


def test_trace_counts_each_architecture_once():
    _, _, evaluator = toy()
    state, known, trace = jax.jit(lambda key: scan.run(random.make(SPACE, 4), evaluator, key, 30))(
        jax.random.key(0)
    )
    archs = np.asarray(trace.archs).reshape(-1, 3)
    fresh = np.asarray(trace.fresh).reshape(-1)
    assert trace.archs.shape == (30, 4, 3)
    assert fresh.sum() == len(np.unique(archs, axis=0)) == (np.asarray(known.row) >= 0).sum()
    assert len(np.unique(archs[fresh], axis=0)) == fresh.sum()
    assert float(state.best.reward) == np.asarray(trace.reward).max()
    seconds = np.asarray(trace.seconds).reshape(-1)
    assert (seconds[fresh] == 1 + archs[fresh] @ [9, 3, 1]).all() and not seconds[~fresh].any()


def test_scan_equals_a_python_loop():
    _, _, evaluator = toy()
    method = evolution.make(SPACE, Evolution(population=4, sample=2), 2)
    key = jax.random.key(3)
    state, _, trace = jax.jit(lambda key: scan.run(method, evaluator, key, 8))(key)
    key_init, key_steps = jax.random.split(key)
    by_hand, known = jax.jit(method.init)(key_init), evaluator.init()
    step = jax.jit(lambda *state: scan.step(method, evaluator, *state))
    for i in range(8):
        by_hand, known, proposal, _ = step(by_hand, known, jax.random.fold_in(key_steps, i))
        np.testing.assert_array_equal(proposal.archs, trace.archs[i])
    jax.tree.map(np.testing.assert_array_equal, by_hand, state)


def test_seeds_side_by_side_equal_seeds_alone():
    _, _, evaluator = toy()

    def archs(key):
        return scan.run(random.make(SPACE, 2), evaluator, key, 5)[2].archs

    keys = jax.random.split(jax.random.key(1), 3)
    together, alone = jax.jit(jax.vmap(archs))(keys), jax.jit(archs)
    for i in range(3):
        np.testing.assert_array_equal(alone(keys[i]), together[i])


def test_progress_follows_the_observed_best_and_the_first_hit():
    trace = scan.Trace(
        archs=jnp.zeros((3, 2, 1), jnp.int32),
        reward=jnp.array([[0.2, 0.9], [0.5, 0.5], [0.6, 0.6]]),
        ok=jnp.array([[True, False], [True, True], [True, True]]),
        fresh=jnp.array([[True, True], [True, False], [True, True]]),
        predicted=jnp.zeros((3, 2)),
        stats={},
    )
    judged = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    top = jnp.array([[False, True], [False, True], [False, True]])
    got = jax.jit(scan.progress)(trace, judged, top)
    assert np.asarray(got.evaluations).tolist() == [1, 2, 3, 3, 4, 5]
    assert np.asarray(got.incumbent).tolist() == [1, 1, 3, 3, 5, 5]  # ties stay with the first
    assert int(got.hit) == 5  # neither a failed nor a known entry is a hit
    assert got.seconds is None and got.hit_seconds is None
    timed = trace._replace(seconds=jnp.array([[1.0, 2.0], [4.0, 0.0], [8.0, 16.0]]))
    got = jax.jit(scan.progress)(timed, judged, top)
    assert got.seconds.tolist() == [1, 3, 7, 7, 15, 31] and float(got.hit_seconds) == 31
    never = jax.jit(scan.progress)(timed._replace(ok=jnp.zeros((3, 2), bool)), judged, top)
    assert np.isinf(never.hit_seconds)
    never = scan.progress(trace._replace(ok=jnp.zeros((3, 2), bool)), judged, top)
    assert int(never.hit) == -1 and np.isneginf(np.asarray(never.incumbent)).all()


def test_evaluators_that_train_are_refused():
    _, _, evaluator = toy()
    with pytest.raises(ValueError, match="jittable"):
        scan.run(random.make(SPACE, 8), evaluator._replace(jittable=False), jax.random.key(0), 2)
