"""Images that come in chunks: the same children, as far as the order of images allows it."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnas_jax.core import devices
from fnas_jax.objectives import classification
from fnas_jax.training import population, streaming
from fnas_jax.training.minibatches import Data
from tests.training.test_child import CONTEXT, toy_data


@functools.cache
def trainer(chunk: int | None, start, group: int, keep: bool):
    """Compiled once for all tests."""
    mesh = devices.children_mesh(jax.devices()[:1])
    ctx = population.Context(CONTEXT, mesh, group, start, keep)
    return population.make(ctx) if chunk is None else streaming.make(ctx, chunk)


def trained(
    chunk: int | None, steps: int = 25, start=None, group: int = 1, keep: bool = False
) -> population.Trained:
    run = trainer(chunk, start, group, keep)
    data = toy_data() if chunk is None else Data(*map(np.asarray, toy_data()))
    keys = jax.random.split(jax.random.key(3), 3)
    active = jnp.array([True, False, True])
    archs = jnp.arange(3)[:, None] % 2
    found = run(data, archs, active, keys, jnp.int32(steps), jnp.zeros(()), jnp.zeros(3))
    return jax.device_get(found)


def test_one_chunk_gives_the_numbers_of_resident_data():
    start = lambda pool, arch, source: {  # noqa: E731
        "w": jnp.ones((4, 3)),
        "bias": pool + source * jnp.ones(3),
        "scale": jnp.ones(4),
    }
    resident, streamed = trained(None, start=start), trained(1000, start=start)
    used = np.array([True, False, True])
    chex.assert_trees_all_close(
        *(jax.tree.map(lambda x: x[used], t) for t in (resident, streamed)), rtol=1e-5
    )


def test_what_is_kept_is_that_of_resident_data():
    """With parts of the evaluation images, too, as long as a part is no less than a batch."""
    resident, streamed = trained(None, keep=True), trained(1000, keep=True)
    used = np.array([True, False, True])
    assert jax.tree.leaves(resident.params) and jax.tree.leaves(resident.stats)
    chex.assert_trees_all_close(
        *(jax.tree.map(lambda x: x[used], t) for t in (resident, streamed)), rtol=1e-5
    )
    in_parts = trained(32, keep=True)
    assert jax.tree.map(jnp.shape, in_parts) == jax.tree.map(jnp.shape, resident)


@pytest.mark.parametrize("group", [1, 3])
def test_children_trained_at_once_are_the_same(group):
    used = np.array([True, False, True])
    chex.assert_trees_all_close(
        *(jax.tree.map(lambda x: x[used], trained(32, group=g).outcome) for g in (1, group)),
        rtol=1e-5,
    )


@pytest.mark.parametrize("chunk", [5, 16, 20, 32])
def test_children_learn_from_chunks(chunk):
    result = trained(chunk, steps=100).outcome
    assert result.ok.all()
    assert result.accuracy[0] > 0.9 and result.accuracy[2] > 0.9


@given(st.integers(16, 200), st.integers(1, 60), st.integers(1, 8))
def test_every_step_is_made_once_and_no_row_comes_twice_in_an_epoch(count, steps, batches):
    batch, chunk = 16, 16 * batches
    visits = list(streaming.visits(count, batch, steps, chunk))
    done = 0
    for rows, (first, last) in visits:
        assert first == done
        done = last
        assert len(set(rows.tolist())) == len(rows) and rows.max() < count
    assert done == steps
    per_epoch = max(count // chunk, 1)
    for i in range(0, len(visits), per_epoch):
        epoch = np.concatenate([rows for rows, _ in visits[i : i + per_epoch]])
        assert len(np.unique(epoch)) == len(epoch)


def test_parts_cover_everything_once():
    parts = streaming._parts(10, 4)
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(10))
    assert max(part.stop - part.start for part in parts) <= 4


def test_what_is_judged_in_parts_has_the_figures_of_the_whole():
    """Also those that are no mean over parts, as macro F1; the training in chunks is another."""
    used = np.array([True, False, True])
    whole, parts = trained(None, steps=0).outcome, trained(16, steps=0).outcome
    assert set(whole.figures) == set(classification.METRICS)
    chex.assert_trees_all_close(
        *(jax.tree.map(lambda x: x[used], outcome) for outcome in (parts, whole)), rtol=1e-5
    )


def test_one_part_that_is_not_finite_makes_a_child_not_ok():
    data = toy_data()
    spoilt = np.array(data.eval_images)
    spoilt[-1] = np.nan  # of the last part
    run = streaming.make(population.Context(CONTEXT, devices.children_mesh(jax.devices()[:1])), 16)
    one = (jnp.zeros((1, 1), jnp.int32), jnp.ones(1, bool), jax.random.split(jax.random.key(3), 1))
    data = Data(*map(np.asarray, data))
    assert run(data, *one, jnp.int32(1)).outcome.ok[0]
    outcome = run(data._replace(eval_images=spoilt), *one, jnp.int32(1)).outcome
    assert not outcome.ok[0] and outcome.accuracy[0] == 0
