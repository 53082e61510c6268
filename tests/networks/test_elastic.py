"""Which backend a network runs on: what was asked for, or a refusal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core.types import UserError
from fnas_jax.layers.choose import REFERENCE, branched_in, masked_in
from fnas_jax.networks import elastic
from fnas_jax.spaces import categorical, cell, macro, mixed_cell, mixed_chain, mnas

MADE = {
    "reference": REFERENCE,
    "masked": masked_in(jnp.float32),
    "branched": branched_in(jnp.float32),
}
MNAS, MACRO, CELL = mnas.make(blocks=1), macro.make(), cell.make(channels=4, cells_per_stage=1)
MIXED = mixed_cell.make(channels=4, cells_per_stage=1)
CHAIN = mixed_chain.make(channels=4, cells_per_stage=1)
CELLS = pytest.mark.parametrize("space", [CELL, MIXED, CHAIN], ids=lambda space: space.name)


@pytest.mark.parametrize("space", [MNAS, MACRO], ids=["mnas", "macro"])
def test_mobile_networks_run_on_the_backend_that_was_asked_for(space):
    arch = np.zeros(len(space.cardinalities), np.int32)
    for name, backend in MADE.items():
        networks = [
            elastic.make(space, 1, 10, name),
            elastic.fixed_network(space, arch, (8, 8, 1), 10, backend=name),
        ]
        for network in networks:
            for function in (network.apply, network.apply_eval):
                assert function.args[0].backend is backend


def test_one_shot_training_by_switches_runs_on_it_too():
    network = elastic.make(MACRO, 1, 10, "reference")
    assert network.apply_mixed.args[0].backend is REFERENCE
    assert elastic.make(MNAS, 1, 10).apply_mixed is None


@pytest.mark.parametrize("name", ["kernels", "masked"])
@CELLS
def test_cells_have_one_backend_and_refuse_the_others(name, space):
    sentence = f"children.backend is '{name}'; .* allow auto, reference and branched"
    with pytest.raises(UserError, match=sentence):
        elastic.make(space, 1, 10, name)
    with pytest.raises(UserError, match=sentence):
        elastic.fixed_network(space, 0 * space.largest, (8, 8, 1), 10, backend=name)


@pytest.mark.parametrize("name", elastic.CELL_BACKENDS)
@CELLS
def test_cells_run_on_those_that_they_allow(name, space):
    arch = jnp.asarray(0 * space.largest)
    for network in (
        elastic.make(space, 1, 10, name),
        elastic.fixed_network(space, arch, (8, 8, 1), 10, backend=name),
    ):
        params = jax.eval_shape(network.init, jax.random.key(0), arch)
        logits = jax.eval_shape(network.apply, params, arch, jnp.zeros((2, 8, 8, 1)))
        assert logits.shape == (2, 10)


def test_a_space_without_networks_is_refused():
    space = categorical.make((2, 3))
    with pytest.raises(ValueError, match="has no networks"):
        elastic.make(space, 1, 10)
    with pytest.raises(ValueError, match="has no networks"):
        elastic.fixed_network(space, [0, 0], (8, 8, 1), 10)
