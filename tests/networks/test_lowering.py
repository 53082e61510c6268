"""Training steps are lowered for accelerators, with no code of ours for CPUs in them."""

import functools
import re

import jax
import jax.numpy as jnp
import pytest
from jax import export

from fnas_jax.layers import compile_kernels
from fnas_jax.layers.choose import branched_in, choose, masked_in
from fnas_jax.networks import cell as cell_network
from fnas_jax.networks import mobile
from fnas_jax.objectives import classification
from fnas_jax.objectives.base import Known
from fnas_jax.training import child, minibatches, population
from fnas_jax.training.config import Children
from fnas_jax.training.minibatches import Data, Pipeline
from tests.networks.agreement import CHANNELS, CLASSES, SPACES

SETTINGS = Children(batch_size=4, eval_batch=4)
BACKENDS = {"branched": branched_in(jnp.bfloat16), "masked": masked_in(jnp.bfloat16)}


def network(space, backend):
    if space.name == "cell":
        return cell_network.build(space.spec, CHANNELS, CLASSES, jnp.bfloat16)
    return mobile.network(mobile.elastic(space.spec, CHANNELS, CLASSES, backend))


def lowered(space, backend, group, platforms):
    """The text of a program that trains and judges two children."""
    ctx = child.Context(
        network(space, backend),
        SETTINGS,
        Pipeline(lambda x: x.astype(jnp.float32), minibatches.unchanged),
        classification.make(Known(CLASSES, {}), "accuracy"),
    )

    def one(data, given):
        arch, key = given
        key = jax.random.wrap_key_data(key)
        params = child.train(ctx, data, arch, key, jnp.int32(3))
        return child.evaluate(ctx, data, arch, params, jnp.bool_(True))[1]

    def run(data, archs, keys):
        return population.in_groups(functools.partial(one, data), (archs, keys), group)

    def shape(*of, dtype=jnp.int32):
        return jax.ShapeDtypeStruct(of, dtype)

    images, labels = shape(8, 8, 8, CHANNELS, dtype=jnp.uint8), shape(8)
    data = Data(images, labels, images, labels)
    given = shape(2, len(space.cardinalities)), shape(2, 2, dtype=jnp.uint32)
    return export.export(jax.jit(run), platforms=platforms)(data, *given).mlir_module()


CASES = [("macro", "branched", 2)]
SLOW = [
    ("macro", "branched", 1),
    ("macro", "masked", 2),
    *[("mnas", backend, group) for backend in BACKENDS for group in (1, 2)],
    *[(space, backend, 2) for space in ("layered", "mobilenetv3") for backend in BACKENDS],
    *[("cell", "branched", group) for group in (1, 2)],
]


@pytest.mark.parametrize(
    ("space", "backend", "group"),
    [*CASES, *[pytest.param(*case, marks=pytest.mark.slow) for case in SLOW]],
)
def test_training_is_lowered_for_accelerators_without_kernels_for_cpus(space, backend, group):
    text = lowered(SPACES[space], BACKENDS[backend], group, ["cuda", "tpu"])
    called = set(re.findall(r"custom_call @\"?(\w+)", text))
    assert not called & set(compile_kernels.TARGETS)
    assert "bf16" in text


@pytest.mark.skipif(not compile_kernels.available(), reason="no C++ compiler for the kernels")
def test_what_is_looked_for_would_be_found():
    """JAX itself refuses programs whose custom calls are not its own."""
    with pytest.raises(ValueError, match=compile_kernels.TARGETS[0]):
        lowered(SPACES["macro"], choose("kernels"), 1, ["cpu"])
