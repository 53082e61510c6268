"""A run that is given more budget, or less, ends as one that had it from the start."""

import itertools
import json

import numpy as np
import pytest

import fnas_jax
from fnas_jax import iteration, trials
from tests.test_end_to_end import timeless

SMALL = {"search.batch": 3, "log.tensorboard": False, "uac.warmup": 4, "bananas.start": 4}
RARELY = [
    pytest.param(m, marks=pytest.mark.slow) for m in ("fnas", "bananas", "tnas", "ppo", "local")
]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "table.csv"
    rng = np.random.default_rng(0)
    rows = [f"{a},{b},{c},{rng.random():.4f}" for a, b, c in itertools.product(range(4), repeat=3)]
    path.write_text("\n".join(["decision_0,decision_1,decision_2,accuracy", *rows]))
    return path


def search(folder, table, budget, method, **more):
    options = {k: v for k, v in SMALL.items() if k.split(".")[0] in ("search", "log", method)}
    return fnas_jax.search(
        task=f"tabular/{table}", budget=budget, method=method, workdir=folder, **options | more
    )


@pytest.mark.parametrize("method", ["gp", "evolution", *RARELY])
def test_twelve_and_then_twenty_are_twenty(method, table, tmp_path):
    first = search(tmp_path / "a", table, 12, method)
    assert 12 <= first.counts["trained"] < 20
    grown = search(tmp_path / "a", table, 20, method)
    whole = search(tmp_path / "b", table, 20, method)
    assert timeless(grown.content) == timeless(whole.content)
    known = [trials.read(tmp_path / name) for name in "ab"]
    for proposal in itertools.chain(*known):
        del proposal["seconds"]
    assert known[0] == known[1]
    assert json.loads((tmp_path / "a" / "result-1.json").read_text()) == first.content
    assert search(tmp_path / "a", table, 20, method).content == grown.content


def interrupted(monkeypatch, iterations, *arguments, **more):
    """A search that is interrupted after so many iterations."""
    real, left = iteration.iterate, [iterations]

    def iterate(*args):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(iteration, "iterate", iterate)
    with pytest.raises(KeyboardInterrupt):
        search(*arguments, **more)
    monkeypatch.setattr(iteration, "iterate", real)


@pytest.mark.parametrize("method", ["gp", pytest.param("bananas", marks=pytest.mark.slow)])
def test_a_budget_that_was_too_high_is_taken_back(method, table, tmp_path, monkeypatch):
    folder = tmp_path / "a"
    interrupted(monkeypatch, 3, folder, table, 50, method)
    before = {p.name: p.read_bytes() for p in folder.glob("*.json")}
    with pytest.raises(fnas_jax.UserError, match=r"budget is 8, .* has trained 9 archit"):
        search(folder, table, 8, method)
    assert before == {p.name: p.read_bytes() for p in folder.glob("*.json")}
    ended = search(folder, table, 9, method)  # with what is trained
    assert ended.counts["trained"] == 9
    found = search(folder, table, 15, method)  # and up again, below the first one
    whole = search(tmp_path / "whole", table, 15, method)
    assert found.counts["trained"] == 15
    assert timeless(found.content) == timeless(whole.content)
    with pytest.raises(fnas_jax.UserError, match=r"budget is 12, .* has trained 15 archit"):
        search(folder, table, 12, method)
