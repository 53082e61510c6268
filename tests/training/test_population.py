"""Training of many children at once, with the small network of `test_child`."""

import functools
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core import devices
from fnas_jax.training import child, population
from tests import forced
from tests.training.test_child import CONTEXT, STEPS, toy_data, toy_network


@functools.cache
def trainer(group: int):
    """Compiled once for all tests."""
    mesh = devices.children_mesh(jax.devices()[:1])
    return population.make(population.Context(CONTEXT, mesh, group))


def outcomes(group: int, active: np.ndarray, steps: int = STEPS) -> child.Outcome:
    n, run = len(active), trainer(group)
    keys = jax.random.split(jax.random.key(3), n)
    archs = jnp.arange(n)[:, None] % 2
    trained = run(toy_data(), archs, jnp.asarray(active), keys, jnp.int32(steps))
    return jax.device_get(trained.outcome)


def test_children_learn():
    result = outcomes(1, np.ones(4, bool), steps=100)
    assert result.ok.all()
    assert (result.accuracy > 0.9).all()


@pytest.mark.parametrize("group", [3, 4])
def test_children_trained_at_once_give_the_same_numbers(group):
    everyone = np.ones(4, bool)
    chex.assert_trees_all_close(outcomes(1, everyone), outcomes(group, everyone), rtol=1e-5)


def test_an_empty_place_changes_nothing_for_the_others():
    everyone, some = np.ones(4, bool), np.array([True, False, True, False])
    full, part = outcomes(1, everyone), outcomes(1, some)
    chex.assert_trees_all_equal(*(jax.tree.map(lambda x: x[some], o) for o in (full, part)))


_FOUR_DEVICES = """
import json, numpy as np, jax
from tests.training import test_population as t
from fnas_jax.core import devices
t.devices.children_mesh = lambda _=None, make=devices.children_mesh: make()
assert len(jax.devices()) == 4
result = t.outcomes(1, np.ones(8, bool))
print(json.dumps([result.accuracy.tolist(), result.loss.tolist()]))
"""


def test_four_devices_give_the_results_of_one():
    accuracy, loss = json.loads(forced.printed(_FOUR_DEVICES, 4))
    one = outcomes(1, np.ones(8, bool))
    np.testing.assert_allclose(accuracy, one.accuracy, atol=1e-3)
    np.testing.assert_allclose(loss, one.loss, rtol=1e-4)


def inheriting(group=1):
    """Children that start from w = pool + source, scaled by their architecture; not trained."""

    def start(pool, arch, source):
        fresh = toy_network().init(jax.random.key(0), arch)
        return fresh | {"w": fresh["w"] * 0 + (pool + source) * (1 + arch[0])}

    mesh = devices.children_mesh(jax.devices()[:1])
    run = population.make(population.Context(CONTEXT, mesh, group, start))
    archs, keys = jnp.arange(3)[:, None], jax.random.split(jax.random.key(1), 3)
    given = (toy_data(), archs, jnp.ones(3, bool), keys, jnp.int32(0))
    return run(*given, jnp.float32(2.0), jnp.array([0.0, 10.0, 20.0]))


@pytest.mark.parametrize("group", [1, 2, 3])
def test_every_child_starts_from_its_own_source_in_the_common_pool(group):
    trained = inheriting(group)
    np.testing.assert_allclose(trained.params["w"][:, 0, 0], [2.0, 24.0, 66.0], rtol=1e-6)
    assert trained.outcome.accuracy.shape == (3,)


def test_children_that_start_fresh_leave_no_parameters():
    mesh = devices.children_mesh(jax.devices()[:1])
    run = population.make(population.Context(CONTEXT, mesh))
    keys = jax.random.split(jax.random.key(1), 2)
    given = (toy_data(), jnp.zeros((2, 1)), jnp.ones(2, bool))
    assert run(*given, keys, jnp.int32(1)).params is None
    with_data = run(*given, jax.random.key_data(keys), jnp.int32(1)).outcome  # can be sent
    chex.assert_trees_all_equal(with_data, run(*given, keys, jnp.int32(1)).outcome)


def test_what_is_kept_is_the_network_that_was_judged():
    mesh = devices.children_mesh(jax.devices()[:1])
    run = population.make(population.Context(CONTEXT, mesh, keep=True))
    keys, archs = jax.random.split(jax.random.key(1), 2), jnp.asarray([[0], [1]])
    kept = run(toy_data(), archs, jnp.ones(2, bool), keys, jnp.int32(STEPS))
    kept, data = jax.device_get(kept), toy_data()
    pixels = CONTEXT.pipeline.normalise(data.eval_images)
    apply_eval = jax.jit(CONTEXT.network.apply_eval)
    for i in range(2):
        params, stats = jax.tree.map(lambda leaf, i=i: leaf[i], (kept.params, kept.stats))
        logits, _ = apply_eval(params, stats, archs[i], pixels, jnp.bool_(False))
        hits = (np.asarray(logits).argmax(-1) == np.asarray(data.eval_labels)).mean()
        np.testing.assert_allclose(kept.outcome.accuracy[i], hits, atol=1e-6)


@pytest.mark.parametrize("short", ["archs", "active", "keys"])
def test_arguments_that_are_not_of_as_many_children_are_refused(short):
    archs, active, keys = (
        jnp.zeros((3, 1)),
        jnp.ones(3, bool),
        jax.random.split(jax.random.key(0), 3),
    )
    given = {"archs": archs, "active": active, "keys": keys}
    with pytest.raises(AssertionError):
        population.checked_keys(**given | {short: given[short][:2]})


@pytest.mark.parametrize("group", [1, 2, 3, 5, 7])
def test_groups_give_every_item_its_own_value(group):
    items = (jnp.arange(5), jnp.arange(10.0).reshape(5, 2))
    found = population.in_groups(lambda item: item[0] + item[1].sum(), items, group)
    np.testing.assert_array_equal(found, np.arange(5) + np.arange(10.0).reshape(5, 2).sum(1))
