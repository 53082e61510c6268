"""What a run leaves on disk, damaged: it is read, or told in one sentence."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnas_jax import outcome, results
from fnas_jax.core import config as config_lib
from fnas_jax.core import logging, workdir
from fnas_jax.ship import best
from tests.fuzz import damage

RUN = workdir.Run("0123abcd", 2, 1.5, 10, False, "key", "protocol", "accuracy", "maximize", "share")
CONFIG = config_lib.flatten(config_lib.default())
METRIC = {"name": "accuracy", "direction": "maximize", "kind": "share", "scale": 1.0}
RESULT = {
    "best": {"arch": [0, 1], "accuracy": 0.5, "description": {"text": "a"}, "mflops": 1.0},
    "finalists": [],
    "pareto": [{"arch": [0, 1], "accuracy": 0.5, "mflops": 1.0, "text": "a"}],
    "winner": None,
    "counts": {"proposed": 2, "trained": 2},
    "iterations": 1,
    "seconds": 1.0,
    "metric": METRIC,
}
LINE = {"step": 0, "iteration": 1, "proposed": 2, "best": 0.5}


@given(damage.odd_json(RUN._asdict()))
def test_run(content):
    with damage.folder({"run.json": content}) as root:
        found = damage.read(workdir.read_run, root)
        if isinstance(found, workdir.Run):
            assert isinstance(found.id, str) and isinstance(found.starts, int)
            damage.read(outcome.measure, root)


@given(damage.odd_json(CONFIG, {"search": {"budget": 5}}))
def test_config(content):
    with damage.folder({"config.json": content}) as root:
        found = damage.read(workdir.read_config, root)
        if not isinstance(found, Exception):
            config_lib.validate(found)


@given(damage.odd_json(RESULT))
def test_result(content):
    config = json.dumps(CONFIG).encode()
    with damage.folder({"config.json": config, "result.json": content}) as root:
        damage.read(outcome.measure, root)
        found = damage.read(results.Result, root)
        if isinstance(found, results.Result):
            damage.read(str, found)
            damage.read(found.pick)
            damage.read(lambda: (found.best, found.winner, found.counts, found.pareto))


@given(st.lists(damage.odd_json(LINE), max_size=3).map(b"\n".join))
def test_metrics(content):
    with damage.folder({"metrics.jsonl": content}) as root:
        damage.read(logging.last_line, root / "metrics.jsonl")
        damage.read(logging.metric_lines, root / "metrics.jsonl")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The files of a `best/`, by name."""
    import numpy as np

    folder = best.write(
        tmp_path_factory.mktemp("whole"),
        {"inputs": {"height": 8}, "arch": [0], "layers": [], "versions": {}},
        {"params": {"a": {"kernel": np.ones((2, 2), np.float32)}}, "batch_stats": {}},
        "card",
    )
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@given(data=st.data())
def test_best(whole, data):
    name = data.draw(st.sampled_from(sorted(whole)))
    files = whole | {name: data.draw(damage.damaged([whole[name]]))}
    if name == best.ARCHITECTURE:
        files[name] = data.draw(damage.odd_json(json.loads(whole[name])))
    with damage.folder(files) as root:
        damage.read(best.read, root)
