"""Networks with derivatives in their switches."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax import layered
from fnas_jax.layers import convolutions, ops
from fnas_jax.layers import reference as reference_lib
from fnas_jax.layers.spec import RELU, Slot
from fnas_jax.networks import elastic, mixed_op, mobile_spaces
from fnas_jax.spaces import macro
from fnas_jax.spaces.macro import MacroSpec

CHOICES = {"k3": layered.conv(3), "mb": layered.mbconv(3, 2)}
STAGES = [layered.stage(6, CHOICES), layered.stage(8, CHOICES, stride=2, depth=2)]
MACRO = macro.make(MacroSpec(channels=(4, 6, 8), stem=4, stem_stride=2, head=8))
SPACES = {"layered": layered.make(STAGES, stem=4, head=8), "macro": MACRO}
ARCHS = {
    "layered": jnp.asarray([[0, 1, 0], [1, 0, 1]]),
    "macro": jnp.asarray([[0, 1, 2, 0, 1, 1, 2, 0], [2, 0, 1, 2, 2, 0, 0, 1]]),
}


class Child(NamedTuple):
    """A network and what it is given."""

    space: Any
    network: Any
    archs: Any
    params: Any
    images: Any
    weights: Any


# A stage of PGNAS on the Macro space is in tests/methods/pgnas/test_build.py, too.
@pytest.fixture(scope="module", params=["layered", pytest.param("macro", marks=pytest.mark.slow)])
def child(request):
    space = SPACES[request.param]
    network = elastic.make(space, 1, 3, "reference")
    params = jax.jit(network.init)(jax.random.key(0), jnp.asarray(space.largest))
    images = jax.random.normal(jax.random.key(1), (4, 12, 12, 1))
    weights = jax.random.normal(jax.random.key(2), (4, 3))
    return Child(space, network, ARCHS[request.param], params, images, weights)


def reference(child, params, z):
    """Sums over all operations, written layer by layer, for JAX to differentiate."""
    spec = child.space.spec
    slots = [slot for stack in mobile_spaces.slots(spec) for slot in stack]
    layers, _ = child.network.parts.split(params)
    x = convolutions.conv(child.images, params["stem"], 0, (3,), spec.stem_stride)
    x = ops.norm_act(x, params["stem_norm"], spec.stem, RELU)[0]
    for layer, slot, switches in zip(layers, slots, z, strict=True):
        found = [
            reference_lib.apply(Slot(slot.stride, (choice,)), layer["first"], x, choice)
            for choice in slot.choices
        ]
        x = sum(k * y for k, y in zip(switches, found, strict=True))
    x = convolutions.pointwise(x, params["head"])
    x = ops.norm_act(x, params["head_norm"], spec.head, RELU)[0]
    return x.mean((1, 2)) @ params["classifier"] + params["bias"]


@pytest.fixture(scope="module")
def found(child):
    """For each of ARCHS: (logits, gradients in parameters and switches) of this and by reference.

    One program for all, because compiling is most of the time.
    """
    _, network, archs, params, images, weights = child
    default = elastic.make(child.space, 1, 3)

    def value(logits):
        return (logits * weights).sum(), logits

    @jax.jit
    def run(arch):
        z = jax.nn.one_hot(arch, max(child.space.cardinalities))
        ours = jax.value_and_grad(
            lambda p, z: value(default.apply_mixed(p, arch, z, images)),
            (0, 1),
            True,
        )(params, z)
        plain = jax.value_and_grad(lambda p: value(network.apply(p, arch, images)), has_aux=True)(
            params
        )
        summed = jax.grad(lambda z: value(reference(child, params, z))[0])(z)
        return ours, plain, summed

    return [run(arch) for arch in archs]


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
    space, _, archs, params, images, weights = child
    masked = elastic.make(space, 1, 3, "masked")

    @jax.jit
    def run(arch):
        def loss(z):
            return (masked.apply_mixed(params, arch, z, images) * weights).sum()

        return jax.grad(loss)(jax.nn.one_hot(arch, max(space.cardinalities)))

    for arch, ((_, (_, switches)), *_) in zip(archs, found, strict=True):
        np.testing.assert_allclose(run(arch), switches, rtol=2e-3, atol=2e-3)


def test_derivatives_of_switches_are_summed_in_float32_whatever_the_layers_compute_in():
    operations = (lambda params, x: x, lambda params, x: params * x)
    x, scale = jnp.ones(257, jnp.bfloat16), jnp.bfloat16(2)  # 257 is no bfloat16

    def loss(z):
        return mixed_op.mixed_op(operations, jnp.int32(0), z, scale, x).astype(jnp.float32).sum()

    switches = jax.grad(loss)(jnp.array([1.0, 0.0]))
    assert switches.dtype == jnp.float32
    np.testing.assert_array_equal(switches, [257, 514])
