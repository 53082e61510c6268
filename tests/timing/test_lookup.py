"""Latencies of batches by a table, against sums over the operations of each network."""

import jax
import numpy as np
import pytest

from fnas_jax.core.types import UserError
from fnas_jax.timing import lookup, units
from tests.timing.test_units import CLASSES, IMAGE, SPACES

FIXED = 0.5


def table_of(space, image=IMAGE, classes=CLASSES):
    found = lookup.of_space(space, image, classes)
    drawn = np.random.default_rng(0).uniform(0.1, 1, len(found))
    return {unit.key: float(ms) for unit, ms in zip(found, drawn, strict=True)}


def by_hand(space, table, arch):
    return FIXED + sum(table[u.key] for u in units.of_network(space, arch, IMAGE, CLASSES))


@pytest.mark.parametrize("name", SPACES)
def test_equals_the_sum_by_hand_in_any_form(name):
    space = SPACES[name]
    table = table_of(space)
    predict = jax.jit(lookup.predictor(space, IMAGE, CLASSES, FIXED, table))
    archs = np.asarray(jax.jit(lambda key: space.sample(key, 40))(jax.random.key(7)))
    expected = [by_hand(space, table, arch) for arch in archs]
    np.testing.assert_allclose(predict(archs), expected, rtol=1e-5)
    archs = np.asarray(jax.jit(space.canonical)(archs))
    expected = [by_hand(space, table, arch) for arch in archs]
    np.testing.assert_allclose(predict(archs), expected, rtol=1e-5)


def test_a_table_without_a_row_is_one_sentence_that_names_it():
    space = SPACES["cell"]
    table = table_of(space)
    key = next(key for key in table if key.startswith("average"))
    del table[key]
    with pytest.raises(UserError, match=f"no row '{key}', which networks need"):
        lookup.predictor(space, IMAGE, CLASSES, FIXED, table)


def test_an_operation_that_was_not_seen_makes_no_number(monkeypatch):
    """One random network does not have all operations of the space."""
    monkeypatch.setattr(lookup, "SAMPLE", 1)
    space = SPACES["mnas_without_head"]
    predict = jax.jit(lookup.predictor(space, IMAGE, CLASSES, FIXED, table_of(space)))
    archs = np.asarray(space.sample(jax.random.key(7), 40))
    seen = np.asarray(space.sample(jax.random.key(0), 1))
    assert np.isnan(predict(archs)).any() and np.isfinite(predict(seen)).all()
