"""Hard limits: what is above is never judged, counted, and never the winner."""

import itertools

import numpy as np
import pytest

import fnas_jax
from fnas_jax import trials
from tests.test_api import SMALL, X, Y

QUIET = {"log.tensorboard": False, "search.batch": 4}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """64 networks; the more one costs, the better it is."""
    path = tmp_path_factory.mktemp("table") / "table.csv"
    head = "decision_0,decision_1,decision_2,accuracy,mflops"
    rows = [
        f"{a},{b},{c},{0.1 + (a + b + c) / 10},{1 + a + b + c}"
        for a, b, c in itertools.product(range(4), repeat=3)
    ]
    path.write_text("\n".join([head, *rows]))
    return f"tabular/{path}"


@pytest.mark.parametrize(
    "method", ["gp", *(pytest.param(m, marks=pytest.mark.slow) for m in ("random", "evolution"))]
)
def test_of_a_table_the_best_within_the_limit_wins(method, table, tmp_path):
    found = fnas_jax.search(
        task=table, method=method, budget=20, workdir=tmp_path, limits={"mflops": 4.0}, **QUIET
    )
    known = trials.read(tmp_path)
    assert max(t["mflops"] for t in known) <= 4 and found.best["mflops"] == 4
    assert found.counts["trained"] == len(known) <= 20  # that many there are
    assert found.counts["over_limit"] > 0 and found.counts["failed"] == 0
    assert f"{found.counts['over_limit']} not, because they are above a limit" in repr(found)


def test_children_above_a_limit_are_not_trained(tmp_path):
    free = fnas_jax.search(X, Y, workdir=tmp_path / "a", **SMALL | {"method.name": "random"})
    limit = float(np.mean([t["mflops"] for t in trials.read(tmp_path / "a")]))
    options = SMALL | {"method.name": "random", "limits.mflops": limit}
    found = fnas_jax.search(X, Y, workdir=tmp_path / "b", **options)
    known = trials.read(tmp_path / "b")
    assert len(known) == found.counts["trained"] == free.counts["trained"]
    assert max(t["mflops"] for t in known) <= limit and found.counts["over_limit"] > 0
    assert found.winner["mflops"] <= limit


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mflops", r"limits.mflops is 0.001 million multiply-adds; the cheapest network known has"),
        ("params_m", r"limits.params_m is 0.001 million parameters; the cheapest network known"),
    ],
)
def test_a_limit_below_everything_is_told_before_anything_is_trained(name, message, tmp_path):
    with pytest.raises(fnas_jax.UserError, match=message):
        fnas_jax.search(X, Y, workdir=tmp_path / "w", **SMALL | {f"limits.{name}": 0.001})
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"mflops": 0.5}, r"the cheapest network of table table has 1 \(0,0,0\)"),
        ({"params_m": 1.0}, "which table table does not hold"),
        ({"mflops": -1.0}, "allowed is 0 or more"),
    ],
)
def test_limits_that_a_table_cannot_keep_are_one_sentence(limits, message, table, tmp_path):
    with pytest.raises(fnas_jax.UserError, match=message):
        fnas_jax.search(task=table, method="random", workdir=tmp_path / "w", limits=limits)


def test_a_function_says_only_afterwards_what_a_network_costs(tmp_path):
    space = fnas_jax.categorical({"size": [1, 2, 3, 4], "kind": ["a", "b"]})
    task = fnas_jax.from_function(
        space, lambda d: {"accuracy": d["size"] / 10, "latency_ms": d["size"]}
    )
    found = fnas_jax.search(
        task=task, method="random", budget=8, workdir=tmp_path, limits={"latency_ms": 2.0}, **QUIET
    )
    assert found.best["latency_ms"] == 2 and found.counts["failed"] == 4


@pytest.mark.parametrize("beta", [-0.01, -2.0])
def test_a_soft_target_that_is_missed_is_said(beta, table, tmp_path):
    reward = {"cost": "mflops", "target": 4.0, "alpha": 0.0, "beta": beta}
    found = fnas_jax.search(
        task=table, method="random", budget=64, workdir=tmp_path, reward=reward, **QUIET
    )
    value = found.best["mflops"]
    assert (value > 4) == (beta == -0.01)  # weakly punished, the best cost more
    expected = {"cost": "mflops", "target": 4.0, "value": value, "met": value <= 4}
    assert found.content["target"] == expected
    missed = f"it misses the target of 4 million multiply-adds: {value:.4g}"
    assert (missed in repr(found)) == (value > 4)
