"""The training of a supernet on a linear model, against the same steps written out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.methods.oneshot import supernet
from fnas_jax.methods.pgnas import posterior
from fnas_jax.networks import elastic
from fnas_jax.objectives import classification
from fnas_jax.spaces import macro
from fnas_jax.spaces.macro import MacroSpec
from fnas_jax.training.config import Children
from tests.methods.pgnas import toy

Q = posterior.make((3, 2))
FEATURES, TARGETS = map(jnp.asarray, toy.regression((3, 2), 12))
ARCHS = jnp.asarray([[0, 1], [2, 0], [2, 1]])
DECAY = 0.1


@pytest.fixture
def net():
    return toy.make(Q, toy.squared_error, steps=20)


@pytest.fixture
def weights(net):
    return net.start({"w": jnp.linspace(-1, 1, 6).reshape(2, 3)})


def train_step(net, weights, archs, **options):
    z = toy.to_switches(Q, archs)
    return supernet.train_step(net, weights, archs, z, FEATURES, TARGETS, DECAY, **options)


def test_architectures_move_the_weights_in_turn(net, weights):
    together, output = train_step(net, weights, ARCHS)
    alone = weights
    for i, arch in enumerate(ARCHS):
        alone, one = train_step(net, alone, arch[None])
        np.testing.assert_allclose(output.nll[i], one.nll[0], rtol=1e-5)
    np.testing.assert_allclose(together.vector, alone.vector, rtol=1e-5)
    assert together.step == len(ARCHS)


@pytest.mark.parametrize("vmap", [False, True])
def test_or_the_mean_of_their_gradients_does(net, weights, vmap):
    options = {"average": True, "differentiate": supernet.with_switches}
    moved, output = train_step(net._replace(vmap=vmap), weights, ARCHS, **options)

    def loss(vector):
        def one(arch):
            z = toy.to_switches(Q, arch)
            nll = toy.squared_error({"w": vector.reshape(2, 3)}, arch, z, FEATURES, TARGETS)
            return nll + DECAY / 2 * ((z.reshape(-1) * vector) ** 2).sum()

        return jax.vmap(one)(ARCHS).mean()

    wanted = net.update(weights, jax.grad(loss)(weights.vector))
    np.testing.assert_allclose(moved.vector, wanted.vector, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(output.norm, net.norms(weights.vector, ARCHS), rtol=1e-5)
    derivative = jax.grad(toy.squared_error, 2)
    params = net.params(weights.vector)
    for arch, g in zip(ARCHS, output.switches, strict=True):
        z = toy.to_switches(Q, arch)
        by_jax = derivative(params, arch, z, FEATURES, TARGETS)
        np.testing.assert_allclose(g, by_jax, rtol=1e-4, atol=1e-6)


def test_norms_count_weights_that_an_architecture_uses():
    space = macro.make(MacroSpec(channels=(4, 6, 8), stem=4, head=8))
    network = elastic.make(space, 1, 3)
    arch = jnp.asarray([0, 1, 0, 0, 0, 2, 0, 0])
    loss = functools.partial(supernet.single_path, network, classification.of(3), 0.0)
    net = supernet.make(network, Children(), arch, 10, False, loss)
    ones = net.start(jax.tree.map(jnp.ones_like, net.template)).vector
    # stem 9x4; shortcut 4x4, mbconv 3: 4 to 12 to 4 with 9 taps; shortcut 4x6; mbconv 6: 6 to 36 to
    # 8 with 25 taps; head 8x8; classifier 8x3. Norms and biases do not count.
    count = 36 + 16 + (48 + 108 + 48) + 24 + (216 + 900 + 288) + 64 + 24
    assert net.norms(ones, arch[None])[0] == count


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_labels_are_smoothed_as_those_of_children(smoothing):
    logits = jax.random.normal(jax.random.key(0), (5, 4))
    labels = jnp.asarray([0, 3, 1, 1, 2])
    targets = (1 - smoothing) * np.eye(4)[np.asarray(labels)] + smoothing / 4
    wanted = -(targets * np.asarray(jax.nn.log_softmax(logits))).sum(1).mean()
    np.testing.assert_allclose(
        supernet.nll(classification.of(4), logits, labels, smoothing), wanted, rtol=1e-5
    )
