"""Parameters and multiply-adds, against published figures and a count over the plain modules."""

import json
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.layers.spec import LayerSpec
from fnas_jax.networks import flax_reference, mobile_spaces
from fnas_jax.networks import mobilenetv3 as mobilenetv3_layers
from fnas_jax.networks.cost import cost, layer_cost, one_cost
from fnas_jax.spaces import (
    base,
    categorical,
    cell,
    macro,
    mixed_cell,
    mixed_chain,
    mnas,
    mobilenetv3,
)


def test_macro_equals_all_6561_published_figures(tables_dir):
    table = json.loads((tables_dir / "nas_bench_macro_cifar10.json").read_text())
    space = macro.make()
    archs = np.array([space.parse(text) for text in table])
    params, macs = jax.jit(cost(space, (32, 32, 3), 10))(archs)
    assert len(params) == 6561
    np.testing.assert_array_equal(params, [row["params"] for row in table.values()])
    np.testing.assert_array_equal(macs, [row["flops"] for row in table.values()])


@pytest.mark.parametrize(
    ("image", "classes", "params", "flops"),
    [
        ((32, 32, 3), 10, (73306, 1531546), (7783050, 220119690)),
        ((32, 32, 3), 100, (79156, 1537396), (7788900, 220125540)),
        ((16, 16, 3), 120, (80456, 1538696), (1953400, 55037560)),
    ],
)
def test_cell_spans_the_published_range(image, classes, params, flops):
    """Extremes of NAS-Bench-201 on CIFAR-10, CIFAR-100 and ImageNet16-120."""
    space = cell.make()
    found, macs = cost(space, image, classes)(base.enumerate_all(space))
    assert (found.min(), found.max()) == params
    # The published FLOPs count the classifier's bias.
    assert (macs.min() + classes, macs.max() + classes) == flops


def test_cell_with_three_convolutions_as_published():
    space = cell.make()
    text = "|skip_connect~0|+|none~0|nor_conv_3x3~1|+|avg_pool_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    assert cost(space, (32, 32, 3), 10)(space.parse(text)[None])[0][0] == 802426


def test_mnas_reference_is_mobilenet_v2_but_for_its_first_block():
    """MobileNetV2 has 3,504,872 parameters; its first block expands by 1 and not by 6."""
    space = mnas.make()
    params, macs = cost(space, (224, 224, 3), 1000)(mobile_spaces.reference(space.spec)[None])
    narrow = 9 * 32 + 32 * 16
    wide = 32 * 192 + 9 * 192 + 192 * 16
    assert params[0] == 3504872 + (wide + 4 * 192) - (narrow + 2 * 32)
    assert macs[0] == 300774272 + (wide - narrow) * 112**2


def test_mobilenetv3_large_as_published():
    """torchvision's has 5,483,032 parameters and 0.217 G multiply-adds (the paper: 5.4 and 219 M).

    Three of its layers expand by 2.5 or 2.3, which the space does not have: there they expand by 3.
    """
    space, image, classes = mobilenetv3.make(), (224, 224, 3), 1000
    arch = mobile_spaces.reference(space.spec)
    params, macs = one_cost(space, arch, image, classes)
    large = {7: 200, 8: 184, 9: 184}  # channels of their depthwise convolutions
    size = 112
    for i, (_, _, stride, row) in enumerate(mobile_spaces.layers_of(space.spec, arch)):
        if i in large:
            own = mobilenetv3_layers.layer(3, stride, 3, 80, large[i], 80)
            more, fewer = (layer_cost(LayerSpec(*v), stride, size, size) for v in (own, row))
            params, macs = params + more[0] - fewer[0], macs + more[1] - fewer[1]
        size = -(-size // stride)
    assert (params, macs) == (5_483_032, 216_589_760)


SMALL = {
    "mnas": mnas.make(blocks=3, width=0.5, stem_stride=1, head=40),
    "mnas_without_head": mnas.make(blocks=2, strides=(2, 2), head=0),
    "macro": macro.make(macro.MacroSpec(strides=(1, 2, 2), channels=(8, 24, 32), head=0)),
    "cell": cell.make(channels=6, cells_per_stage=2),
    "mixed_cell": mixed_cell.make(channels=6, cells_per_stage=2),
    "mixed_chain": mixed_chain.make(channels=6, cells_per_stage=2),
    "mobilenetv3": mobilenetv3.make(stages=4, width=0.5, strides=(1, 2, 1, 2), stem_stride=1),
}


def count(module, image):
    """Parameters and multiply-adds of a module, without running it."""
    macs = 0

    def add(call, args, kwargs, context):
        nonlocal macs
        y = call(*args, **kwargs)
        if isinstance(context.module, nn.Conv | nn.Dense) and context.method_name == "__call__":
            kernel = context.module.get_variable("params", "kernel")
            macs += math.prod(y.shape[:-1]) * math.prod(kernel.shape)
        return y

    with nn.intercept_methods(add):
        shapes = jax.eval_shape(
            lambda: module.init(jax.random.key(0), jnp.zeros((1, *image)), train=False)
        )
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"])), macs


@pytest.mark.parametrize("name", SMALL)
def test_equals_a_count_over_the_plain_module(name):
    space, image, classes = SMALL[name], (9, 12, 2), 5
    archs = np.array(space.sample(jax.random.key(3), 6))
    params, macs = cost(space, image, classes)(archs)
    found = list(zip(params.tolist(), macs.tolist(), strict=True))
    modules = [flax_reference.build(space, arch, classes, fast=False) for arch in archs]
    assert found == [count(module, image) for module in modules]
    assert found == [one_cost(space, arch, image, classes) for arch in archs]


def test_networks_beyond_int32_are_counted_in_float32():
    space = mnas.make(width=4.0)
    params, macs = cost(space, (224, 224, 3), 1000)(mobile_spaces.reference(space.spec)[None])
    assert params.dtype == macs.dtype == jnp.float32
    assert 5e9 < macs[0] < 8e9


def test_a_space_without_networks_is_refused():
    space = categorical.make((2, 3))
    with pytest.raises(ValueError, match="has no networks"):
        cost(space, (8, 8, 1), 10)
    with pytest.raises(ValueError, match="has no networks"):
        one_cost(space, [0, 0], (8, 8, 1), 10)
