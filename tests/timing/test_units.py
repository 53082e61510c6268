"""The operations of networks, against those that plain Flax networks run."""

import collections

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.layers.spec import RELU
from fnas_jax.networks import flax_reference
from fnas_jax.spaces import (
    categorical,
    cell,
    layered,
    macro,
    mixed_cell,
    mixed_chain,
    mnas,
    mobilenetv3,
)
from fnas_jax.timing import lookup, operations, units, whole
from fnas_jax.timing.units import Unit

IMAGE, CLASSES = (9, 12, 2), 5
SPACES = {
    "mnas": mnas.make(blocks=3, strides=(1, 2, 2), width=0.5, stem_stride=2, head=40),
    "mnas_without_head": mnas.make(blocks=2, strides=(2, 1), head=0),
    "macro": macro.make(macro.MacroSpec(strides=(1, 2, 2), channels=(8, 24, 32), head=16)),
    "cell": cell.make(channels=6, cells_per_stage=2),
    "mixed_cell": mixed_cell.make(channels=6, cells_per_stage=2),
    "mixed_chain": mixed_chain.make(channels=6, cells_per_stage=2),
    "mobilenetv3": mobilenetv3.make(stages=3, width=0.5, strides=(1, 2, 1)),
    "layered": layered.make(
        [
            layered.stage(8, {"k3": layered.conv(3), "mb": layered.mbconv(5, 3, se=True)}),
            layered.stage(
                24,
                {"mb": layered.mbconv(3, 6, act="hard_swish"), "k5": layered.conv(5, skip="pool")},
                depth=2,
                stride=2,
                optional=True,
            ),
        ],
        stem=16,
    ),
}


def run_by_flax(space, arch):
    """Every convolution and linear layer that the network runs, with its input's size, counted."""
    found = collections.Counter()

    def note(call, args, kwargs, context):
        module, (x, *_) = context.module, args or (None,)
        if context.method_name == "__call__" and isinstance(module, nn.Conv | nn.Dense):
            size, stride, depthwise = (1, 1), 1, False
            if isinstance(module, nn.Conv):
                size, stride = module.kernel_size, module.strides[0]
                depthwise = module.feature_group_count > 1
            found[(*x.shape[1:], module.features, *size, stride, depthwise)] += 1
        return call(*args, **kwargs)

    module = flax_reference.build(space, arch, CLASSES, fast=False)
    with nn.intercept_methods(note):
        image = jnp.zeros((1, *IMAGE))
        jax.eval_shape(lambda: module.init(jax.random.key(0), image, train=False))
    return found


def run_by_units(space, arch):
    found = collections.Counter()
    for u in units.of_network(space, arch, IMAGE, CLASSES):
        shape = (u.height, u.width, u.cin)
        if u.kind in ("conv", "depthwise", "edge"):
            depthwise = u.kind == "depthwise"
            found[(*shape, u.cout, u.kernel, u.kernel, u.stride, depthwise)] += 1
        elif u.kind == "gate":
            found[(u.cin, u.cout, 1, 1, 1, False)] += 1
            found[(u.cout, u.cin, 1, 1, 1, False)] += 1
        elif u.kind == "classifier":
            found[(u.cin, u.cout, 1, 1, 1, False)] += 1
        elif u.kind == "reduction":
            after = (-(-u.height // 2), -(-u.width // 2))
            found[(*shape, u.cout, 3, 3, 2, False)] += 1
            found[(*after, u.cout, u.cout, 3, 3, 1, False)] += 1
            found[(*after, u.cin, u.cout, 1, 1, 1, False)] += 1
    return found


@pytest.mark.parametrize("name", SPACES)
def test_they_are_the_convolutions_and_linear_layers_of_the_plain_network(name):
    space = SPACES[name]
    for arch in np.asarray(space.sample(jax.random.key(2), 4)):
        assert run_by_units(space, arch) == run_by_flax(space, arch)


def test_skips_pools_and_sums_are_counted():
    space = mnas.make(blocks=1, strides=(2,), width=1.0, stem=16, stem_stride=1, head=0)
    arch = space.parse("sepconv-e3-k3-se0-pool-f1.25-l+1")
    kinds = [u.kind for u in units.of_network(space, arch, (8, 8, 1), 3)]
    assert kinds == ["conv", *2 * ["depthwise", "conv", "pool"], "classifier"]
    arch = space.parse("conv-e3-k3-se0.25-identity-f1.25-l+1")
    kinds = [u.kind for u in units.of_network(space, arch, (8, 8, 1), 3)]
    assert kinds == ["conv", "conv", "gate", "conv", "gate", "add", "classifier"]
    found = SPACES["cell"].parse(
        "|nor_conv_3x3~0|+|avg_pool_3x3~0|skip_connect~1|+|none~0|none~1|nor_conv_1x1~2|"
    )
    kinds = collections.Counter(
        u.kind for u in units.of_network(SPACES["cell"], found, (8, 8, 1), 3)
    )
    cells = 6  # three stages of two
    assert (kinds["edge"], kinds["average"], kinds["add"]) == (2 * cells, cells, cells)


@pytest.mark.parametrize("name", SPACES)
def test_every_operation_has_a_program_and_a_key_of_its_own(name):
    found = lookup.of_space(SPACES[name], IMAGE, CLASSES)
    assert len({u.key for u in found}) == len(set(found)) == len(found)
    one_of_each = {unit.kind: unit for unit in found}.values()
    for unit in one_of_each:
        function, args = operations.program(unit, 2)
        shape = jax.eval_shape(function, *args)[1].shape
        expected = (2, -(-unit.height // unit.stride), -(-unit.width // unit.stride), unit.cout)
        if unit.kind == "gate":
            expected = (2, unit.height, unit.width, unit.cin)
        assert shape == ((2, CLASSES) if unit.kind == "classifier" else expected)


def test_a_row_of_runs_computes_each_of_them():
    unit = Unit("conv", 3, 3, 2, 4, kernel=3, act=RELU)
    function, (x, y) = operations.program(unit, 1)
    expected, start = (x, y), (x, y)
    module = operations.Operation(unit)
    variables = operations.drawn(module, x, x)
    for _ in range(operations.CHAIN):
        x = expected[0].at[0, 0, 0, 0].set(expected[1][0, 0, 0, 0])
        expected = (x, module.apply(variables, x, x))
    for got, wanted in zip(jax.jit(function)(*start), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4)
    assert float(jnp.abs(expected[1]).max()) > 0


def test_weights_are_constants_of_the_programs_that_are_timed():
    """As they are of exported networks, of which a third of the time is saved so."""
    space = SPACES["cell"]
    images = whole.Images((8, 8, 1), np.uint8, 3, lambda pixels: pixels / 255.0)
    for (function, args), kernel in (
        (whole.program(space, [3, 1, 1, 1, 1, 1], images, 2), "3x3x1x6"),
        (operations.program(Unit("conv", 3, 3, 2, 4, kernel=3), 2), "3x3x2x4"),
    ):
        held = [leaf.shape for leaf in jax.tree.leaves(args)]
        assert all(len(shape) == 4 and shape[0] == 2 for shape in held)  # images and results only
        lines = jax.jit(function).lower(*args).as_text().splitlines()
        constants = [line for line in lines if f"tensor<{kernel}xf32>" in line]
        assert "stablehlo.constant" in constants[0]
        assert "dense<0.0" not in constants[0]  # numbers, and not one for all


def test_a_space_without_networks_is_refused():
    for function in (lookup.of_space, lambda s, *rest: units.of_network(s, [0, 0], *rest)):
        with pytest.raises(ValueError, match="has no networks"):
            function(categorical.make((2, 3)), IMAGE, CLASSES)
