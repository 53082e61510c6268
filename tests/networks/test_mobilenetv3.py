"""Children of the MobileNetV3 space equal Flax networks of the same weights.

Of its first four stages, which have all that the space has: ReLU and h-swish, with squeeze-
excitation by hard sigmoids and without.
"""

import functools
import itertools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from fnas_jax.core.precision import float64
from fnas_jax.layers import choose, compile_kernels
from fnas_jax.layers.spec import HARD_GATE, HARD_SWISH, MBCONV, RELU
from fnas_jax.networks import elastic, flax_mobile, flax_reference, mobile_spaces, subnet_weights
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


# ---- twenty architectures against float64


class Truth(NamedTuple):
    """What plain Flax makes of images in float64."""

    images: np.ndarray  # [4, 5, 7, CHANNELS] float32
    outcome: agreement.Outcome


# Gradients of a whole network are those of float64 but for rounding only where no pre-activation
# lies so near to a bend of its activation that rounding takes it to the other side: then those of
# all layers in front of it change. On images that were drawn without looking, plain Flax's own in
# float32 were off by 2% for one ReLU's input of 1.2e-6, and those of the kernels by 0.5% for one of
# 1e-6; where none crossed, both by 1e-5. So images are drawn until all are CLEAR, five times as far
# off as rounding had moved the former.
CLEAR = 1e-5
# Of the largest gradient; 1.6e-5 was measured.
GRADIENTS = 1e-4
DOUBLE = 1e-9  # likewise in float64, where 4e-14 was measured
# The first seed of each architecture with such images; where another version draws otherwise, those
# after it are tried.
SEEDS = (0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 1, 0, 0, 2, 6, 3, 1, 0, 0)


def of_seed(seed):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((4, 5, 7, CHANNELS)).astype(np.float32)


def bends(arch):
    """{path of a module: where what follows it, or its derivative, is not smooth}."""
    of = {RELU: (0.0,), HARD_SWISH: (-3.0, 3.0)}
    ends = of[mobile_spaces.act(SPACE.spec)]
    found = {("stem_norm",): ends, ("head_norm",): ends, ("mix",): ends}
    for stack, position, _, layer in mobile_spaces.layers_of(SPACE.spec, arch):
        name = flax_mobile.layer_name(stack, position)
        for norm in ("norm_expand", "norm_depthwise")[layer.op != MBCONV :]:
            found[name, norm] = of[layer.activation]
        if layer.se_hidden:
            found |= {(name, "squeeze"): (0.0,), (name, "excite"): (-3.0, 3.0)}
    return found


def clearance(module, arch):
    """(variables, images) -> the least distance of a pre-activation from a bend."""

    @jax.jit
    def least(variables, images):
        _, seen = module.apply(
            variables,
            images,
            train=True,
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=lambda m, _: isinstance(m, nn.BatchNorm | nn.Dense),
        )
        kept = traverse_util.flatten_dict(seen["intermediates"])
        distances = [
            jnp.abs(kept[*path, "__call__"][0] - bend).min()
            for path, places in bends(arch).items()
            for bend in places
        ]
        return jnp.stack(distances).min()

    return least


def truth(arch, first_seed, variables):
    module = flax_reference.build(SPACE, arch, CLASSES, fast=False)
    with float64():
        variables, least = agreement.doubled(variables), clearance(module, arch)
        draws = map(of_seed, itertools.count(first_seed))
        images = next(x for x in draws if least(variables, agreement.doubled(x)) > CLEAR)
        return Truth(images, agreement.run_flax(module, variables, agreement.doubled(images)))


@functools.cache
def weights():
    """Parameters and statistics of the elastic network."""
    return agreement.weights(agreement.network(SPACE, "reference"), random(20)[0])


@functools.cache
def truths():
    of_child = functools.partial(subnet_weights.get, SPACE)
    return [
        truth(arch, seed, of_child(arch, *weights()))
        for arch, seed in zip(random(20), SEEDS, strict=True)
    ]


def needs(backend):
    if backend == "kernels" and not compile_kernels.available():
        pytest.skip("no C++ compiler for the kernels")
    if backend == "kernels_bf16" and not choose.has_short_products():
        pytest.skip("this CPU has no products of bfloat16 numbers")


@pytest.fixture(scope="module", params=["kernels", "reference", "masked", "branched"])
def twenty(request):
    needs(request.param)
    net, images = agreement.network(SPACE, request.param), [t.images for t in truths()]
    ours = agreement.elastic_outcomes(SPACE, net, *weights(), random(20), images)
    return agreement.Case(*ours, [t.outcome for t in truths()])


CHECKS = {
    agreement.check_training_logits: 1e-5,
    agreement.check_gradients: GRADIENTS,
    agreement.check_evaluation_logits: 1e-5,
    agreement.check_moments: 1e-4,
}


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
def test_twenty_random_children_equal_flax_networks(twenty, check):
    check(twenty, CHECKS[check])


IN_DOUBLE = {
    "reference": choose.REFERENCE,
    "masked": choose.masked_in(jnp.float64),
    "branched": choose.branched_in(jnp.float64),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_DOUBLE)
def test_twenty_random_children_equal_flax_networks_in_float64(name):
    """But for the kernels, which have float32 only."""
    archs, expected, given = random(20), truths(), agreement.doubled(weights())
    with float64():
        net = agreement.network(SPACE, IN_DOUBLE[name])
        images = [agreement.doubled(t.images) for t in expected]
        ours = agreement.elastic_outcomes(SPACE, net, *given, archs, images)
    case = agreement.Case(*ours, [t.outcome for t in expected])
    for check in CHECKS:
        check(case, DOUBLE)


# Relative distances of bfloat16's logits from float64's, by their norms. The bounds are twice the
# largest of 20 that was measured on eight images each, which stands behind them.
SHORT = {
    "kernels_bf16": ("kernels_bf16", 0.2),  # 0.097
    "masked": (choose.masked_in(jnp.bfloat16), 0.24),  # 0.119
    "branched": (choose.branched_in(jnp.bfloat16), 0.23),  # 0.112
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_twenty_random_children_in_bfloat16_are_near_flax_networks(name):
    backend, bound = SHORT[name]
    needs(name)
    apply, params = jax.jit(agreement.network(SPACE, backend).apply), weights()[0]
    far = []
    for arch, (images, outcome) in zip(random(20), truths(), strict=True):
        distance = np.asarray(apply(params, arch, images), np.float64) - outcome.logits
        far.append(np.linalg.norm(distance) / np.linalg.norm(outcome.logits))
    assert np.min(far) > 1e-5 and np.max(far) <= bound  # of the same type, nothing is compared
