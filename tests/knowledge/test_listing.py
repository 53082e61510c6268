"""Rows of a store by task, space and method, and the best of each."""

import contextlib
import json

import jax
import numpy as np
import pytest

from fnas_jax import trials
from fnas_jax.core import identity
from fnas_jax.core.measure import Measure
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import history, listing
from fnas_jax.knowledge.listing import Asked
from fnas_jax.spaces import categorical, cell, known, macro, mnas, mobilenetv3

NAN = float("nan")
SPACE = categorical.choices({"op": ["a", "b"], "depth": [1, 2, 4]}, "nets")
PLAIN = categorical.make((2, 3), "plain")
ACCURACY = identity.text({"kind": "x", "measure": Measure()._asdict()})
LOSS = identity.text({"kind": "x", "measure": Measure("loss", "minimize", "error")._asdict()})
UNTOLD = identity.text({"kind": "table", "metric": "figure"})


def row(position, arch, accuracy, trained=True, ok=True):
    return history.Row(position, arch, trained, ok, accuracy, accuracy, NAN, 2.0, NAN, 1.5)


def run(id_, space=SPACE, task="t", protocol=ACCURACY, method="fnas"):
    return history.Run(id_, space.name, task, 30, 7, {}, space.identity, protocol, method)


@pytest.fixture
def store(tmp_path):
    with contextlib.closing(history.open_(tmp_path)) as connection:
        first = [row(0, (0, 1), 0.5), row(1, (1, 2), 0.7), row(2, (0, 0), NAN, trained=False)]
        history.record(connection, run("a"), 0, first)
        history.record(connection, run("b", method="ppo"), 0, [row(0, (1, 2), 0.9)])
        history.record(connection, run("b", method="ppo"), 1, [row(0, (0, 2), 0.0, ok=False)])
        history.record(connection, run("c", task="u", protocol=LOSS), 0, [row(0, (0, 0), -0.25)])
        odd = run("d", PLAIN, "v", UNTOLD, method="")
        history.record(connection, odd, 0, [row(0, (1, 0), 3.0)])
        yield connection


def listed(store, **asked):
    return list(listing.rows(store, Asked(**asked)))


def test_all_rows_are_listed_in_words_by_task_space_and_protocol(store):
    found = listed(store)
    assert {tuple(row) for row in found} == {tuple(listing.COLUMNS)}
    short = [(r["task"], r["method"], r["text"], r["trained"], r["ok"], r["value"]) for r in found]
    assert short == [
        ("t", "fnas", "op=a,depth=2", True, True, 0.5),
        ("t", "fnas", "op=b,depth=4", True, True, 0.7),
        ("t", "fnas", "op=a,depth=1", False, True, None),
        ("t", "ppo", "op=b,depth=4", True, True, 0.9),
        ("t", "ppo", "op=a,depth=4", True, False, None),
        ("u", "fnas", "op=a,depth=1", True, True, 0.25),  # a loss
        ("v", "", "1,0", True, True, None),  # nobody knows what it measures
    ]
    first = found[0]
    assert (first["arch"], first["mflops"], first["latency_ms"]) == ([0, 1], 2.0, None)
    assert (first["metric"], first["steps"], first["seed"], first["run"]) == (
        "accuracy",
        30,
        7,
        "a",
    )
    assert (found[-1]["metric"], found[-2]["metric"]) == (None, "loss")


def test_filters_leave_what_is_of_all_of_them(store):
    assert [r["run"] for r in listed(store, method="ppo")] == ["b", "b"]
    assert [r["run"] for r in listed(store, space="nets", task="u")] == ["c"]
    assert listed(store, task="u", method="ppo") == []


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"task": "tt"}, "--task is 'tt', of which the store has no row; it has t, u, v; did you"),
        ({"method": "fnaas"}, "it has fnas, ppo; did you mean 'fnas'"),
        ({"space": "x"}, "--space is 'x', of which the store has no row; it has nets, plain"),
    ],
)
def test_a_name_of_no_row_is_told_with_those_that_there_are(store, asked, text):
    with pytest.raises(UserError, match=text):
        listed(store, **asked)


def test_the_best_are_measured_and_of_each_task_each_network_once(store):
    found = [(r["task"], r["run"], r["value"]) for r in listed(store, best=2)]
    assert found == [("t", "b", 0.9), ("t", "a", 0.5), ("u", "c", 0.25), ("v", "d", None)]
    assert [r["value"] for r in listed(store, best=1, task="t")] == [0.9]


def test_what_was_stopped_early_is_listed_as_such_and_not_among_the_best(store):
    better = [row(0, (0, 1), 0.95)._replace(stopped=11)]
    history.record(store, run("e"), 0, better)
    found = {line["accuracy"]: line["stopped"] for line in listed(store, task="t")}
    assert found.pop(0.95) == 11 and set(found.values()) == {None}
    assert [line["accuracy"] for line in listed(store, task="t", best=1)] == [0.9]
    assert "(expected, stopped after 11 steps)" in "\n".join(trials.store_table(listed(store)))


def test_the_least_loss_is_the_best(store):
    history.record(store, run("e", task="u", protocol=LOSS), 0, [row(0, (1, 1), -0.125)])
    assert [r["value"] for r in listed(store, task="u", best=1)] == [0.125]


@pytest.mark.parametrize("decisions", ["[9, 9]", "[", '["a"]', "[0]"])
def test_damaged_decisions_are_told(store, decisions):
    store.execute("UPDATE evaluations SET decisions = ? WHERE run = 'a'", [decisions])
    with pytest.raises(UserError, match="a row of the history is damaged"):
        listed(store)


def test_rows_of_earlier_versions_have_no_method(store):
    store.execute("UPDATE evaluations SET method = NULL, space_key = NULL WHERE run = 'c'")
    found = [r for r in listed(store) if r["run"] == "c"]
    assert [(r["method"], r["text"], r["value"]) for r in found] == [("", "0,0", 0.25)]


@pytest.mark.parametrize(
    "space",
    [
        mnas.make(3, 0.5, (1, 2, 1), 16, 1, 64),
        mobilenetv3.make(2, 0.5),
        macro.make(),
        cell.make(16, 2),
    ],
    ids=lambda space: space.name,
)
def test_networks_of_our_spaces_are_told_as_these_tell_them(space):
    """Whatever their channels are."""
    for arch in np.asarray(space.sample(jax.random.key(0), 8)).tolist():
        assert listing.words(space.identity)(arch) == space.describe(arch)["text"]


def test_networks_that_a_space_has_not_are_damage():
    space = mnas.make(3, 0.5, (1, 2, 1), 16, 1, 64)
    arch = [0] * len(space.cardinalities)
    for wrong in (arch[1:], [-1, *arch[1:]], [99, *arch[1:]]):
        with pytest.raises(UserError, match="a row of the history is damaged: its decisions are"):
            history.words(space, wrong)


def test_the_layers_of_a_space_are_known_where_all_of_it_is_the_same():
    assert known.alike(macro.make().identity).spec == macro.make().spec
    assert known.alike(mnas.make(3, 0.5, (1, 2, 1), 16, 1, 64).identity).spec is None
    assert known.alike(SPACE.identity).identity == SPACE.identity
    assert known.alike(PLAIN.identity) is known.alike("") is None


def test_spaces_of_one_name_are_told_apart(store):
    other = SPACE._replace(choices=(("a", "c"), (1, 2, 4)))
    history.record(store, run("f", other), 0, [row(0, (1, 0), 0.6)])
    found = {(r["space_key"], r["run"]) for r in listed(store, task="t", best=1)}
    assert found == {(SPACE.key, "b"), (other.key, "f")}


def test_a_space_that_is_not_known_is_told_in_numbers():
    other = json.loads(macro.make().identity) | {"cardinalities": [3] * 7 + [4]}
    assert listing.words(json.dumps(other))([0] * 7 + [3]) == "0,0,0,0,0,0,0,3"
    many = {"name": "mnas", "names": [f"block{i}/op" for i in range(9)], "cardinalities": [3] * 9}
    assert listing.words(json.dumps(many))([1] * 9) == ",".join("1" * 9)
