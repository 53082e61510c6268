"""Canonical texts: equal for equal things, and only for these."""

from typing import NamedTuple

import numpy as np
import pytest

from fnas_jax.core import identity


class Spec(NamedTuple):
    widths: tuple
    head: int | None = None


def test_texts_are_canonical_and_readable():
    assert identity.text({"b": (1, 2), "a": Spec((1.5, 2))}) == (
        '{"a":{"head":null,"widths":[1.5,2]},"b":[1,2]}'
    )
    same = {"a": {"widths": [1.5, np.int64(2)], "head": None}, "b": [np.int32(1), 2]}
    assert identity.text(same) == identity.text({"b": (1, 2), "a": Spec((1.5, 2))})


@pytest.mark.parametrize("value", [object(), {1, 2}, np.zeros(2), float("nan")])
def test_what_cannot_be_written_is_refused(value):
    with pytest.raises((TypeError, ValueError)):
        identity.text({"a": value})


def test_digests_stay_the_same():
    """Stores hold them; this one is what `b2sum -l 64` says."""
    assert identity.digest('{"a":1}') == "1f8c00645b7df6ce"
    assert identity.digest('{"a":2}') != identity.digest('{"a":1}')


def test_extending_what_is_unknown_leaves_it_unknown():
    assert identity.extend('{"a":1}', b={"c": 2}) == '{"a":1,"b":{"c":2}}'
    assert identity.extend("", b=1) == ""
