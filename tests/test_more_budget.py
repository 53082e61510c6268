"""A run that is given more budget, or less, ends as one that had it from the start."""

import itertools
import json

import numpy as np
import pytest

import fnas_jax
from fnas_jax import iteration, loop, trials
from fnas_jax.core import clock
from tests.test_end_to_end import timeless

SMALL = {"search.batch": 3, "log.tensorboard": False, "uac.warmup": 4, "bananas.start": 4}
SMALL |= {"jax.cache_dir": ""}
# Of "gp" the test below and tests/test_limits.py have a run that grows, too.
RARELY = [
    pytest.param(m, marks=pytest.mark.slow)
    for m in ("fnas", "bananas", "tnas", "tpe", "ppo", "local", "gp")
]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "table.csv"
    rng = np.random.default_rng(0)
    rows = [f"{a},{b},{c},{rng.random():.4f}" for a, b, c in itertools.product(range(4), repeat=3)]
    path.write_text("\n".join(["decision_0,decision_1,decision_2,accuracy", *rows]))
    return path


def search(folder, table, budget, method, **more):
    options = {
        k: v for k, v in SMALL.items() if k.split(".")[0] in ("search", "log", "jax", method)
    }
    return fnas_jax.search(
        task=f"tabular/{table}", budget=budget, method=method, workdir=folder, **options | more
    )


@pytest.mark.parametrize("method", ["evolution", *RARELY])
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


def test_fewer_proposals_than_there_were_are_refused(table, tmp_path):
    folder = tmp_path / "a"
    first = search(folder, table, 64, "random", **{"search.max_proposals": 15})
    before = {p.name: p.read_bytes() for p in folder.glob("*.json")}
    for options, given in (
        ((folder, table, 64, "random"), {"search.max_proposals": 3}),
        ((folder, table, 64, "random"), {"search.max_proposals": 14}),
    ):
        with pytest.raises(fnas_jax.UserError, match=r"max_proposals is \d+, .* proposed 15 archi"):
            search(*options, **given)
    assert before == {p.name: p.read_bytes() for p in folder.glob("*.json")}
    same = search(folder, table, 64, "random", **{"search.max_proposals": 15})
    assert same.content == first.content
    more = search(folder, table, 64, "random", **{"search.max_proposals": 18})
    whole = search(tmp_path / "b", table, 64, "random", **{"search.max_proposals": 18})
    assert timeless(more.content) == timeless(whole.content)


@pytest.fixture
def ticking(monkeypatch):
    """Every iteration takes ten seconds, and nothing else takes any."""
    passed = [0]
    real, start = iteration.iterate, clock.Clock.__init__

    def iterate(*args):
        passed[0] += 10.0
        return real(*args)

    def begin(self):
        start(self)
        passed[0] = 0.0

    def seconds(self):
        return dict.fromkeys(clock.PARTS, 0.0) | {"total": self._earlier + passed[0]}

    monkeypatch.setattr(loop.iteration, "iterate", iterate)
    monkeypatch.setattr(clock.Clock, "__init__", begin)
    monkeypatch.setattr(clock.Clock, "seconds", seconds)


def test_a_search_ends_when_its_time_is_over_and_goes_on_with_more(
    table, tmp_path, ticking, capsys
):
    folder, quarter = tmp_path / "a", {"search.seconds": 25.0}
    first = search(folder, table, 60, "random", **quarter)
    assert first.content["iterations"] == 3 and first.best is not None  # after 30 s
    assert "search.seconds is 25: the search ends here, after 30.0 s" in capsys.readouterr().err
    assert search(folder, table, 60, "random", **quarter).content == first.content
    with pytest.raises(
        fnas_jax.UserError, match=r"seconds is 5, .* has taken 30.0 s .* give 30 or"
    ):
        search(folder, table, 60, "random", **{"search.seconds": 5})
    grown = search(folder, table, 60, "random", **{"search.seconds": 50})  # of all starts
    assert grown.content["iterations"] == 5
    as_many = search(tmp_path / "b", table, grown.counts["trained"], "random")
    assert timeless(grown.content) == timeless(as_many.content)
    assert search(folder, table, 18, "random").content["iterations"] > 5  # without a limit


def test_one_iteration_is_held_whatever_the_time(table, tmp_path):
    found = search(tmp_path / "a", table, 60, "random", **{"search.seconds": 1e-9})
    assert found.content["iterations"] == 1 and found.best is not None


CHILDREN = {
    "space.blocks": 1,
    "space.strides": (1,),
    "space.stem": 8,
    "space.stem_stride": 1,
    "space.head": 16,
    "children.steps": 2,
    "children.batch_size": 16,
    "winner.steps": 0,
    "akp.enabled": False,
    "search.batch": 2,
    "log.tensorboard": False,
}


def shown(folder, images):
    """A search until children have been trained on so many images."""
    options = CHILDREN | {"search.images": images}
    return fnas_jax.search(task="images/digits", method="random", workdir=folder, **options)


def test_images_end_a_search_that_goes_on_with_more_of_them(tmp_path, capsys):
    first = shown(tmp_path / "a", 100)  # 32 of each of two children
    assert first.counts["trained"] == 4 and first.content["images"] == 128
    assert "search.images is 100: the search ends here, after 128 with" in capsys.readouterr().err
    grown, whole = shown(tmp_path / "a", 200), shown(tmp_path / "b", 200)
    trained = grown.counts["trained"]  # a known one is not trained again
    assert trained in (7, 8) and grown.content["images"] == 32 * trained
    assert timeless(grown.content) == timeless(whole.content)
    with pytest.raises(fnas_jax.UserError, match=r"children on 2\d\d images or more already"):
        shown(tmp_path / "a", 100)


@pytest.mark.parametrize(
    ("task", "method", "sentence"),
    [
        ("table", "random", "tabular/table trains no networks: search.budget says how many"),
        ("images/digits", "pgnas", "one network is trained for all: search.budget says how many"),
    ],
)
def test_images_are_not_counted_where_no_child_is_trained(task, method, sentence, table, tmp_path):
    name = f"tabular/{table}" if task == "table" else task
    options = {} if task == "table" else CHILDREN
    options = options | {"search.images": 9}
    with pytest.raises(fnas_jax.UserError, match=sentence):
        fnas_jax.search(task=name, method=method, workdir=tmp_path / "a", **options)
