"""Children of the MobileNetV3 space equal Flax networks of the same weights.

Of its first four stages, which have all that the space has: ReLU and h-swish, with squeeze-
excitation by hard sigmoids and without.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.layers import choose, compile_kernels
from fnas_jax.layers.spec import HARD_GATE, HARD_SWISH, RELU
from fnas_jax.networks import elastic, flax_reference, mobile_spaces, subnet_weights
from fnas_jax.spaces import mobilenetv3
from tests.networks import agreement
from tests.networks.agreement import CHANNELS, CLASSES

SPACE = mobilenetv3.make(stages=4, width=0.5, strides=(1, 2, 1, 2), stem_stride=1)


@functools.cache
def random(count):
    """[count, T] different architectures."""
    archs = SPACE.canonical(SPACE.sample(jax.random.key(5), count))
    assert len(np.unique(np.asarray(archs), axis=0)) == count
    return np.asarray(archs)


def test_the_stages_have_all_kinds_of_layers():
    layers = [v for arch in random(20) for *_, v in mobile_spaces.layers_of(SPACE.spec, arch)]
    gated = {v.act for v in layers if v.se_hidden}
    plain = {v.act for v in layers if not v.se_hidden}
    assert gated == {RELU + HARD_GATE, HARD_SWISH + HARD_GATE} and plain == {RELU, HARD_SWISH}
    assert {v.kernel for v in layers} == {3, 5, 7}


@pytest.mark.slow
def test_two_random_children_have_the_logits_of_flax_networks():
    """On the backend of these devices, without gradients: the soonest to say."""
    net = elastic.make(SPACE, CHANNELS, CLASSES)
    key = jax.random.key(1)
    first = random(20)[0]
    shapes = jax.eval_shape(lambda: (net.init(key, first), net.init_stats()))
    params, stats = agreement.filled(shapes)
    images = jax.random.normal(key, (8, 5, 7, CHANNELS))
    ours = jax.jit(
        lambda a: (net.apply(params, a, images), net.apply_eval(params, stats, a, images, False)[0])
    )
    for arch in shallowest(2):
        module = flax_reference.build(SPACE, arch, CLASSES, fast=False)
        variables = subnet_weights.get(SPACE, arch, params, stats)
        plain = jax.jit(
            lambda v, m=module: (
                m.apply(v, images, train=True, mutable=["batch_stats"])[0],
                m.apply(v, images, train=False),
            )
        )
        for got, expected in zip(ours(arch), plain(variables), strict=True):
            agreement.assert_close(np.asarray(got), np.asarray(expected))


def shallowest(count):
    """[count, T] of 20 random architectures, those of the fewest layers."""
    layers = [len(mobile_spaces.layers_of(SPACE.spec, arch)) for arch in random(20)]
    return random(20)[np.argsort(layers, kind="stable")[:count]]


def needs(backend):
    if backend == "kernels" and not compile_kernels.available():
        pytest.skip("no C++ compiler for the kernels")
    if backend == "kernels_bf16" and not choose.has_short_products():
        pytest.skip("this CPU has no products of bfloat16 numbers")


@pytest.fixture(scope="module", params=["kernels", "reference", "masked", "branched"])
def twenty(request):
    needs(request.param)
    return agreement.case(SPACE, request.param, random(20))


# Gradients of so many layers are those of test_layer_types.py, layer by layer: a number that rounds
# to the other side of a bend, as of a gate, changes those of all layers in front of it by percents.
CHECKS = (
    agreement.check_training_logits,
    agreement.check_evaluation_logits,
    agreement.check_moments,
)


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
def test_twenty_random_children_equal_flax_networks(twenty, check):
    check(twenty)


# Relative distances of bfloat16's logits from float32's, by their norms. The bounds are twice the
# largest of 20 that was measured, which stands behind them.
SHORT = {
    "kernels_bf16": ("kernels_bf16", 0.1),  # 0.048
    "masked": (choose.masked_in(jnp.bfloat16), 0.24),  # 0.119
    "branched": (choose.branched_in(jnp.bfloat16), 0.23),  # 0.112
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_twenty_random_children_in_bfloat16_are_near_flax_networks(name):
    backend, bound = SHORT[name]
    needs(name)
    found = agreement.case(SPACE, backend, random(20))
    far = [
        np.linalg.norm(ours.logits - flax.logits) / np.linalg.norm(flax.logits)
        for ours, flax in zip(found.elastic, found.flax, strict=True)
    ]
    assert np.min(far) > 1e-5 and np.max(far) <= bound  # of the same type, nothing is compared
