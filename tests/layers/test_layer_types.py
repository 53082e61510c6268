"""Every kind of layer: each backend, the Flax network and the cost agree on a space of its own.

Kernels of 3, 5 and 7, three operations, two activations, squeeze-excitation by both sigmoids and
skips, in slots where any of them may occur.
"""

from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.layers import compile_kernels
from fnas_jax.layers.spec import (
    CONV,
    HARD_GATE,
    HARD_SWISH,
    IDENTITY,
    MBCONV,
    NO_SKIP,
    POOL,
    RELU,
    SEPCONV,
    LayerSpec,
    Slot,
)
from fnas_jax.networks import mobile_spaces
from fnas_jax.networks.cost import cost, one_cost
from fnas_jax.spaces import categorical
from tests.networks import agreement
from tests.networks.test_cost import count


class Spec(NamedTuple):
    """A stem, a layer of stride 2, one that keeps its shape, a head and a layer of its average."""

    stem: int = 8
    stem_stride: int = 1
    head: int = 16
    mix: int = 12


WIDTHS = ((8, 16), (16, 16))
WEIGHED = HARD_SWISH + HARD_GATE
CHOICES = (
    lambda cin, cout: LayerSpec(CONV, 7, cin, 0, cout, 0, NO_SKIP, RELU),
    lambda cin, cout: LayerSpec(CONV, 3, cin, 0, cout, cin // 4, POOL, HARD_SWISH),
    lambda cin, cout: LayerSpec(SEPCONV, 7, cin, cin, cout, 0, NO_SKIP, HARD_SWISH),
    lambda cin, cout: LayerSpec(MBCONV, 5, cin, 3 * cin, cout, 0, NO_SKIP, RELU),
    lambda cin, cout: LayerSpec(
        MBCONV, 7, cin, 2 * cin, cout, cin // 4, IDENTITY if cin == cout else POOL, WEIGHED
    ),
)
TABLE = np.asarray([[choice(*widths) for choice in CHOICES] for widths in WIDTHS], np.int32)
ARCHS = np.asarray([[0, 4], [4, 2], [1, 3], [2, 1], [3, 0]])


def slots(spec: Spec) -> tuple[tuple[Slot, ...], ...]:
    return tuple(
        (Slot(stride, tuple(choice(*widths) for choice in CHOICES)),)
        for stride, widths in zip((2, 1), WIDTHS, strict=True)
    )


def layers(spec: Spec, arch: Any) -> LayerSpec:
    xp = jnp if isinstance(arch, jax.Array) else np
    return LayerSpec(*xp.asarray(TABLE)[np.arange(2), arch].T)


@pytest.fixture(scope="module")
def space():
    module = SimpleNamespace(slots=slots, layers=layers, ACT=HARD_SWISH)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(mobile_spaces.MODULES, Spec, module)
        yield categorical.make((len(CHOICES),) * 2)._replace(spec=Spec())


# What masks are compared with in test_dense.py and test_mixed_op.py, and the kernels elsewhere.
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("masked", "reference")]
BACKENDS = ["kernels", "branched", *SLOW]


@pytest.fixture(scope="module", params=BACKENDS)
def case(request, space):
    if request.param == "kernels" and not compile_kernels.available():
        pytest.skip("no C++ compiler for the kernels")
    return agreement.case(space, request.param, ARCHS)


@pytest.mark.parametrize("check", agreement.CHECKS)
def test_elastic_child_equals_flax_network(case, check):
    check(case)


def test_cost_equals_a_count_over_the_flax_network(space):
    image, classes = (9, 12, 2), 5
    params, macs = cost(space, image, classes)(ARCHS)
    found = list(zip(params.tolist(), macs.tolist(), strict=True))
    modules = [agreement.flax_reference.build(space, arch, classes, fast=False) for arch in ARCHS]
    assert found == [count(module, image) for module in modules]
    assert found == [one_cost(space, arch, image, classes) for arch in ARCHS]
