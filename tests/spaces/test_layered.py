"""Spaces of the user's own: equal networks have one name, others have two."""

import jax
import numpy as np
import pytest

from fnas_jax import layered, registry
from fnas_jax.core import config as config_lib
from fnas_jax.core.types import UserError
from fnas_jax.networks import mobile_spaces
from fnas_jax.spaces import base

CHOICES = {
    "k3": layered.conv(3),
    "mb": layered.mbconv(3, 3),  # with an identity where shapes agree
    "mb_plain": layered.mbconv(3, 3, skip="none"),
}
STAGE = layered.stage(8, CHOICES)
MINE = "tests.layers.own_layers:Ghost"
SPACE = layered.make(
    [
        layered.stage(16, CHOICES, stride=2),
        layered.stage(24, CHOICES, depth=3, stride=2, optional=True),
    ],
    stem=8,
)


def test_canonical_forms_are_equal_exactly_for_equal_networks():
    archs = base.enumerate_all(SPACE)
    canonical = np.asarray(SPACE.canonical(archs))
    name_of, network_of = {}, {}
    for arch, name in zip(archs, map(tuple, canonical.tolist()), strict=True):
        network = tuple(place[2:] for place in mobile_spaces.layers_of(SPACE.spec, arch))
        assert name_of.setdefault(network, name) == name
        assert network_of.setdefault(name, network) == network
    assert len(archs) == 3 * 3 * 4**2 and len(name_of) == len(network_of) == 2 * 2 * (1 + 3 + 9)
    np.testing.assert_array_equal(SPACE.canonical(canonical), canonical)


def test_decisions_have_names_and_descriptors_tell_networks_apart():
    arch = np.asarray([2, 0, 1, 3], np.int32)
    text = "stage0/layer0=mb_plain,stage1/layer0=k3,stage1/layer1=mb,stage1/layer2=none"
    assert SPACE.describe(arch)["text"] == text
    np.testing.assert_array_equal(SPACE.parse(text), arch)
    blocks = np.asarray(jax.jit(SPACE.blocks)(base.enumerate_all(SPACE)))
    assert blocks.shape[:2] == (144, 4)
    ops, adjacency = SPACE.graph(arch[None])
    assert ops.shape == (1, 6) and adjacency.shape == (1, 6, 6) and ops.max() < SPACE.num_ops
    assert np.asarray(SPACE.validate(SPACE.sample(jax.random.key(0), 50))).all()


def test_descriptors_are_equal_exactly_for_equal_layers():
    """Choices that differ in one thing only, at places with and without room for an identity."""
    mine = "tests.layers.own_layers"
    every = {
        "relu": layered.conv(3),
        "swish": layered.conv(3, act="hard_swish"),
        "k5": layered.conv(5),
        "se": layered.conv(3, se=True),
        "pool": layered.conv(3, skip="pool"),
        "identity": layered.conv(3, skip="identity"),
        "again": layered.conv(3),
        "sep": layered.sepconv(3),
        "e3": layered.mbconv(3, 3),
        "e4": layered.mbconv(3, 4),
        "ghost": layered.own(f"{mine}:Ghost"),
        "ghost5": layered.own(f"{mine}:Ghost", kernel=5),
        "quick": layered.own(f"{mine}:Deaf"),
        "skipped": layered.own(f"{mine}:Deaf", skip="identity"),
    }
    space = layered.make([layered.stage(8, every, depth=2, optional=True)], stem=4)
    archs = np.asarray([[a, b] for a in range(14) for b in range(14)] + [[0, 14]])
    blocks, canonical = np.asarray(space.blocks(archs)), np.asarray(space.canonical(archs))
    rows = np.asarray([np.transpose(mobile_spaces.layers(space.spec, a)) for a in canonical])
    for place in range(2):
        described, layers = (np.unique(of[:, place], axis=0) for of in (blocks, rows))
        both = np.unique(np.concatenate([blocks[:, place], rows[:, place]], axis=1), axis=0)
        assert len(described) == len(layers) == len(both) == (11, 14)[place]


def test_the_largest_network_has_all_layers_and_the_widest_of_each():
    choices = {"e6": layered.mbconv(3, 6), "e3": layered.mbconv(5, 3), "k7": layered.conv(7)}
    space = layered.make([layered.stage(8, choices, depth=3, optional=True)], stem=8)
    np.testing.assert_array_equal(space.largest, [0, 0, 0])
    np.testing.assert_array_equal(SPACE._replace(widest=()).largest, [2, 2, 3, 3])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layered.conv(4), "kernel is 4; allowed are 3, 5, 7"),
        (lambda: layered.conv(3, act="gelu"), "act is 'gelu'; allowed are relu, "),
        (lambda: layered.mbconv(3, 0), "expansion is 0"),
        (lambda: layered.mbconv(3, 3, skip="id"), "skip is 'id'; allowed are pool, "),
        (
            lambda: layered.stage(0, CHOICES),
            "width of a stage is 0; allowed is an int",
        ),
        (
            lambda: layered.stage(8, CHOICES, stride=3),
            "stride of a stage is 3; .*, 1 to 2",
        ),
        (lambda: layered.stage(8, {}), "a stage needs choices"),
        (lambda: layered.stage(8, {"k": 3}), "a stage needs choices"),
        (lambda: layered.stage(8, {"none": layered.conv(3)}, optional=True), "called 'none'"),
        (lambda: layered.conv(3.0), "kernel is 3.0; allowed is an integer"),
        (lambda: layered.conv(3, se="no"), "se is 'no'; allowed are True and False"),
        (lambda: layered.mbconv(3, 2.5), "expansion is 2.5; allowed is an integer, 1 or more"),
        (lambda: layered.own(5), r"own\(5\) is no layer; a class, or its MODULE:CLASS"),
        (lambda: layered.own(MINE, features=3), "features .* is given by the space"),
        (lambda: layered.own(MINE, name="x"), "name of the layer .* is given by the space"),
        (lambda: layered.own(MINE, parent=None), "parent of the layer .* is given by the space"),
        (lambda: layered.own(MINE, gain=float("nan")), "gain .* is nan; it must be a finite"),
        (lambda: layered.own(MINE, gain=[1]), r"gain .* is \[1\]; it must be a finite number"),
        (lambda: layered.stage(8, [layered.conv(3)]), "a stage needs choices: a dict of names"),
        (lambda: layered.stage(8, {3: layered.conv(3)}), "a stage needs choices: a dict of names"),
        (lambda: layered.stage(True, CHOICES), "width of a stage is True; allowed is an integer"),
        (lambda: layered.stage(8, CHOICES, optional=1), "optional of a stage is 1; allowed are Tr"),
        (lambda: layered.make(5), "a space needs a list of stages"),
        (lambda: layered.make([STAGE], stem=8.0), "stem is 8.0; allowed is an integer, 1 or more"),
        (lambda: layered.make([STAGE], stem="8"), "stem is '8'; allowed is an integer, 1 or more"),
        (lambda: layered.make([STAGE], head=2.5), "head is 2.5; allowed is an integer, 0 or more"),
        (lambda: layered.make([STAGE], stem_stride=3), "stem_stride is 3; .* integer, 1 to 2"),
        (lambda: layered.make([]), "a space needs a list of stages"),
        (lambda: layered.make([layered.stage(8, CHOICES)], stem=0), "stem is 0"),
        (lambda: layered.make([layered.stage(8, {"a,b": layered.conv(3)})]), "holds ',' or '='"),
    ],
)
def test_wrong_input_is_one_sentence(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_integers_of_numpy_are_integers():
    size = np.int64(8)
    made = layered.make([layered.stage(size, CHOICES, stride=np.int32(2))], stem=size, head=size)
    assert (
        made.identity
        == layered.make([layered.stage(8, CHOICES, stride=2)], stem=8, head=8).identity
    )


def test_a_width_of_the_configuration_is_not_dropped():
    config = config_lib.default()
    config.space.name, config.space.width = "tests.layers.own_layers:space", 2.0
    with pytest.raises(UserError, match=r"space.width is 2, and the space .* is made already"):
        registry.build_space(config)


def test_stages_that_would_give_one_network_several_names_are_refused():
    first = layered.stage(16, CHOICES, depth=2, optional=True)
    with pytest.raises(UserError, match="stage 0 is optional, and stage 1 goes on"):
        layered.make([first, layered.stage(16, {"other": layered.mbconv(3, 3)}, depth=2)])
    layered.make([first, layered.stage(16, {"other": layered.conv(5)}, depth=2)])
    layered.make([first._replace(optional=False), first])
    layered.make([first, layered.stage(16, CHOICES, stride=2)])
