"""A space is known by its full description, not by its name."""

import json

import numpy as np
import pytest

from fnas_jax.spaces import categorical, cell, macro, mixed_cell, mixed_chain, mnas, mobilenetv3
from fnas_jax.spaces.widen import widen

MNAS = {"blocks": 2, "width": 1.0, "strides": (1, 2), "stem": 32, "stem_stride": 2, "head": 64}
CHANGES = {
    "blocks": {"blocks": 3, "strides": (1, 2, 2)},
    "width": {"width": 0.5},
    "strides": {"strides": (2, 2)},
    "stem": {"stem": 16},
    "stem_stride": {"stem_stride": 1},
    "head": {"head": 128},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_option_of_mnas_counts(change):
    space, other = mnas.make(**MNAS), mnas.make(**MNAS | change)
    assert space.name == other.name and space.key != other.key
    assert space.key == mnas.make(**MNAS).key


def test_other_spaces_of_one_name():
    pairs = (
        (macro.make(), widen(macro.make(), 0.5)),
        (mobilenetv3.make(), mobilenetv3.make(width=1.2)),
        (mobilenetv3.make(), mobilenetv3.make(strides=(1, 2, 2, 1, 2))),
        (mobilenetv3.make(), mobilenetv3.make(stem_stride=1)),
        (cell.make(), cell.make(channels=8)),
        (cell.make(), cell.make(cells_per_stage=1)),
        (mixed_cell.make(), mixed_cell.make(channels=8)),
        (mixed_chain.make(), mixed_chain.make(channels=8)),
        (mixed_cell.make(), mixed_cell.make(cells_per_stage=1)),
        (categorical.make((2, 3), "t"), categorical.make((3, 2), "t")),
        (categorical.make((2, 3), "t"), categorical.make((2, 3), "t", ("a", "b"))),
        (categorical.make((2, 3), "t"), categorical.make((2, 3), "u")),
    )
    for one, two in pairs:
        assert one.key != two.key and one.identity != two.identity


def test_the_text_says_all_and_numpy_makes_no_difference():
    space = categorical.make(np.array([2, 3]), "t")
    assert json.loads(space.identity) == {
        "name": "t",
        "cardinalities": [2, 3],
        "names": ["decision_0", "decision_1"],
        "spec": None,
    }
    assert space.key == categorical.make((2, 3), "t").key


def test_keys_stay_the_same():
    """Histories and surrogates on disk know spaces by these."""
    spaces = {"mnas": mnas.make(), "macro": macro.make(), "cell": cell.make()}
    assert {name: space.key for name, space in spaces.items()} == KEYS


KEYS = {
    "mnas": "2b51cfbd3cc9cca5",
    "macro": "827161a28b862e3a",
    "cell": "0f9f77af11222a8e",
}
