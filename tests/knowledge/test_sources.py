"""Rows of other tasks: rewards computed anew, tasks by name and protocol, all of them counted."""

import contextlib
import logging
import tempfile

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnas_jax.core import config as config_lib
from fnas_jax.core import identity
from fnas_jax.core import reward as rewards
from fnas_jax.knowledge import history, sources, task_data
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.knowledge.sources import MIN_ROWS, Asker
from fnas_jax.spaces import base, categorical, mnas

NAN = float("nan")
SPACE = categorical.make((4, 4), "cells")
ARCHS = base.enumerate_all(SPACE)
P, Q = (identity.text({"kind": "images", "steps": n}) for n in (150, 300))


def reward(**values):
    config = config_lib.default()
    for name, value in values.items():
        config.reward[name] = value
    return rewards.define(config)


PLAIN = reward()


def asker(task="new", protocol=P, space=SPACE, reward=PLAIN):
    return Asker(space, task, protocol, reward)


def run(id_="a", task="t1", protocol=P, space=SPACE):
    return history.Run(id_, space.name, task, 150, 7, {}, space.identity, protocol)


def row(position, arch=(0, 1), accuracy=0.5, reward=0.4, mflops=2.0, ok=True):
    return history.Row(position, arch, True, ok, accuracy, reward, NAN, mflops, NAN, 1.5)


def many(space=SPACE, count=MIN_ROWS, **values):
    archs = np.asarray(space.sample(jax.random.key(0), count))
    return [row(i, arch, **values) for i, arch in enumerate(archs)]


@pytest.fixture
def store(tmp_path):
    with contextlib.closing(history.open_(tmp_path)) as connection:
        yield connection


def test_rewards_of_other_definitions_do_not_turn_the_order_upside_down(store):
    """Two runs of one task: one wants accuracy, one pays a hundred times for what costs more."""
    accuracy = np.linspace(0.1, 0.9, len(ARCHS))
    mflops = 10 * accuracy  # better networks cost more
    harsh = accuracy * (mflops / 1.0) ** -3.0  # the worse, the higher
    for id_, stored in (("a", accuracy), ("b", harsh)):
        rows = [row(i, arch, accuracy[i], stored[i], mflops[i]) for i, arch in enumerate(ARCHS)]
        history.record(store, run(id_), 0, rows)
    found = sources.find(store, asker())
    places = [int(np.flatnonzero((d == ARCHS).all(axis=1))[0]) for d in found.decisions]
    assert len(places) == 2 * len(ARCHS)
    np.testing.assert_allclose(found.reward, accuracy[places], rtol=1e-6)
    own = reward(cost="mflops", target=1.0, alpha=-3.0, beta=-3.0)
    found = sources.find(store, asker(reward=own))
    np.testing.assert_allclose(found.reward, harsh[places], rtol=1e-5)


def test_two_protocols_are_two_tasks_and_the_own_one_is_left_out(store):
    for id_, task, protocol in (("a", "t1", P), ("b", "t1", Q), ("c", "t2", P), ("d", "t1", P)):
        history.record(store, run(id_, task, protocol), 0, many(accuracy=0.5))
    p, q = map(identity.digest, (P, Q))
    found = sources.find(store, asker())
    assert found.names == ["t1", "t1", "t2"] and set(found.protocols) == {p, q}
    counts = dict(zip(found.labels, np.bincount(found.task), strict=True))
    assert counts == {f"t1 ({p})": 40, f"t1 ({q})": 20, f"t2 ({p})": 20}
    found = sources.find(store, asker("t1", P))
    assert sorted(found.labels) == sorted([f"t1 ({q})", f"t2 ({p})"])
    assert found.counts.own == 40 and found.counts.used == 40


def test_rows_without_the_cost_are_left_out_counted_and_told(store, caplog):
    history.record(store, run("a"), 0, many())
    lacking = [r._replace(position=100 + i, mflops=NAN) for i, r in enumerate(many(count=7))]
    history.record(store, run("b"), 0, [*lacking, row(200, ok=False, accuracy=0.0)])
    # An exponent of 0 would make a number even of a cost that is none.
    hard = reward(cost="mflops", target=1e9, alpha=0.0, beta=0.0)
    with caplog.at_level(logging.INFO):
        found = sources.load(asker(reward=hard), Knowledge(store))
    assert found.counts.used == MIN_ROWS and found.counts.without_cost == 7
    assert found.counts.failed == 1
    assert len(caplog.records) == 1 and caplog.records[0].levelno == logging.WARNING
    assert f"{MIN_ROWS} rows of 1 other tasks" in caplog.text
    assert "7 without mflops, which the reward needs" in caplog.text
    assert "1 that failed" in caplog.text


def test_mnas_of_two_and_of_three_blocks_do_not_mix(store, caplog):
    two, three = mnas.make(2), mnas.make(3)
    turned = mnas.make(2, strides=(1, 1))  # as many decisions, which mean something else
    for space in (two, three, turned):
        arch = [0] * len(space.cardinalities)
        rows = [row(i, arch) for i in range(30)]
        history.record(store, run(str(space.key), "images/x", P, space), 0, rows)
    history.record(store, run("other"), 0, many())
    for space in (two, three, turned):
        caplog.clear()
        found = sources.load(asker(space=space), Knowledge(store))
        assert found.decisions.shape == (30, len(space.cardinalities))
        assert found.counts.other_spaces == {"mnas": 60, "cells": MIN_ROWS}
        assert f"60 of another space named mnas, {MIN_ROWS} of space cells" in caplog.text


def test_too_few_rows_are_none_and_told(store, caplog):
    history.record(store, run("a"), 0, many(count=MIN_ROWS - 1))
    assert sources.load(asker(), Knowledge(store)) is None
    assert f"which is too few ({MIN_ROWS} are needed)" in caplog.text


def test_an_empty_store_and_own_rows_alone_are_no_reason_for_a_warning(store, caplog):
    assert sources.load(asker(), Knowledge(store)) is None
    history.record(store, run("a", "new", P), 0, many())
    assert sources.load(asker(), Knowledge(store)) is None
    assert not caplog.records


def test_a_resumed_search_sees_what_its_first_start_saw(store):
    history.record(store, run("a"), 0, many())
    began = store.execute("SELECT max(time) FROM evaluations").fetchone()[0]
    first = sources.find(store, asker(), began)
    store.execute("UPDATE evaluations SET time = time - 1")
    for id_, task, protocol, space in (
        ("b", "t1", P, SPACE),
        ("c", "t1", Q, SPACE),
        ("d", "new", P, SPACE),
        ("e", "t1", P, categorical.make((4, 4, 4), "cells")),
    ):
        history.record(store, run(id_, task, protocol, space), 0, many(space))
    store.execute("UPDATE evaluations SET time = time + 2 WHERE run > 'a'")
    again = sources.find(store, asker(), began)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)


NUMBER = st.one_of(st.none(), st.floats(0.01, 100.0))
ROW = st.tuples(
    st.sampled_from(["t1", "t2", "new"]),
    st.sampled_from([P, Q, ""]),
    st.integers(0, len(ARCHS) - 1),
    st.floats(0.0, 1.0),
    st.floats(-5.0, 5.0),  # the stored reward, which must not matter
    NUMBER,
    st.booleans(),
)


@given(
    st.lists(ROW, max_size=40),
    st.sampled_from(["none", "mflops"]),
    st.floats(0.1, 10.0),
    st.sampled_from([-1.0, -0.07, 0.0]),
    st.sampled_from([-2.0, -0.07, 0.0]),
)
def test_every_row_is_used_or_counted_and_rewards_are_those_of_the_formula(
    made, cost, target, alpha, beta
):
    own = reward(cost=cost, target=target, alpha=alpha, beta=beta)
    expected = []
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(history.open_(folder)) as store,
    ):
        for i, (task, protocol, a, accuracy, stored, mflops, ok) in enumerate(made):
            number = NAN if mflops is None else mflops
            one = row(0, ARCHS[a], accuracy, stored, number, ok)
            history.record(store, run(f"{i:03}", task, protocol), 0, [one])
            usable = ok and (task, protocol) != ("new", P)
            if usable and not (cost == "mflops" and mflops is None):
                paid = 1.0
                if cost == "mflops":
                    paid = (mflops / target) ** (alpha if mflops <= target else beta)
                expected.append((task, protocol, tuple(ARCHS[a]), accuracy * paid))
        found = sources.find(store, asker(reward=own))
    key = {identity.digest(P): P, identity.digest(Q): Q, "unknown, 150 steps": ""}
    got = [
        (found.names[q], key[found.protocols[q]], tuple(d), r)
        for q, d, r in zip(found.task, found.decisions, found.reward, strict=True)
    ]
    assert sorted(g[:3] for g in got) == sorted(e[:3] for e in expected)
    np.testing.assert_allclose(
        sorted(g[3] for g in got), sorted(e[3] for e in expected), rtol=1e-3, atol=1e-6
    )
    counts = found.counts
    assert sum(counts[:5]) == len(made)
    assert counts.other_spaces == {}


def test_rows_are_scored_by_the_measure_of_their_own_protocol(store):
    """The negative of an error is no accuracy, whatever the search that asks goes by."""
    error = {"name": "mae", "direction": "minimize", "kind": "error", "scale": 2.0}
    of_error = identity.text({"kind": "images", "measure": error})
    of_function = identity.text(
        {"kind": "function", "metric": {"name": "ms", "direction": "minimize"}}
    )
    history.record(store, run("a", protocol=of_error), 0, [row(0, accuracy=-2.0)])
    history.record(store, run("b", "t2", of_function), 0, [row(0, accuracy=-3.0)])
    history.record(store, run("c", "t3"), 0, [row(0, accuracy=0.9)])
    found = sources.find(store, asker())
    rewards_by_task = dict(zip(found.names, found.reward[np.argsort(found.task)], strict=True))
    assert rewards_by_task["t1"] == pytest.approx(0.5)  # as far off as a trivial answer
    assert 0 < rewards_by_task["t2"] < 0.5 and rewards_by_task["t3"] == pytest.approx(0.9)
    weighed = sources.find(store, asker(reward=reward(cost="mflops", target=2.0)))
    # What has no known scale cannot be weighed with a cost: left out, and counted.
    assert sorted(weighed.names) == ["t1", "t3"] and weighed.counts.without_cost == 1


def test_rows_of_tables_are_read_by_what_their_column_is(store):
    """A loss of 2, stored as -2, is no accuracy of -200%; of old rows that do not tell, none is."""
    texts = [{"kind": "table", "metric": name} for name in ("val_acc", "val_loss", "val_loss")]
    texts[1]["measure"] = {
        "name": "val_loss",
        "direction": "minimize",
        "kind": "error",
        "scale": 2.0,
    }
    for number, (text, accuracy) in enumerate(zip(texts, (0.9, -2.0, -2.0), strict=True)):
        told = run(str(number), f"t{number}", identity.text(text))
        history.record(store, told, 0, [row(0, accuracy=accuracy)])
    found = sources.find(store, asker())
    assert found.names == ["t0", "t1"]
    np.testing.assert_allclose(found.reward[np.argsort(found.task)], [0.9, 0.5])
    assert found.counts.unknown_metric == 1 and found.counts.without_cost == 0
    said = sources.describe(asker(), found)
    assert "left out: 1 of tables whose metric was not written down" in said


@pytest.mark.parametrize("change", ["gone", "replaced", "more", "described"])
def test_what_a_search_began_with_is_pinned_whatever_becomes_of_the_store(store, tmp_path, change):
    """Though it looks as if it had been there, or not been there, when the search began."""
    history.record(store, run("a"), 0, many())
    began = store.execute("SELECT max(time) FROM evaluations").fetchone()[0]
    known = Knowledge(store, began, run="1f", pinned=tmp_path / "taken.npz")
    first = sources.load(asker(), known)
    if change == "gone":  # its search goes on from a checkpoint before
        history.trim(store, "a", 0)
    elif change == "replaced":
        history.record(store, run("a"), 0, many(accuracy=0.9))
    elif change == "more":  # by a clock that is late
        history.record(store, run("b", "t2"), 0, many())
        store.execute("UPDATE evaluations SET time = ?", (began - 1,))
    else:
        task_data.record_task(store, "t1", {"images": 7.0}, P)
        task_data.record_images(store, "t1", np.zeros((2, 1, 3, 3, 1), np.uint8), P)
    again = sources.load(asker(), known)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert again.counts == first.counts and again.counts.used == MIN_ROWS
    other = sources.load(asker(), known._replace(run="2f", pinned=tmp_path / "other.npz"))
    if change == "described":  # which a search sees that begins now
        assert other.statistics == [{"images": 7.0}] and other.images[0].shape == (2, 1, 3, 3, 1)
    else:
        assert other is None or len(other.names) == 2


def test_too_few_rows_stay_too_few(store, tmp_path):
    history.record(store, run("a"), 0, many(count=MIN_ROWS - 1))
    known = Knowledge(store, run="1f", pinned=tmp_path / "taken.npz")
    assert sources.load(asker(), known) is None
    history.record(store, run("b"), 0, many())
    assert sources.load(asker(), known) is None
    assert sources.load(asker(), known._replace(pinned=None)) is not None
