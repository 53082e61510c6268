"""What a run leaves on disk, damaged: it is read, or told in one sentence."""

import json
import pathlib
import tempfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnas_jax import main, outcome, results, standing, status
from fnas_jax.core import config as config_lib
from fnas_jax.core import config_json, logging, run_json, stages
from fnas_jax.knowledge import history, pins, pool_store, sources, store, task_data, taught
from fnas_jax.pages import assemble, summary
from fnas_jax.ship import best
from fnas_jax.ship import winner as ship
from fnas_jax.spaces import mnas
from tests.fuzz import damage
from tests.fuzz.test_images import npy_claiming, npy_of, zip_of
from tests.knowledge import test_sources as of_sources
from tests.knowledge.test_pins import PIN
from tests.plots.runs import run

RUN = run_json.Run(
    "0123abcd", 2, 1.5, 10, False, "key", "protocol", "accuracy", "maximize", "share"
)
CONFIG = config_lib.flatten(config_lib.default())
METRIC = {"name": "accuracy", "direction": "maximize", "kind": "share", "scale": 1.0}
NETWORK = {"arch": [0, 1], "accuracy": 0.5, "reward": 0.5, "mflops": 1.0}
FIRST = {"first_accuracy": 0.5, "first_reward": 0.5}
KEPT = {
    "folder": "best",
    "metrics": {"accuracy": 0.5, "nll": 0.1},
    "interval": {"metric": "accuracy", "low": 0.4, "high": 0.6, "method": "bootstrap"},
    "no_interval": "",
    "table": {"names": ["a", "b"], "recall": [0.1, None]},
}
WINNER = {
    **NETWORK,
    "rank": 1,
    "architectures": 3,
    "kept": KEPT,
    "reference": NETWORK,
    "finetuned": NETWORK,
    "metrics": KEPT["metrics"],
}
RESULT = {
    "best": NETWORK | FIRST | {"description": {"text": "a"}},
    "finalists": [NETWORK | FIRST],
    "pareto": [NETWORK | {"text": "a"}],
    "winner": WINNER,
    "counts": {"proposed": 2, "trained": 2, "failed": 0},
    "iterations": 1,
    "seconds": {"total": 1.0, "search": 0.5},
    "target": {"cost": "mflops", "target": 1.0, "value": 2.0, "met": False},
    "metric": METRIC,
}
LINE = {"step": 0, "iteration": 1, "proposed": 2, "best": 0.5}


@given(damage.odd_json(RUN._asdict()))
def test_run(content):
    with damage.folder({"run.json": content}) as root:
        found = damage.read(run_json.read_run, root)
        if isinstance(found, run_json.Run):
            assert isinstance(found.id, str) and isinstance(found.starts, int)
            damage.read(outcome.measure, root)


@given(damage.odd_json(CONFIG, {"search": {"budget": 5}}))
def test_config(content):
    with damage.folder({"config.json": content}) as root:
        found = damage.read(config_json.read_config, root)
        if not isinstance(found, Exception):
            config_lib.validate(found)


def test_a_whole_result_is_read():
    """Of one that is refused, no part would be tried."""
    config = json.dumps(CONFIG).encode()
    with damage.folder({"config.json": config, "result.json": json.dumps(RESULT).encode()}) as root:
        shown(root)
        found = results.Result(root)
        for text in ("final accuracy 50.00%", "reference network", "misses the target", "rank 1"):
            assert text in str(found)


@pytest.mark.parametrize(
    "change", [{"met": -1}, {"met": "x"}, {"target": None}, {"target": "x"}, {"value": "x"}]
)
def test_a_target_that_is_none_is_told(change):
    changed = json.dumps(RESULT | {"target": RESULT["target"] | change}).encode()
    with damage.folder({"result.json": changed}) as root:
        assert f"its '{next(iter(change))}' is" in str(damage.read(outcome.read, root))


def shown(root):
    """What the terminal and the page tell of a result."""
    found = outcome.read(root)
    ship.failure(found["winner"] or {})
    known = run([], result=found, measure=outcome.measure(root))
    return main.summary(found, "w"), summary.shown(known), assemble.sections(known)


@given(
    st.one_of(
        damage.odd_json(RESULT, RESULT | {"winner": None}, RESULT | {"seconds": {}}),
        damage.odd_json(*({**RESULT, "winner": WINNER | {n: None}} for n in WINNER)),
    )
)
def test_result(content):
    config = json.dumps(CONFIG).encode()
    with damage.folder({"config.json": config, "result.json": content}) as root:
        damage.read(outcome.measure, root)
        damage.read(shown, root)
        found = damage.read(results.Result, root)
        if isinstance(found, results.Result):
            damage.read(str, found)
            damage.read(found.pick)
            damage.read(lambda: (found.best, found.winner, found.counts, found.pareto))


TEACHERS = npy_of(np.arange(20, dtype=np.uint64))
CLAIMING = npy_claiming((2**40,), "<u8")


@given(st.one_of(damage.damaged([TEACHERS]), damage.damaged([CLAIMING])))
def test_names_of_teachers(content):
    with damage.folder({taught.FILE: content}) as root:
        damage.read(taught.read, root)


@pytest.fixture(scope="module")
def taken(tmp_path_factory):
    path = tmp_path_factory.mktemp("taken") / "taken.npz"
    pins.write(path, RUN.id, PIN)
    return path.read_bytes()


@given(data=st.data())
def test_what_was_taken_of_others(taken, data):
    content = data.draw(damage.damaged([taken, zip_of({"about.npy": CLAIMING})]))
    with damage.folder({"taken.npz": content}) as root:
        damage.read(pins.read, root / "taken.npz", RUN.id)


SPACE = mnas.make(2)
VERSION = {"run": "0" * 32, "seen": 0, "channels": 1, "classes": 3, "capacity": 4}
POOL = {
    "format": pool_store.FORMAT,
    "space": {"name": "mnas"} | pool_store._settings(SPACE.spec),
    "versions": {"1": VERSION},
    "runs": ["0" * 32],
}


@given(damage.odd_json(POOL, POOL | {"objective": "regression"}))
def test_pool(content):
    with damage.folder({"pool.json": content, "versions/1/a": b""}) as root:
        where = pool_store.Store(root, SPACE, 1, 3, 4, "0" * 32)
        damage.read(pool_store._describe, where)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A history of some rows, and of what it has besides."""
    folder = tmp_path_factory.mktemp("rows")
    with store.opened(folder) as connection:
        history.record(connection, of_sources.run(), 0, of_sources.many())
        task_data.record_task(connection, "a", {"images": 1.0})
        task_data.record_images(connection, "a", np.zeros((1, 1, 2, 2, 3), np.uint8))
    return (folder / history.FILE).read_bytes()


def looked_at(root):
    """All that is read of a history."""
    with store.existing(root) as connection:
        history.groups(connection)
        history.identity_of(connection, of_sources.run().id)
        task_data.task_statistics(connection)
        task_data.task_images(connection)
        sources.find(connection, of_sources.asker())


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # of changed numbers
@given(data=st.data())
def test_history(rows, data):
    """SQLite mends and writes what it opens, so the file need not stay as it is."""
    content = data.draw(damage.damaged([rows]))
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(history.time, "sleep", lambda seconds: None)  # between tries to open it
        (pathlib.Path(place) / history.FILE).write_bytes(content)
        damage.read(looked_at, pathlib.Path(place))


LIVE = {
    "pid": 1,
    "host": "a",
    "stage": "search",
    **dict.fromkeys(("since", "at"), 1.0),
    "label": "fnas",
    "done": 1,
    "total": 2,
    "left": None,
}
KEYS = config_lib.default()


@given(damage.odd_json(LIVE))
def test_what_a_process_says_of_itself(content):
    """Nothing is refused: what cannot be read says nothing."""
    with damage.folder({stages.FILE: content}) as root:
        found = standing.Status("w", True, stages.read(root))
        status.one_line(found, 3.0)
        status.screen(found._replace(config=KEYS), 3.0)


@given(st.lists(damage.odd_json(LINE), max_size=3).map(b"\n".join))
def test_metrics(content):
    with damage.folder({"metrics.jsonl": content}) as root:
        damage.read(logging.last_line, root / "metrics.jsonl")
        damage.read(standing._iterations, root / "metrics.jsonl")
        damage.read(logging.metric_lines, root / "metrics.jsonl")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The files of a `best/`, by name."""
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
