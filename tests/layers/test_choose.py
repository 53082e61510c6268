"""Every backend makes the children that Flax networks with the same weights are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core.types import UserError
from fnas_jax.layers.choose import choose, masked_in
from fnas_jax.networks import mobile
from tests.networks import agreement
from tests.networks.agreement import CHANNELS, CLASSES, SPACES


# Those of the kernels are in test_subnet_weights.py and test_flax_mobile.py; every type of layer on
# every backend is in test_layer_types.py.
@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("layered masked", "mnas reference", "mnas masked", "macro masked")
    ],
)
def case(request):
    return agreement.case(*request.param.split())


@pytest.mark.parametrize("check", agreement.CHECKS)
def test_elastic_child_equals_flax_network(case, check):
    check(case)


@pytest.mark.slow
def test_bfloat16_changes_the_last_digits_only():
    space = SPACES["mnas"]
    arch = space.sample(jax.random.key(3), 1)[0]
    images = jax.random.normal(jax.random.key(1), (16, 8, 8, CHANNELS))

    def gradient(dtype):
        net = mobile.network(mobile.elastic(space.spec, CHANNELS, CLASSES, masked_in(dtype)))
        params = jax.jit(net.init)(jax.random.key(0), arch)
        run = jax.jit(jax.grad(lambda p: agreement.mean_loss(net.apply(p, arch, images))))
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(run(params))])

    exact, short = gradient(jnp.float32), gradient(jnp.bfloat16)
    assert short.dtype == np.float32
    assert not np.array_equal(exact, short)
    cosine = exact @ short / np.linalg.norm(exact) / np.linalg.norm(short)
    assert cosine > 0.97


def test_no_kernels_where_there_is_no_cpu(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(UserError, match=r"no kernels.*allowed are auto, reference and masked"):
        choose("kernels")
    assert choose() is masked_in(jnp.bfloat16)
