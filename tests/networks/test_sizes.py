"""What layers keep, by formula, against JAX's own derivatives, traced."""

import jax
import numpy as np
import pytest

from fnas_jax.layers import compile_kernels
from fnas_jax.layers import own as own_lib
from fnas_jax.networks import elastic, mobile_spaces, sizes
from fnas_jax.spaces import cell, macro, mixed_cell, mixed_chain, mnas, mobilenetv3
from tests.layers import own_layers

SHAPE, BATCH = (24, 24, 3), 16


def small():
    return mnas.make(blocks=3, strides=(1, 2, 2), stem=16, stem_stride=1, head=64)


def large():
    return mobilenetv3.make(stages=3, width=0.5, strides=(1, 2, 1), stem_stride=1)


SPACES = {
    "mnas": small,
    "macro": macro.make,
    "cell": lambda: cell.make(4, 1),
    "mixed_cell": lambda: mixed_cell.make(4, 1),
    "mixed_chain": lambda: mixed_chain.make(4, 1),
    "mobilenetv3": large,
}


KERNELS = [("kernels", sizes.FLOAT), ("kernels_bf16", sizes.SHORT)]


def test_layers_of_the_users_own_keep_float32_numbers():
    """Where one may occur kernels do not run."""
    space = own_layers.space
    whole, half = (sizes.widest(space, (8, 8, 1), each) for each in (sizes.FLOAT, sizes.SHORT))
    slots = [slot for stack in mobile_spaces.slots(space.spec) for slot in stack]
    assert slots and all(map(own_lib.codes, slots))
    side = 8 // space.spec.stem_stride
    stem, head = side**2 * 16, (side // 2) ** 2 * 16  # 8 and 16 channels are a vector
    assert whole.layers - half.layers == (sizes.FLOAT - sizes.SHORT) * (stem + head)


@pytest.mark.skipif(not compile_kernels.available(), reason="no kernels for this CPU")
@pytest.mark.parametrize(("backend", "each"), KERNELS)
def test_the_formula_is_what_the_kernels_keep(backend, each, monkeypatch):
    """Of a network of one architecture, whose layers have no room for others."""
    monkeypatch.setattr(compile_kernels, "short_products", lambda: True)  # traced only
    space = small()
    for arch in np.asarray(space.canonical(space.sample(jax.random.key(0), 3))):
        network = elastic.fixed_network(space, arch, SHAPE, 10, backend=backend)
        traced = sizes.traced(network, len(arch), (BATCH, *SHAPE))
        formula = sizes.by_kernels(space, SHAPE, arch, each)
        # Layers of the elastic network have results of the widest child.
        assert traced.layers <= 1.05 * BATCH * formula.layers
        assert BATCH * formula.layers <= 1.6 * traced.layers


@pytest.mark.skipif(not compile_kernels.available(), reason="no kernels for this CPU")
@pytest.mark.parametrize(("backend", "each"), KERNELS)
def test_no_child_keeps_more_than_the_widest_and_that_is_what_is_reserved(
    backend, each, monkeypatch
):
    monkeypatch.setattr(compile_kernels, "short_products", lambda: True)  # traced only
    space = small()
    most = sizes.widest(space, SHAPE, each)
    for arch in np.asarray(space.canonical(space.sample(jax.random.key(0), 32))):
        own = sizes.by_kernels(space, SHAPE, arch, each)
        assert own.layers <= most.layers and own.largest <= most.largest
    network = elastic.make(space, 3, 10, backend)
    traced = sizes.traced(network, len(space.cardinalities), (BATCH, *SHAPE))
    assert traced.layers == pytest.approx(BATCH * most.layers, rel=0.05)


@pytest.mark.parametrize("name", SPACES)
def test_no_elastic_network_has_more_parameters_than_the_bound(name):
    space = SPACES[name]()
    network = elastic.make(space, 3, 10)
    real = sizes.parameters(network, len(space.cardinalities))
    shapes = jax.eval_shape(
        network.init, jax.random.key(0), np.zeros(len(space.cardinalities), int)
    )
    assert real == 4 * sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert real <= sizes.most_parameters(space, SHAPE, 10) <= 6 * real


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["masked", "reference"])
@pytest.mark.parametrize("name", SPACES)
def test_xla_code_keeps_no_more_than_five_times_the_formula(name, backend):
    if name in ("cell", "mixed_cell", "mixed_chain") and backend == "masked":
        pytest.skip("spaces of cells have one backend")
    space = SPACES[name]()
    network = elastic.make(space, 3, 10, backend)
    traced = sizes.traced(network, len(space.cardinalities), (BATCH, *SHAPE))
    assert traced.layers <= 5 * BATCH * sizes.widest(space, SHAPE).layers
