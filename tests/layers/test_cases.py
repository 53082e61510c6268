"""The sizes that code is compiled for: each layer has one, and little is wasted."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.layers import cases
from fnas_jax.layers.spec import CONV, MBCONV, PASS, LayerSpec
from fnas_jax.networks import mobile_spaces
from fnas_jax.spaces import macro, mnas

SPACE = mnas.make(blocks=2, strides=(1, 2), stem=16, stem_stride=1)


@pytest.fixture(scope="module")
def layers():
    """(slot, every layer that children have there), of all slots."""
    slots = [slot for stack in mobile_spaces.slots(SPACE.spec) for slot in stack]
    archs = np.random.default_rng(0).integers(0, SPACE.cardinalities, (2000, 14))
    found = [set() for _ in slots]
    for arch in archs:
        rows = np.stack(np.broadcast_arrays(*mobile_spaces.layers(SPACE.spec, arch)), axis=-1)
        for of_slot, row in zip(found, rows.tolist(), strict=True):
            of_slot.add(LayerSpec(*row))
    return list(zip(slots, found, strict=True))


def places(slot, specs):
    """Of the case of each."""
    rows = LayerSpec(*jnp.asarray([*specs], jnp.int32).T)
    return jax.jit(jax.vmap(functools.partial(cases.index_of, slot)))(rows).tolist()


def macs(stride, v):
    """Of a pixel of the output, as a formula of this test's own."""
    if v.op == CONV:
        return v.kernel**2 * v.cin * v.cout
    expand = stride**2 * v.cin * v.middle if v.op == MBCONV else 0
    return 0 if v.op == PASS else expand + v.kernel**2 * v.middle + v.middle * v.cout


def test_the_case_of_a_layer_holds_it(layers):
    for slot, specs in layers:
        for spec, index in zip(specs, places(slot, specs), strict=True):
            case = cases.of(slot)[index]
            assert (case.op, case.act) == (spec.op, spec.act)
            sizes = ("kernel", "cin", "middle", "cout", "se_hidden")
            # A layer that is not there has no sizes to hold.
            for name in sizes if spec.op != PASS else ():
                assert getattr(case, name) >= getattr(spec, name)


def test_little_is_wasted_by_few_cases(layers):
    for slot, specs in layers:
        found = cases.of(slot)
        sizes = {
            spec._replace(se_hidden=0, skip=0) for spec in specs if spec.op != PASS
        }  # each once
        assert len(found) < len(sizes) / 1.5
        chosen = [found[index] for index in places(slot, sizes)]
        executed = sum(macs(slot.stride, case) for case in chosen)
        needed = sum(macs(slot.stride, spec) for spec in sizes)
        assert needed < executed <= (1 + cases.WASTE) * needed


def test_without_widths_every_layer_is_a_case():
    spec = macro.make().spec
    for stack in mobile_spaces.slots(spec):
        for slot in stack:
            assert len(cases.of(slot)) == len(set(slot.choices))
