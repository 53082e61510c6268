"""Measured rows as columns and iterations: the same that reading row by row finds."""

import contextlib
import sqlite3
import tempfile

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fnas_jax.core import identity
from fnas_jax.core.types import COSTS, UserError
from fnas_jax.knowledge import history, measured
from fnas_jax.spaces import categorical

NAN = float("nan")
SPACE = categorical.make((4, 4), "cells")
LONGER = categorical.make((4, 4, 4), "cells")
OTHER = categorical.make((4, 4), "others")
P, Q = (identity.text({"kind": "images", "steps": n}) for n in (150, 300))


def run(number, space=SPACE, task="t", protocol=P, steps=150, identity_=None):
    described = space.identity if identity_ is None else identity_
    return history.Run(str(number), space.name, task, steps, 7, {}, described, protocol)


def row(position, arch, trained=True, ok=True, accuracy=0.5, mflops=2.0):
    return history.Row(position, arch, trained, ok, accuracy, 0.4, 3.0, mflops, NAN, 1.5)


@pytest.fixture
def store(tmp_path):
    with contextlib.closing(history.open_(tmp_path)) as connection:
        yield connection


ITERATION = st.tuples(
    st.integers(0, 4),  # its search
    st.integers(0, 3),  # its number
    st.integers(0, 5),  # its moment
    st.lists(
        st.tuples(
            st.integers(0, 15),
            st.booleans(),
            st.booleans(),
            st.sampled_from([0.1, 0.2, NAN]),
            st.sampled_from([1.0, NAN]),
        ),
        max_size=4,
    ),
)
SEARCHES = (
    run(0),
    run(1, task="u", protocol=Q, steps=300),
    run(2, LONGER),
    run(3, identity_="", protocol=""),  # as an earlier version wrote it
    run(4, LONGER, identity_="", protocol=""),
)


@example([(4, 0, 0, [(0, True, True, 0.1, 1.0)])], 6.0, COSTS)
@given(st.lists(ITERATION, max_size=8), st.floats(-1.0, 6.0), st.sampled_from([(), COSTS]))
def test_what_is_read_are_the_measured_rows_in_their_order(made, until, costs):
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(history.open_(folder)) as file:
        for search, iteration, moment, rows in made:
            more = (1,) if search in (2, 4) else ()
            entries = [row(i, (n // 4, n % 4, *more), *v) for i, (n, *v) in enumerate(rows)]
            history.trim(file, str(search), iteration)
            history.record(file, SEARCHES[search], iteration, entries)
            file.execute(
                "UPDATE evaluations SET time = ? WHERE run = ? AND iteration = ?",
                (float(moment), str(search), iteration),
            )
        expected = history.rows(file, SPACE, until=until)
        found = measured.read(file, SPACE, costs, until)
        every = file.execute(
            "SELECT count(*) FROM evaluations WHERE trained AND time <= ?", (until,)
        ).fetchone()[0]
    count = len(expected.ok)
    np.testing.assert_array_equal(found.decisions, expected.decisions)
    for name in ("ok", "accuracy", "known"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    for name in COSTS:
        own = getattr(expected, name) if name in costs else np.full(count, NAN)
        np.testing.assert_array_equal(found.costs[name], own)
    groups = [found.groups[g] for g in found.group]
    assert groups == list(
        zip(
            expected.task.tolist(), expected.protocol.tolist(), expected.steps.tolist(), strict=True
        )
    )
    assert len(set(found.groups)) == len(found.groups)
    assert sum(found.others.values()) == every - count


def test_rows_of_other_spaces_are_counted_by_name(store):
    for number, (space, arch) in enumerate([(SPACE, (0, 1)), (LONGER, (0, 1, 2)), (OTHER, (0, 1))]):
        entries = [row(0, arch), row(1, arch), row(2, arch, trained=False)]
        history.record(store, run(number, space), 0, entries)
    old = [row(0, (4, 0)), row(1, (3, 3))]  # of which one exists in the space
    history.record(store, run(9, identity_=""), 0, old)
    assert measured.read(store, SPACE).others == {"cells": 3, "others": 2}
    assert measured.read(store, OTHER).others == {"cells": 6}
    assert measured.read(store, SPACE).known.tolist() == [True, True, False]
    assert measured.read(store, SPACE, until=0.0).others == {}


def test_what_others_write_meanwhile_is_not_mixed_in(store, tmp_path, monkeypatch):
    """The iterations are read first: rows that came between would be taken for theirs."""
    history.record(store, run(1, task="u"), 0, [row(0, (1, 1))])
    read = measured._iterations

    def late(*arguments):
        found = read(*arguments)
        with contextlib.closing(history.open_(tmp_path)) as other:
            history.record(other, run(0), 0, [row(0, (0, 0)), row(1, (2, 2))])
        return found

    monkeypatch.setattr(measured, "_iterations", late)
    found = measured.read(store, SPACE)
    assert found.decisions.tolist() == [[1, 1]]
    assert [found.groups[g].task for g in found.group] == ["u"]
    assert not store.in_transaction


def test_damage_is_told_and_the_store_is_left_free(store):
    history.record(store, run(0), 0, [row(0, (0, 1))])
    store.execute("UPDATE evaluations SET accuracy = 'x'")
    with pytest.raises(UserError, match="a row of the history is damaged"):
        measured.read(store, SPACE)
    store.execute("UPDATE evaluations SET space_key = NULL, decisions = '[0,'")
    with pytest.raises(sqlite3.OperationalError, match="malformed JSON"):
        measured.read(store, SPACE)
    assert not store.in_transaction


def test_a_cost_that_rows_do_not_have_is_a_mistake_of_whoever_asks(store):
    with pytest.raises(ValueError, match="must be of"):
        measured.read(store, SPACE, ("accuracy",))
