"""Every backend makes the children that Flax networks with the same weights are."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core.types import UserError
from fnas_jax.layers import choose as backends
from fnas_jax.layers.choose import branched_in, choose, masked_in
from fnas_jax.networks import cell, mobile
from tests.networks import agreement
from tests.networks.agreement import CHANNELS, CLASSES, SPACES


# Those of the kernels are in test_subnet_weights.py and test_flax_mobile.py; every type of layer on
# every backend is in test_layer_types.py.
@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.slow)
        for name in (
            "layered masked",
            "layered branched",
            "mnas reference",
            "mnas masked",
            "mnas branched",
            "macro masked",
            "macro branched",
            "cell branched",
        )
    ],
)
def case(request):
    return agreement.case(*request.param.split())


@pytest.mark.parametrize("check", agreement.CHECKS)
def test_elastic_child_equals_flax_network(case, check):
    check(case)


# Relative distances of bfloat16 from float32: of outputs in training, and of gradients, by their
# norms. The bounds are about 1.5 to 2 times the largest that was measured, which stands behind.
SHORT = {
    ("mnas", "branched"): (0.016, 0.33),  # 0.0084, 0.1549
    ("mnas", "masked"): (0.016, 0.33),  # 0.0084, 0.1549
    ("macro", "branched"): (0.03, 0.5),  # 0.0140, 0.3404
    ("layered", "branched"): (0.008, 0.021),  # 0.0037, 0.0102
    ("cell", "branched"): (0.032, 0.21),  # 0.0160, 0.1066
}


def in_type(space, name, arch, dtype):
    """The network of one child, whose layers are compiled alone."""
    if space.name == "cell":
        return cell.build(space.spec, CHANNELS, CLASSES, dtype)
    of = (space.spec, arch, CHANNELS, CLASSES)
    backend = {"branched": branched_in, "masked": masked_in}[name](dtype)
    return mobile.network(mobile.fixed(*of, backend))


def distances(space, name, children=2):
    """[children, 2] of outputs and gradients."""
    images = jax.random.normal(jax.random.key(1), (16, 8, 8, CHANNELS))

    def run(arch, dtype):
        net = in_type(space, name, arch, dtype)

        def loss(params):
            logits = net.apply(params, arch, images)
            return agreement.mean_loss(logits), logits

        @jax.jit
        def both():
            params = net.init(jax.random.key(0), arch)
            gradient, logits = jax.grad(loss, has_aux=True)(params)
            return logits.ravel(), jax.flatten_util.ravel_pytree(gradient)[0]

        return both()

    def of(arch):
        pairs = zip(run(arch, jnp.float32), run(arch, jnp.bfloat16), strict=True)
        return [np.linalg.norm(exact - short) / np.linalg.norm(exact) for exact, short in pairs]

    archs = space.canonical(space.sample(jax.random.key(3), children))
    return np.asarray([of(arch) for arch in archs])


@pytest.mark.slow
@pytest.mark.parametrize(("space", "name"), SHORT)
def test_bfloat16_agrees_with_float32(space, name):
    found = distances(SPACES[space], name)
    assert (found > 0).all()  # of the same type, nothing would be compared
    assert (found.max(0) <= SHORT[space, name]).all(), found.max(0)


def test_no_kernels_where_there_is_no_cpu(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(
        UserError, match=r"no kernels.*allowed are auto, reference, masked, branched, exact and"
    ):
        choose("kernels")
    assert choose() is branched_in(jnp.bfloat16)


def test_short_products_are_refused_where_there_are_none(monkeypatch):
    if not backends.compile_kernels.available():
        pytest.skip("no C++ compiler for the kernels")
    monkeypatch.setattr(backends.compile_kernels, "short_products", lambda: False)
    with pytest.raises(UserError, match="'kernels_bf16', and this CPU has no products of bfloat16"):
        choose("kernels_bf16")
    assert not backends.has_short_products()
    monkeypatch.setattr(backends.compile_kernels, "short_products", lambda: True)
    assert choose("kernels_bf16") is backends.SHORT_KERNELS
    assert choose("kernels_bf16").packing == backends.KERNELS.packing
