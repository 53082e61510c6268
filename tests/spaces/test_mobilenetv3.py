"""The MobileNetV3 space: canonical forms, text form, graph and descriptors."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnas_jax.core.types import UserError
from fnas_jax.networks import mobile_spaces
from fnas_jax.spaces import mobilenetv3
from tests.spaces.test_mnas import assert_equal_exactly_for_equal_layers, compiled

WHOLE = compiled(mobilenetv3.make())
ONE = compiled(mobilenetv3.make(stages=1, width=0.5))


def any_arch(space):
    return st.tuples(*(st.integers(0, k - 1) for k in space.cardinalities)).map(
        lambda choices: np.asarray(choices, np.int32)
    )


def test_a_stage_has_7371_networks():
    """Layers of 9 kinds, 2, 3 or 4 of them."""
    assert 9**2 + 9**3 + 9**4 == 7371
    layers = list(itertools.product(range(3), repeat=4))  # kernel and expansion of two layers
    rest = [(0,) * 4, (2, 1, 0, 0), (0, 0, 2, 1), (2, 1, 2, 1)]  # what may be idle
    archs = np.array([(d, *a, *b) for d in range(3) for a in layers for b in rest], np.int32)
    # With depth 2 all of `rest` is idle, with depth 3 its second layer.
    expected = 81 * (1 + 2 + 4)
    assert assert_equal_exactly_for_equal_layers(ONE, archs) == expected


def test_networks_are_equal_exactly_where_their_forms_are():
    archs = np.asarray(WHOLE.sample(jax.random.key(0), 500))
    forms = np.asarray(WHOLE.canonical(archs))
    assert (archs != forms).any(axis=1).mean() > 0.5
    np.testing.assert_array_equal(WHOLE.canonical(forms), forms)
    # Other idle decisions of the same networks make no other forms.
    idle = np.where(np.arange(45) % 9 == 0, archs, np.asarray(WHOLE.sample(jax.random.key(1), 500)))
    mixed = np.where(forms_are_free(archs), idle, archs)
    np.testing.assert_array_equal(WHOLE.canonical(mixed), forms)
    assert (mixed != archs).any()


def forms_are_free(archs):
    """[N, T] bool: which decisions are about layers that are not there, counted one by one."""
    free = np.zeros(archs.shape, bool)
    for n, stage, layer in itertools.product(range(len(archs)), range(5), range(4)):
        if layer >= 2 + archs[n, 9 * stage]:
            free[n, 9 * stage + 1 + 2 * layer : 9 * stage + 3 + 2 * layer] = True
    return free


@given(arch=any_arch(WHOLE))
def test_text_and_back(arch):
    text = WHOLE.describe(arch)["text"]
    np.testing.assert_array_equal(WHOLE.parse(text), arch)


def test_what_the_text_says():
    arch = np.zeros(45, np.int32)
    arch[:9] = (1, 1, 2, 0, 1, 2, 0, 0, 0)
    arch[9:18] = (0, 0, 0, 0, 0, 2, 2, 0, 0)
    said = WHOLE.describe(arch)
    assert said["text"].split() == ["k5e6-k3e4-k7e3", "k3e3-k3e3/k7e6-k3e3", *["k3e3-k3e3"] * 3]
    assert said["stages"][0] == {"filters": 24, "stride": 2, "layers": ["k5e6", "k3e4", "k7e3"]}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("k3e3-k3e3", "has 1 stages; the space has 5"),
        ("k3e3 " * 5, "stage 'k3e3' has 1 layers; allowed are 2, 3 and 4"),
        ("k3e3-k4e3 " * 5, "layer 'k4e3' is not k3, k5 or k7 and e3, e4 or e6"),
        ("k3e3-k3e3/k3e3 " * 5, "needs 2 layers behind the slash"),
    ],
)
def test_what_is_no_text_is_refused(text, sentence):
    with pytest.raises(UserError, match=sentence):
        WHOLE.parse(text.strip())


def test_options_that_fit_no_network_are_refused():
    with pytest.raises(UserError, match=r"space.stages is 6; allowed are 1 to 5"):
        mobilenetv3.make(stages=6)
    with pytest.raises(UserError, match="needs 5 entries, each 1 or 2"):
        mobilenetv3.make(strides=(1, 2))


def test_the_graph_is_a_chain_of_22_nodes():
    archs = np.asarray(WHOLE.canonical(WHOLE.sample(jax.random.key(2), 20)))
    ops, adjacency = WHOLE.graph(archs)
    assert ops.shape == (20, 22) and np.asarray(ops).max() < WHOLE.num_ops
    assert (np.asarray(adjacency) == np.eye(22, k=1, dtype=bool)).all()
    absent = np.asarray(ops)[:, 1:-1] == WHOLE.num_ops - 1
    np.testing.assert_array_equal(absent, absent_layers(archs))


def absent_layers(archs):
    """[N, 20] bool, of depths alone."""
    depth = archs.reshape(len(archs), 5, 9)[:, :, :1]
    return (np.arange(4) >= 2 + depth).reshape(len(archs), 20)


def test_descriptors_tell_layers_apart():
    archs = np.asarray(WHOLE.sample(jax.random.key(3), 200))
    found = np.asarray(WHOLE.blocks(archs))
    assert found.shape == (200, 21, 3)
    np.testing.assert_array_equal(found, WHOLE.blocks(np.asarray(WHOLE.canonical(archs))))
    np.testing.assert_array_equal(found[:, 1:, 0] == 0, absent_layers(archs))
    rows = {tuple(np.round(row, 5)) for row in found[:, 1:].reshape(-1, 3)}
    assert len(rows) == 10


def test_widths_are_those_of_the_published_networks():
    """1.2 is the other width that Once-for-all has."""
    large, wide = mobilenetv3.make().spec, mobilenetv3.make(width=1.2).spec
    assert (large.stem, *large.channels) == (16, 16, 24, 40, 80, 112, 160)
    assert (wide.stem, *wide.channels) == (24, 24, 32, 48, 96, 136, 192)
    assert (large.head, large.mix, wide.head, wide.mix) == (960, 1280, 1152, 1536)
    assert len(mobile_spaces.layers_of(large, mobile_spaces.reference(large))) == 15
