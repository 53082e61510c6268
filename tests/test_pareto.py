"""The front against its definition."""

import contextlib
import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fnas_jax import pareto
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import history
from fnas_jax.spaces import categorical


@given(arrays(int, st.tuples(st.integers(0, 12), st.integers(1, 4)), elements=st.integers(0, 3)))
def test_the_front_is_what_no_other_beats(figures):
    accuracy, costs = figures[:, 0].astype(float), figures[:, 1:].astype(float)
    chosen = pareto.front(accuracy, costs)

    def beats(i, j):
        no_worse = accuracy[i] >= accuracy[j] and (costs[i] <= costs[j]).all()
        return no_worse and (accuracy[i] > accuracy[j] or (costs[i] < costs[j]).any() or i < j)

    n = len(accuracy)
    expected = [not any(beats(i, j) for i in range(n) if i != j) for j in range(n)]
    np.testing.assert_array_equal(chosen, expected)


def network(text, accuracy, mflops, latency_ms=None):
    costs = {"mflops": mflops, "params_m": mflops / 2, "latency_ms": latency_ms}
    return {"text": text, "arch": [len(text)], "accuracy": accuracy, **costs}


FRONT = [network("a", 0.9, 3.0), network("bb", 0.8, 2.0, 7.0), network("ccc", 0.7, 1.0, 4.0)]


def test_what_was_stopped_early_is_in_no_front(tmp_path):
    space = categorical.make((4,), "cells")
    with contextlib.closing(history.open_(tmp_path)) as store:
        rows = [history.Row(i, (i,), True, True, 0.5 + i / 10, 0.5, *[np.nan] * 4) for i in (0, 1)]
        rows[1] = rows[1]._replace(stopped=3)
        history.record(store, history.Run("a", "cells", "t", 9, 0, {}), 0, rows)
        found = pareto.networks(history.rows(store, "cells"), space)
    assert [f["arch"].tolist() for f in found] == [[0]]


@pytest.mark.parametrize(
    ("most", "number"),
    [({}, 1), ({"mflops": 2.0}, 2), ({"params_m": 0.99}, 3), ({"mflops": 3, "params_m": 1}, 2)],
)
def test_the_most_accurate_within_bounds_has_its_number(most, number):
    found = pareto.within(FRONT, {"latency_ms": None} | most)
    assert found == FRONT[number - 1] | {"pick": number}
    assert pareto.choose({"best": {}, "pareto": FRONT}, found["pick"]) is FRONT[number - 1]


def test_networks_of_unknown_cost_are_left_out_and_it_is_told(caplog):
    with caplog.at_level(logging.WARNING, "fnas_jax"):
        assert pareto.within(FRONT, {"latency_ms": 9.0})["pick"] == 2
    assert "1 of 3 networks of the front are left out: latency_ms" in caplog.text


@pytest.mark.parametrize(
    ("front", "most", "message"),
    [
        (
            FRONT,
            {"mflops": 0.5},
            "within: at most 0.5 million multiply-adds was asked for, the",
        ),
        (FRONT[:1], {"latency_ms": 1.0}, "at most 1 ms was asked for, the least is not known"),
        (  # the bound that is kept is not among them
            FRONT,
            {"params_m": 9.0, "mflops": 0.5},
            "within: at most 0.5 million multiply-adds was asked for, the least is 1$",
        ),
        (
            [network("a", 0.9, 3.0, 1.0), network("bb", 0.8, 1.0, 3.0)],
            {"mflops": 2.0, "latency_ms": 2.0},
            "keeps all of them together: at most 2 million multiply-adds, at most 2 ms$",
        ),
        ([], {}, "the front is empty"),
        (FRONT, {"mflops": "1"}, "max_mflops is '1'; it must be a number"),
    ],
)
def test_where_none_is_within_it_is_said(front, most, message):
    with pytest.raises(UserError, match=message):
        pareto.within(front, most)


def test_a_network_is_found_by_its_decisions_wherever_it_stands_now():
    grown = {
        "best": {"arch": [9], "description": {"text": "z"}},
        "pareto": [network("z" * 9, 1, 9)],
    }
    grown["pareto"] += FRONT[1:]
    assert pareto.number(grown, 2) == 2
    assert pareto.number(grown, FRONT[1] | {"pick": 1}) == 2
    assert pareto.number(grown, FRONT[2]) == 3
    # The winner is in the front, too: by the number that it was taken by, else by its one there.
    assert pareto.number(grown, grown["best"] | {"pick": 0}) == 0
    assert pareto.number(grown, {"arch": np.array([9])}) == 1
    assert pareto.number({"best": {"arch": [5]}}, {"arch": (5,)}) == 0
    with pytest.raises(UserError, match="pick is a, which is neither the winner nor of the front"):
        pareto.number(grown, FRONT[0] | {"pick": 1})
    with pytest.raises(UserError, match="pick has no 'arch'"):
        pareto.number(grown, {"pick": 1})


def test_the_winner_is_number_0_and_other_numbers_are_of_the_front():
    result = {"best": {"arch": [5]}, "pareto": FRONT}
    assert pareto.choose(result, 0) == {"arch": [5]}
    for pick in (-1, 4):
        message = f"pick is {pick}; the front has 3 networks: 1 is a; 2 is bb; 3 is ccc"
        with pytest.raises(UserError, match=message):
            pareto.choose(result, pick)
    with pytest.raises(UserError, match="found no architecture"):
        pareto.choose({"best": None}, 0)
