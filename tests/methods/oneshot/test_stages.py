"""The training stage: cut anywhere, and reported by parts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.methods.oneshot import stages, supernet
from fnas_jax.methods.pgnas import posterior
from fnas_jax.training.minibatches import Data
from tests.methods.pgnas import toy

Q = posterior.make((3, 2))
FEATURES, TARGETS = map(jnp.asarray, toy.regression((3, 2), 12))
DECAY = 0.1


@pytest.fixture
def net():
    return toy.make(Q, toy.squared_error, steps=20)


@pytest.fixture
def weights(net):
    return net.start({"w": jnp.linspace(-1, 1, 6).reshape(2, 3)})


def test_a_training_cut_anywhere_goes_on_as_if_it_had_not_been(net, weights):
    data = Data(FEATURES, TARGETS, FEATURES, TARGETS)

    def step(state, images, labels, key):
        arch = jax.random.randint(key, (1, 2), 0, jnp.asarray([3, 2]))
        z = toy.to_switches(Q, arch)
        moved, output = supernet.train_step(net, state, arch, z, images, labels, DECAY)
        return moved, {"nll": output.nll.mean(), "seen": images.sum((1, 2))}

    stage = stages.Stage(step, lambda state: state.step, toy.PIPELINE, 4)
    run = jax.jit(functools.partial(stages.run, stage))
    key = jax.random.key(3)
    whole, _ = run(weights, key, data, jnp.int32(7))
    part = weights
    seen = []
    for count in (1, 1, 1, 2, 2):
        part, scalars = run(part, key, data, jnp.int32(count))
        seen.append(scalars["seen"])
    np.testing.assert_array_equal(whole.vector, part.vector)
    # The three minibatches of the first epoch hold every example once.
    every = np.sort(np.concatenate(seen[:3]))
    np.testing.assert_allclose(every, np.sort(FEATURES.sum((1, 2))), rtol=1e-5)


def test_a_stage_is_reported_by_parts_and_goes_on_where_it_is():
    """Every three of seven steps, from the second on."""
    data = Data(FEATURES, TARGETS, FEATURES, TARGETS)

    def step(state, images, labels, key):
        return state + 1, {"number": state.astype(jnp.float32)}

    stage = stages.Stage(step, lambda state: state, toy.PIPELINE, 4)
    prepare = stages.prepare(stage, lambda state, scalars: scalars, data, total=7, every=3)
    reports = [(int(s), float(r["number"])) for s, r in prepare(jnp.int32(2), jax.random.key(0))]
    assert reports == [(5, 3.0), (7, 5.5)]
    assert not list(prepare(jnp.int32(7), jax.random.key(0)))
