"""Which networks are compared after a search, and which of them is taken."""

import jax
import numpy as np
import pytest

from fnas_jax import shortlist
from fnas_jax.core.config import default
from fnas_jax.core.types import Failed, UserError
from fnas_jax.spaces import categorical
from fnas_jax.tasks.base import Task

# Networks whose last decisions are equal are the same.
SPACE = categorical.make((4, 4))._replace(canonical=lambda archs: archs.at[:, 0].set(0))


def trial(arch, reward, trained=True, ok=True, stopped=None):
    figures = {"accuracy": reward / 2, "reward": reward, "stopped": stopped}
    return {"arch": arch, "trained": trained, "ok": ok, **figures}


def test_finalists_come_first_by_their_second_readings_and_each_network_once():
    finalists = [
        {"arch": [0, 1], "accuracy": 0.4, "reward": 0.5, "first_reward": 0.9},
        {"arch": [0, 2], "accuracy": None, "reward": None, "first_reward": 0.8},
        {"arch": [0, 3], "accuracy": 0.4, "reward": 0.6, "first_reward": 0.7},
    ]
    tried = [
        trial([1, 0], 0.1),
        trial([2, 0], 0.3),  # the same network, read better
        trial([0, 1], 0.9),
        trial([0, 2], 0.8),
        trial([3, 3], 0.7),
        trial([0, 0], 2.0, trained=False),
        trial([1, 0], 3.0, ok=False),
        trial([1, 0], 4.0, stopped=5),
    ]
    found = shortlist.ranked({"finalists": finalists}, tried, SPACE, 9)
    assert [entry["arch"] for entry in found] == [[0, 3], [0, 1], [0, 2], [0, 0]]
    assert [entry["search"]["reward"] for entry in found] == [0.6, 0.5, 0.8, 0.3]
    assert [entry["search"]["reading"] for entry in found] == 2 * ["finals"] + 2 * ["search"]
    assert found == shortlist.ranked({"finalists": finalists}, tried[::-1], SPACE, 9)
    assert shortlist.ranked({}, tried, SPACE, 2) == [
        {"arch": [0, 1], "text": found[1]["text"], "search": found[1]["search"]}
        | {"search": {"reading": "search", "accuracy": 0.45, "reward": 0.9}},
        found[2],
    ]
    assert shortlist.ranked({}, [], SPACE, 2) == []


def facts(accuracy, mflops=1.0):
    costs = {"mflops": mflops, "params_m": 0.5, "latency_ms": float("nan")}
    return {"accuracy": accuracy, **costs, "seconds": 2.0}


def hold(compared, **keys):
    config = default()
    for name, value in keys.items():
        section, key = name.split("_", 1)
        config[section][key] = value
    seen = []

    def compare(archs, key, say):
        seen.append(archs)
        say("how far")
        return compared

    entries = [
        {"arch": [0, i], "text": f"n{i}", "search": {"accuracy": 0.5, "reward": 0.5}}
        for i in range(len(compared))
    ]
    task = Task("t", SPACE, None, None, compare=compare)
    lines = []
    found = shortlist.hold(config, task, entries, jax.random.key(0), lines.append)
    np.testing.assert_array_equal(seen[0], [entry["arch"] for entry in entries])
    assert lines[0] == "how far"
    left = [entry for entry in found if "above_limit" in entry]
    assert lines[1:] == [f"{e['text']} is left out: {e['above_limit']}" for e in left]
    return found


def test_the_best_reward_of_full_training_is_chosen_and_of_equal_ones_the_first():
    found = hold([facts(0.7), facts(None), facts(0.9), facts(0.9)])
    assert [entry["chosen"] for entry in found] == [False, False, True, False]
    assert [entry["rank"] for entry in found] == [1, 2, 3, 4]
    assert found[1]["reward"] is None and found[2]["reward"] == pytest.approx(0.9)
    lines = shortlist.table(found).splitlines()
    assert lines[3].startswith("*") and lines[3].endswith("n2") and "90.00%" in lines[3]
    assert "unknown" in lines[2] and not lines[4].startswith("*")


def test_costs_count_as_in_the_search():
    keys = {"reward_cost": "mflops", "reward_target": 1.0, "reward_beta": -1.0}
    found = hold([facts(0.6), facts(0.9, mflops=3.0)], **keys)
    assert [entry["chosen"] for entry in found] == [True, False]
    assert found[1]["reward"] == pytest.approx(0.3)


def test_latency_counts_by_its_source_where_that_is_not_the_clock():
    keys = {"reward_cost": "latency_ms", "reward_target": 1.0, "reward_beta": -1.0}
    slow = facts(0.9) | {"latency_ms": 1.0, "latency_by_source": {"ms": 3.0}}
    fast = facts(0.6) | {"latency_ms": 3.0, "latency_by_source": {"ms": 1.0}}
    found = hold([slow, fast], **keys)
    assert [entry["reward"] for entry in found] == pytest.approx([0.3, 0.6])
    timed = [facts(0.6) | {"latency_ms": ms} for ms in (3.0, 1.0)]
    assert [entry["reward"] for entry in hold(timed, **keys)] == pytest.approx([0.2, 0.6])


def test_what_is_above_a_limit_by_the_source_in_force_is_not_chosen():
    """The clock counts only where it is the source; the other costs always do."""
    slow = facts(0.9) | {"latency_ms": 1.0, "latency_by_source": {"ms": 9.0}}
    fast = facts(0.6) | {"latency_ms": 9.0, "latency_by_source": {"ms": 5.0}}
    found = hold([slow, fast], limits_latency_ms=5.0)
    assert [entry["chosen"] for entry in found] == [False, True]
    assert found[0]["above_limit"] == "it has 9 ms, and limits.latency_ms is 5"
    timed = [facts(0.9) | {"latency_ms": 9.0}, facts(0.6) | {"latency_ms": 5.0}]
    assert [e["chosen"] for e in hold(timed, limits_latency_ms=5.0)] == [False, True]
    heavy = hold([facts(0.9, mflops=3.0), facts(0.6)], limits_mflops=2.0)
    assert [entry["chosen"] for entry in heavy] == [False, True]
    assert "it has 3 million multiply-adds" in heavy[0]["above_limit"]
    with pytest.raises(UserError, match=r"none of the 1 networks is .*source device; of the first"):
        hold(timed[:1], limits_latency_ms=5.0)
    with pytest.raises(Failed, match="each of the 1 networks failed"):
        hold([timed[0], facts(None) | {"latency_ms": 5.0}], limits_latency_ms=5.0)


def test_where_nothing_can_be_compared_it_is_said():
    with pytest.raises(Failed, match="each of the 2 networks failed"):
        hold([facts(None), facts(None)])
    with pytest.raises(UserError, match=r"winner.steps is 0"):
        hold([facts(0.5)], winner_steps=0)
    with pytest.raises(UserError, match="the task t trains no network"):
        shortlist.hold(default(), Task("t", SPACE, None, None), [], None, print)
