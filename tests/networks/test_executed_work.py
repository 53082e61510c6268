"""What random children execute on an accelerator, against their exact multiply-adds.

Counted, not timed (`experiments.benchmarks.executed`): nothing is compiled or run. A training step
is three times the forward pass, but for the stem, whose input needs no derivative.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks.executed import multiply_adds
from experiments.benchmarks.throughput import common
from fnas_jax.layers.choose import branched_in, exact_in, masked_in
from fnas_jax.networks import cell as cell_network
from fnas_jax.networks import mobile
from fnas_jax.networks.cost import one_cost
from fnas_jax.spaces import cell, macro, mnas
from fnas_jax.training import population

CLASSES, BATCH = 10, 2
SPACES = {
    "tiny": (mnas.make(blocks=2, strides=(1, 2), stem=16, stem_stride=1), 16),
    "small": (common.space(common.MNAS), common.SIDE),
    "macro": (macro.make(), 32),
    "cell": (cell.make(), 32),
    "full": (mnas.make(), 224),
}
ALONE, TOGETHER = 1.3, 2.0  # at most


def network(name, backend=branched_in):
    space = SPACES[name][0]
    if name == "cell":
        return cell_network.build(space.spec, 3, CLASSES, jnp.bfloat16)
    return mobile.network(mobile.elastic(space.spec, 3, CLASSES, backend(jnp.bfloat16)))


def ratio(name, children, group, step, backend=branched_in):
    """Executed over exact multiply-adds of as many random children, `group` at once."""
    space, side = SPACES[name]
    net = network(name, backend)
    archs = np.asarray(space.canonical(space.sample(jax.random.key(0), children)))
    exact = np.asarray([one_cost(space, arch, (side, side, 3), CLASSES)[1] for arch in archs])
    if step:
        size = side if name == "cell" else -(-side // space.spec.stem_stride)
        width = space.spec.channels if name == "cell" else space.spec.stem
        exact = 3 * exact - 27 * width * size**2
    shapes = jax.eval_shape(net.init, jax.random.key(0), archs[0])
    images = jax.ShapeDtypeStruct((children, BATCH, side, side, 3), jnp.float32)

    def loss(params, arch, x):
        return (net.apply(params, arch, x) ** 2).sum()

    def run(params, archs, images):
        one = jax.grad(loss) if step else net.apply
        return population.in_groups(lambda of: one(*of), (params, archs, images), group)

    params = jax.tree.map(lambda s: jax.ShapeDtypeStruct((children, *s.shape), s.dtype), shapes)
    return multiply_adds(run, params, archs, images) / (BATCH * exact.sum())


@pytest.mark.parametrize(
    ("group", "most"), [(1, ALONE), pytest.param(3, TOGETHER, marks=pytest.mark.slow)]
)
def test_little_is_executed_for_nothing(group, most):
    assert 0.99 <= ratio("macro", 3, group, True) <= most


@pytest.mark.parametrize(
    "name", ["tiny", *(pytest.param(n, marks=pytest.mark.slow) for n in ("small", "macro", "full"))]
)
def test_nothing_is_by_a_program_for_each_child(name, monkeypatch):
    space = SPACES[name][0]
    arch = np.asarray(space.canonical(space.sample(jax.random.key(0), 1)))[0]
    made = mobile.exact(space.spec, arch, 3, CLASSES, exact_in(jnp.bfloat16))
    monkeypatch.setattr(f"{__name__}.network", lambda *_: mobile.network(made))
    assert 0.99 <= ratio(name, 1, 1, True) <= 1.01


@pytest.mark.slow
def test_what_is_counted_would_tell():
    assert ratio("tiny", 3, 3, True, masked_in) > 4


@pytest.mark.slow
@pytest.mark.parametrize("step", [False, True], ids=["forward", "step"])
@pytest.mark.parametrize("group", [1, 8])
@pytest.mark.parametrize("name", ["tiny", "small", "macro", "cell", "full"])
def test_nor_in_any_space(name, group, step):
    assert 0.99 <= ratio(name, 8, group, step) <= (ALONE if group == 1 else TOGETHER)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small", "macro", "cell"])
def test_nor_in_batches_whose_tiles_hold_several(name):
    assert 0.99 <= ratio(name, 64, 64, True) <= TOGETHER
