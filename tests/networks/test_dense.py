"""Logits at every pixel: elastic children, plain Flax networks, costs and weights agree."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax import layered
from fnas_jax.layers import compile_kernels, convolutions, ops, reference
from fnas_jax.layers.spec import Slot
from fnas_jax.networks import (
    dense,
    elastic,
    flax_reference,
    mobile_spaces,
    readable,
    subnet_weights,
)
from fnas_jax.networks.cost import cost, one_cost
from fnas_jax.networks.dense import Dense
from tests.networks import agreement
from tests.networks.agreement import CHANNELS, CLASSES, PIXELS
from tests.networks.test_cost import SMALL, count

# Every resolution has a last output of its own: of the stem, and of stages of several widths.
DEEP = layered.make(
    [
        layered.stage(16, {"k3": layered.conv(3), "mb": layered.mbconv(3, 3)}, stride=2),
        layered.stage(24, {"k5": layered.conv(5), "mb": layered.mbconv(3, 2)}, depth=2),
        layered.stage(8, {"k3": layered.conv(3), "se": layered.conv(3, se=True)}, stride=2),
    ],
    stem=8,
)
SPACES = agreement.SPACES | {"deep": DEEP}
# Without scores at pixels, all of them are in test_subnet_weights.py, test_flax_mobile.py and
# test_flax_cell.py, and every type of layer on every backend in tests/layers/test_layer_types.py.
QUICK = [("deep", "auto"), ("deep", "masked")]
SLOW = [
    ("cell", "auto"),
    ("mnas", "auto"),
    ("macro", "auto"),
    ("layered", "auto"),
    ("mnas", "masked"),
    ("deep", "reference"),
]
CASES = [*QUICK, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW)]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request):
    name, backend = request.param
    if backend == "auto" and name != "cell" and not compile_kernels.available():
        pytest.skip("no C++ compiler for the kernels")
    archs = np.asarray(SPACES[name].sample(jax.random.key(1), 3))
    return agreement.case(SPACES[name], backend, archs, PIXELS)


@pytest.mark.parametrize("check", agreement.CHECKS)
def test_elastic_child_equals_flax_network(case, check):
    check(case)
    assert case.flax[0].logits.shape == (8, 5, 7, CLASSES)


@pytest.mark.parametrize("name", SPACES)
def test_a_network_of_one_architecture_equals_its_flax_network(name):
    space, key, shape = SPACES[name], jax.random.key(2), (5, 7, CHANNELS)
    arch = np.asarray(space.sample(key, 1))[0]
    net = elastic.fixed_network(space, arch, shape, PIXELS)
    shapes = jax.eval_shape(lambda: (net.init(key, arch), net.init_stats()))
    params, stats = agreement.filled(shapes)
    images = jax.random.normal(key, (4, *shape))
    wanted, _ = jax.jit(net.apply_eval)(params, stats, arch, images, jnp.bool_(False))
    module = flax_reference.build(space, arch, PIXELS, fast=False)
    variables = subnet_weights.of_fixed(space, arch, params, stats)
    got = jax.jit(lambda v, x: module.apply(v, x, train=False))(variables, images)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [*SMALL, "deep"])
def test_cost_equals_a_count_over_the_plain_module(name):
    space, image = (SMALL | SPACES)[name], (9, 12, 2)
    archs = np.array(space.sample(jax.random.key(3), 6))
    params, macs = cost(space, image, Dense(5))(archs)
    found = list(zip(params.tolist(), macs.tolist(), strict=True))
    modules = [flax_reference.build(space, arch, Dense(5), fast=False) for arch in archs]
    assert found == [count(module, image) for module in modules]
    assert found == [one_cost(space, arch, image, Dense(5)) for arch in archs]


def test_logits_are_the_sum_of_each_resolution_s_scores_enlarged():
    """By hand, and by another routine of JAX's."""
    space, images = DEEP, jax.random.normal(jax.random.key(0), (2, 9, 7, CHANNELS))
    module = flax_reference.build(space, np.zeros(4, np.int32), PIXELS)
    variables = jax.jit(functools.partial(module.init, train=False))(jax.random.key(1), images)
    seeing = functools.partial(module.apply, train=False, capture_intermediates=True)
    got, seen = jax.device_get(jax.jit(seeing)(variables, images))
    made = {
        name: calls["__call__"][0]
        for name, calls in seen["intermediates"].items()
        if isinstance(calls, dict) and "__call__" in calls
    }
    variables = jax.device_get(variables)
    stages = [np.maximum(made["stem_norm"], 0), made["stack1_layer1"], made["stack2_layer0"]]
    assert [stage.shape[1:] for stage in stages] == [(9, 7, 8), (5, 4, 24), (3, 2, 8)]
    enlarge = jax.jit(
        lambda x: jax.image.resize(x, (2, 9, 7, CLASSES), "bilinear", antialias=False)
    )
    wanted = variables["params"]["classifier"]["bias"]
    for name, stage in zip(("score0", "score1", "classifier"), stages, strict=True):
        scores = stage @ variables["params"][name]["kernel"]
        wanted = wanted + enlarge(scores)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sizes", [((5, 4), (9, 7)), ((1, 1), (5, 3)), ((5, 7), (5, 7))])
def test_enlarging_is_bilinear_by_the_centres_of_pixels(sizes):
    small, large = sizes
    x = np.random.default_rng(0).normal(size=(3, *small, 2)).astype(np.float32)
    rows, columns = (
        np.clip((np.arange(b) + 0.5) * a / b - 0.5, 0, a - 1)
        for a, b in zip(small, large, strict=True)
    )
    # Triangles around the pixels, beyond the border the border's pixel.
    down, across = (
        np.maximum(0, 1 - np.abs(at[:, None] - np.arange(a)))
        for at, a in zip((rows, columns), small, strict=True)
    )
    wanted = np.einsum("Hh,Ww,bhwc->bHWc", down, across, x)
    enlarged = functools.partial(dense.enlarged, size=large)
    np.testing.assert_allclose(jax.jit(enlarged)(x), wanted, rtol=1e-5, atol=1e-5)


def test_switches_have_the_derivative_of_the_sum_of_all_operations():
    choices = {"k3": layered.conv(3), "mb": layered.mbconv(3, 2)}
    stages = [layered.stage(6, choices), layered.stage(8, choices, stride=2)]
    space = layered.make(stages, stem=4)
    network = elastic.make(space, 1, PIXELS)
    arch, images = jnp.asarray([1, 0]), jax.random.normal(jax.random.key(1), (2, 6, 6, 1))
    params = jax.jit(network.init)(jax.random.key(0), arch)
    weights = jax.random.normal(jax.random.key(2), (2, 6, 6, CLASSES))
    z = jax.nn.one_hot(arch, 2)
    mixed, slope = jax.jit(
        jax.value_and_grad(lambda z: (network.apply_mixed(params, arch, z, images) * weights).sum())
    )(z)
    plain = (jax.jit(network.apply)(params, arch, images) * weights).sum()
    np.testing.assert_allclose(mixed, plain, rtol=1e-4)

    def summed(z):
        """Sums over all operations, written layer by layer, for JAX to differentiate."""
        x = convolutions.conv(images, params["stem"], 0, (3,), 1)
        x, found = ops.norm_act(x, params["stem_norm"], 4, mobile_spaces.act(space.spec))[0], []
        slots = [slot for stack in mobile_spaces.slots(space.spec) for slot in stack]
        for layer, slot, k in zip(network.parts.split(params)[0], slots, z, strict=True):
            found.append(x)
            every = [
                reference.apply(Slot(slot.stride, (choice,)), layer["first"], x, choice)
                for choice in slot.choices
            ]
            x = k[0] * every[0] + k[1] * every[1]
        last = x @ params["classifier"] + params["bias"]
        return (dense.total([found[1] @ params["scores"][0], last], (6, 6)) * weights).sum()

    np.testing.assert_allclose(slope, jax.jit(jax.grad(summed))(z), rtol=2e-3, atol=2e-3)


def test_the_pool_keeps_blocks_and_shares_the_head():
    for name in ("mnas", "cell"):
        network = elastic.make(SPACES[name], CHANNELS, PIXELS)
        arch = SPACES[name].sample(jax.random.key(0), 1)[0]
        params = jax.jit(network.init)(jax.random.key(1), arch)
        blocks, shared = network.parts.split(params)
        assert "scores" in shared and len(shared["scores"]) >= 1
        jax.tree.map(np.testing.assert_array_equal, network.parts.join(blocks, shared), params)
        used = jax.jit(network.parts.used)(arch)
        jax.tree.map(lambda u, p: np.testing.assert_array_equal(u.shape, p.shape), used, params)


def test_a_child_uses_the_rows_of_scores_of_its_own_channels():
    """Exactly those that have a gradient."""
    space = agreement.SPACES["mnas"]
    network = elastic.make(space, CHANNELS, PIXELS)
    images = jax.random.normal(jax.random.key(2), (4, 6, 6, CHANNELS))
    weights = jax.random.normal(jax.random.key(3), (4, 6, 6, CLASSES))
    archs = space.sample(jax.random.key(4), 3)
    params = jax.jit(network.init)(jax.random.key(1), archs[0])

    @jax.jit
    def slopes(arch):
        return jax.grad(lambda p: (network.apply(p, arch, images) * weights).sum())(params)

    use = jax.jit(network.parts.used)
    for arch in archs:
        scores, used = slopes(arch)["scores"], use(arch)["scores"]
        for slope, rows in zip(scores, used, strict=True):
            np.testing.assert_array_equal(np.asarray(slope) != 0, rows)


def test_records_of_layers_say_where_scores_are_taken():
    found = readable.layers(DEEP.spec, np.zeros(4, np.int32), CHANNELS, PIXELS)
    assert [layer["name"] for layer in found] == [
        "stem",
        "score0",
        "stack0_layer0",
        "stack1_layer0",
        "stack1_layer1",
        "score1",
        "stack2_layer0",
        "classifier",
    ]
    widths = [(layer["in"], layer["out"]) for layer in found if "score" in layer["op"]]
    assert widths == [(8, CLASSES), (24, CLASSES), (8, CLASSES)]
