"""The Macro network with derivatives in its switches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.layers import convolutions, ops
from fnas_jax.layers import reference as reference_lib
from fnas_jax.layers.spec import RELU, Slot
from fnas_jax.networks import elastic, mixed_op, mobile_spaces
from fnas_jax.spaces import macro
from fnas_jax.spaces.macro import MacroSpec

SPEC = MacroSpec(channels=(4, 6, 8), stem=4, stem_stride=2, head=8)
NETWORK = elastic.make(macro.make(SPEC), 1, 3, "reference")
DEFAULT = elastic.make(macro.make(SPEC), 1, 3)
ARCHS = jnp.asarray([[0, 1, 2, 0, 1, 1, 2, 0], [2, 0, 1, 2, 2, 0, 0, 1]])


@pytest.fixture(scope="module")
def child():
    params = jax.jit(NETWORK.init)(jax.random.key(0), jnp.full(8, 2))
    images = jax.random.normal(jax.random.key(1), (4, 12, 12, 1))
    weights = jax.random.normal(jax.random.key(2), (4, 3))
    return params, images, weights


def reference(params, z, images):
    """Sums over all operations, written layer by layer, for JAX to differentiate."""
    slots = [slot for stack in mobile_spaces.slots(SPEC) for slot in stack]
    layers, _ = NETWORK.parts.split(params)
    x = convolutions.conv(images, params["stem"], 0, (3,), SPEC.stem_stride)
    x = ops.norm_act(x, params["stem_norm"], SPEC.stem, RELU)[0]
    for layer, slot, switches in zip(layers, slots, z, strict=True):
        found = [
            reference_lib.apply(Slot(slot.stride, (choice,)), layer["first"], x, choice)
            for choice in slot.choices
        ]
        x = sum(k * y for k, y in zip(switches, found, strict=True))
    x = convolutions.pointwise(x, params["head"])
    x = ops.norm_act(x, params["head_norm"], SPEC.head, RELU)[0]
    return x.mean((1, 2)) @ params["classifier"] + params["bias"]


@pytest.fixture(scope="module")
def found(child):
    """For each of ARCHS: (logits, gradients in parameters and switches) of this and by reference.

    One program for all, because compiling is most of the time.
    """
    params, images, weights = child

    def value(logits):
        return (logits * weights).sum(), logits

    @jax.jit
    def run(arch):
        z = jax.nn.one_hot(arch, 3)
        ours = jax.value_and_grad(
            lambda p, z: value(DEFAULT.apply_mixed(p, arch, z, images)),
            (0, 1),
            True,
        )(params, z)
        elastic = jax.value_and_grad(lambda p: value(NETWORK.apply(p, arch, images)), has_aux=True)(
            params
        )
        summed = jax.grad(lambda z: value(reference(params, z, images))[0])(z)
        return ours, elastic, summed

    return [run(arch) for arch in ARCHS]


def test_logits_and_gradients_are_those_of_the_elastic_network(found):
    for ((_, logits), (gradient, _)), ((_, their_logits), theirs), _ in found:
        np.testing.assert_allclose(logits, their_logits, rtol=1e-4, atol=1e-4)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=5e-4), gradient, theirs
        )


def test_switches_have_the_derivative_of_the_sum_of_all_operations(found):
    for (_, (_, switches)), _, summed in found:
        assert np.abs(summed).max() > 0.1
        np.testing.assert_allclose(switches, summed, rtol=2e-3, atol=2e-3)


@pytest.mark.slow
def test_masked_layers_give_the_same_derivatives(child, found):
    params, images, weights = child
    masked = elastic.make(macro.make(SPEC), 1, 3, "masked")

    @jax.jit
    def run(arch):
        def loss(z):
            return (masked.apply_mixed(params, arch, z, images) * weights).sum()

        return jax.grad(loss)(jax.nn.one_hot(arch, 3))

    for arch, ((_, (_, switches)), *_) in zip(ARCHS, found, strict=True):
        np.testing.assert_allclose(run(arch), switches, rtol=2e-3, atol=2e-3)


def test_derivatives_of_switches_are_summed_in_float32_whatever_the_layers_compute_in():
    operations = (lambda params, x: x, lambda params, x: params * x)
    x, scale = jnp.ones(257, jnp.bfloat16), jnp.bfloat16(2)  # 257 is no bfloat16

    def loss(z):
        return mixed_op.mixed_op(operations, jnp.int32(0), z, scale, x).astype(jnp.float32).sum()

    switches = jax.grad(loss)(jnp.array([1.0, 0.0]))
    assert switches.dtype == jnp.float32
    np.testing.assert_array_equal(switches, [257, 514])
