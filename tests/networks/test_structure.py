"""Counts, depths and sizes of networks, against walks through every one of them."""

import jax
import numpy as np
import pytest

from fnas_jax.layers.spec import CONV, IDENTITY, MBCONV, POOL, SEPCONV
from fnas_jax.networks import mobile_spaces, structure
from fnas_jax.spaces import (
    categorical,
    cell,
    cells,
    macro,
    mixed_cell,
    mixed_chain,
    mnas,
    mobilenetv3,
)

CELLS = {"cell": cell.make(), "mixed_cell": mixed_cell.make(), "mixed_chain": mixed_chain.make()}
MOBILE = {
    "mnas": mnas.make(blocks=3, strides=(1, 2, 1)),
    "macro": macro.make(),
    "mobilenetv3": mobilenetv3.make(stages=2),
}


def networks(space, n=200):
    return np.asarray(space.canonical(space.sample(jax.random.key(0), n)))


def ways(running, node=0):
    """How many convolutions each way from `node` to the last one passes."""
    if node == 3:
        return [0]
    return [
        way + r.op.startswith("nor_conv")
        for r in running
        if r.source == node
        for way in ways(running, r.target)
    ]


@pytest.mark.parametrize("name", CELLS)
def test_cells_are_walked_through(name):
    space = CELLS[name]
    part = structure.structure(space)
    assert part.names == (*mixed_cell.OPS, "longest_path", "shortest_path")
    archs = networks(space)
    found = np.asarray(jax.jit(part.of)(archs))
    through = 0
    for arch, numbers in zip(archs, found, strict=True):
        running = cells.running(space.spec, arch)
        counts = [sum(r.op == op for r in running) for op in mixed_cell.OPS]
        lengths = ways(running)
        through += bool(lengths)
        longest = max(lengths) if lengths else -1
        shortest = min(lengths) if lengths else structure.NODES
        np.testing.assert_array_equal(numbers, [*counts, longest, shortest])
    assert through > 100


@pytest.mark.parametrize("name", MOBILE)
def test_layers_are_counted_one_by_one(name):
    space = MOBILE[name]
    part = structure.structure(space)
    archs = networks(space, 100)
    found = np.asarray(jax.jit(part.of)(archs))
    assert found.shape == (100, len(part.names))
    for arch, numbers in zip(archs, found, strict=True):
        layers = [layer for *_, layer in mobile_spaces.layers_of(space.spec, arch)]
        counts = [sum(layer.op == op for layer in layers) for op in (CONV, SEPCONV, MBCONV)]
        expected = {
            "layers": len(layers),
            "conv": counts[0],
            "sepconv": counts[1],
            "mbconv": counts[2],
            "own": 0,
            "squeeze": sum(layer.se_hidden > 0 for layer in layers),
            "identity": sum(layer.skip == IDENTITY for layer in layers),
            "pool": sum(layer.skip == POOL for layer in layers),
            "kernel": np.mean([layer.kernel for layer in layers]),
            "log_width": np.mean([np.log(layer.cout) for layer in layers]),
        }
        assert tuple(expected) == part.names
        np.testing.assert_allclose(numbers, list(expected.values()), rtol=1e-5, atol=1e-5)


def test_nothing_is_known_of_spaces_without_networks():
    assert structure.structure(categorical.make((2, 3))) is None
