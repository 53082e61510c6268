"""The reference network that winners are compared with costs what they cost."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core.config import default
from fnas_jax.networks import flax_reference
from fnas_jax.networks.cost import cost, one_cost
from fnas_jax.spaces import categorical, cell, layered, macro, mixed_cell, mnas, mobilenetv3
from fnas_jax.spaces.widen import widen
from fnas_jax.tasks import data, images, reference, winner
from tests.layers import own_layers

MNAS = mnas.make(blocks=3, strides=(1, 2, 1), stem=16, stem_stride=1, head=64)
LAYERED = layered.make(
    [layered.stage(12, {"k3": layered.conv(3), "k5": layered.conv(5)}, depth=2)], stem=8
)
SPACES = {"mnas": MNAS, "macro": macro.make(), "cell": cell.make(), "layered": LAYERED}
SPACES["mixed_cell"] = mixed_cell.make(channels=8)
SPACES["mobilenetv3"] = mobilenetv3.make(strides=(1, 2, 1, 1, 2), width=0.5, stem_stride=1)
IMAGE = (16, 16, 3)


def macs_of(space, arch):
    return one_cost(space, arch, IMAGE, 10)[1]


@pytest.mark.parametrize("name", SPACES)
def test_it_costs_what_random_networks_cost_and_no_other_width_is_nearer(name):
    space, standard = SPACES[name], reference.standard(SPACES[name])
    archs = np.asarray(space.sample(jax.random.key(0), 12))
    close, narrower = [], 0
    for i, arch in enumerate(archs):
        target = macs_of(space, arch)
        found = reference.nearest(space, 10, target / 1e6, IMAGE)
        params, macs = one_cost(widen(space, found.width, found.multiple), standard, IMAGE, 10)
        assert (found.mflops, found.params_m) == (macs / 1e6, params / 1e6)
        off = abs(macs - target)
        close.append(off <= 0.05 * target)
        narrower += found.width < 1
        assert found.multiple in (8, 4, 2, 1) and (
            close[-1] or name in ("cell", "mixed_cell", "layered")
        )
        if i < 2:
            widths = found.width * np.linspace(0.7, 1.4, 15)
            multiples = (found.multiple,) if close[-1] else (8, 4, 2, 1)
            others = [macs_of(widen(space, w, m), standard) for w in widths for m in multiples]
            assert min(abs(np.array(others) - target)) >= off
    if name != "layered":  # whose standard is the first choice, and here the cheapest
        assert narrower


@pytest.mark.parametrize("name", SPACES)
def test_the_standard_itself_has_width_1_and_equal_networks_have_one_width(name):
    space, image = SPACES[name], (16, 16, 3)
    arch = reference.standard(space)
    one = macs_of(space, arch) / 1e6
    own = reference.nearest(space, 10, one, image)
    assert (own.width, own.multiple, own.mflops) == (1.0, 8, one)
    for share in (0.4, 2.5):
        found = [reference.nearest(space, 10, share * one * by, image) for by in (1, 1.0001)]
        assert found[0] == found[1] and (found[0].width < 1) == (share < 1)


def test_parameters_are_those_of_the_flax_network():
    found = reference.nearest(MNAS, 10, 9.0, IMAGE)
    module = flax_reference.of_spec(
        widen(MNAS, found.width, found.multiple).spec, reference.standard(MNAS), 10
    )
    shapes = jax.eval_shape(
        lambda: module.init(jax.random.key(0), jnp.zeros((1, *IMAGE)), train=False)
    )
    leaves = jax.tree.leaves(shapes["params"])
    assert sum(leaf.size for leaf in leaves) == round(found.params_m * 1e6)


def test_channels_are_multiples_of_8_where_that_is_close_enough():
    one = macs_of(MNAS, reference.standard(MNAS)) / 1e6
    wide = macs_of(widen(MNAS, 2.0), reference.standard(MNAS)) / 1e6
    assert reference.nearest(MNAS, 10, wide, IMAGE).multiple == 8
    found = reference.nearest(MNAS, 10, 0.1 * one, IMAGE)
    assert found.multiple < 8 and abs(found.mflops / (0.1 * one) - 1) <= 0.05


def test_layers_of_the_users_own_keep_multiples_of_8(monkeypatch):
    """They may refuse other channels."""
    tried = []
    monkeypatch.setattr(
        reference, "_cost", lambda *args: tried.append(args[4]) or (10**6, (args[-1] > 5) * 10**6)
    )
    assert reference.nearest(own_layers.space, 10, 0.4, IMAGE).multiple == 8
    assert set(tried) == {8}
    reference.nearest(MNAS, 10, 0.4, IMAGE)
    assert set(tried) == {8, 4, 2, 1}


@pytest.mark.parametrize(("mflops", "width"), [(1e9, 64.0), (1e-9, 0.001)])
def test_where_none_is_close_the_nearest_is_taken_and_told(caplog, mflops, width):
    ctx = images.train_context(default(), MNAS, data.load("digits"))
    with caplog.at_level(logging.WARNING):
        found = reference.facts(ctx, mflops)
    assert (found["width"] > 1) == (width > 1)
    assert f"within 5% of {mflops:.4g} MFLOPs: the nearest, of width {found['width']:g}" in (
        caplog.text
    )
    caplog.clear()
    reference.facts(ctx, found["mflops"])
    assert not caplog.records


def test_result_names_both_costs_and_the_network_that_is_trained_has_them(monkeypatch):
    """The wiring: the winner's cost goes in, and the reference that comes out is built."""
    built = []
    monkeypatch.setattr(
        reference.elastic, "fixed_network", lambda space, arch, *a, **k: built.append((space, arch))
    )
    failed = winner.Tested({"accuracy": None}, None)
    monkeypatch.setattr(winner, "train_and_test", lambda ctx, jobs, *rest: [failed] * len(jobs))
    ctx = images.train_context(default(), MNAS, data.load("digits"))
    ctx = ctx._replace(latency_ms=lambda arch: 1.0)
    arch = MNAS.sample(jax.random.key(3), 1)[0]
    facts = winner.final(ctx, arch, jax.random.key(0)).facts
    mflops = [
        float(cost(space, ctx.dataset.image_shape, 10)(jnp.asarray(own)[None])[1][0]) / 1e6
        for space, own in built
    ]
    assert mflops == pytest.approx([facts["mflops"], facts["reference"]["mflops"]])
    assert abs(mflops[1] - mflops[0]) <= 0.05 * mflops[0]


def test_a_space_without_networks_has_no_reference():
    with pytest.raises(ValueError, match="has no networks"):
        reference.standard(categorical.make((2, 3)))
