"""A child's layers are the same as Python ints and inside a compiled network."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnas_jax.layers.spec import CONV, IDENTITY, PASS, LayerSpec
from fnas_jax.networks import mobile_spaces
from fnas_jax.spaces import macro, mnas, mobilenetv3

SPACES = {
    "mnas": mnas.make(blocks=4, width=0.75),
    "mnas_small": mnas.make(blocks=2, strides=(1, 2), width=0.5, stem=16, stem_stride=1, head=0),
    "mobilenetv3": mobilenetv3.make(),
    "macro": macro.make(macro.MacroSpec(strides=(2, 1, 2), channels=(8, 8, 16), stem=8)),
}
TRACED = {
    name: jax.jit(lambda arch, spec=space.spec: mobile_spaces.layers(spec, arch))
    for name, space in SPACES.items()
}


def some_arch(data, space):
    choices = (st.integers(0, k - 1) for k in space.cardinalities)
    return np.asarray(data.draw(st.tuples(*choices)), np.int32)


@pytest.mark.parametrize("name", SPACES)
@given(data=st.data())
def test_traced_layers_equal_integer_layers(name, data):
    arch = some_arch(data, SPACES[name])
    traced = np.stack([np.asarray(f) for f in TRACED[name](arch)], axis=-1)
    exists = traced[:, 0] != PASS
    ints = mobile_spaces.layers_of(SPACES[name].spec, arch)
    assert traced[exists].tolist() == [list(layer) for *_, layer in ints]
    assert all(isinstance(number, int) for *_, layer in ints for number in layer)


@pytest.mark.parametrize("name", SPACES)
@given(data=st.data())
def test_layers_fit_together_and_into_their_slots(name, data):
    spec = SPACES[name].spec
    slots = [slot for stack in mobile_spaces.slots(spec) for slot in stack]
    layers = mobile_spaces.layers(spec, some_arch(data, SPACES[name]))
    width = spec.stem
    for slot, row in zip(slots, np.stack(layers, axis=-1).tolist(), strict=True):
        layer = LayerSpec(*row)
        assert layer.cin == width
        width = layer.cout
        assert layer.op in slot.ops
        for field in ("kernel", "cin", "middle", "cout", "se_hidden"):
            assert getattr(layer, field) <= slot.widest(field), field
        if layer.op == PASS:
            assert slot.stride == 1 and layer.cin == layer.cout
        if layer.skip == IDENTITY:
            assert slot.stride == 1 and layer.cin == layer.cout
        assert (layer.middle == 0) == (layer.op in (PASS, CONV))


def test_layers_of_a_stack_are_numbered():
    arch = SPACES["macro"].parse("10200012")
    places = [place[:3] for place in mobile_spaces.layers_of(SPACES["macro"].spec, arch)]
    # Identities pass behind the first layer of a stage, where they are shortcuts.
    assert places == [(0, 0, 2), (1, 0, 1), (2, 0, 2), (2, 1, 1), (2, 2, 1)]
