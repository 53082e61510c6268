"""What stands beside checkpoints is compared, mended or refused; on the small task of the loop."""

import contextlib
import json
import shutil
import sqlite3

import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax import loop
from fnas_jax.core import about, checkpoint, config_json, run_json
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import history
from tests.test_loop import (
    EVALUATOR,
    METHOD,
    TASK,
    Crash,
    build,
    config_with,
    lines_of,
    rows_of,
    timeless,
)

CONFIG = config_with(search__budget=12)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, loop.run(CONFIG, folder, build)


def kill(config, folder):
    """Begins a search, and ends it behind its third checkpoint."""
    real, left = checkpoint.save, [3]

    def save(*args):
        real(*args)
        left[0] -= 1
        if left[0] == 0:
            raise Crash

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", save)
        with pytest.raises(Crash):
            loop.run(config, folder, build)


@pytest.fixture(scope="module")
def killed_once(tmp_path_factory):
    """A search killed behind its third checkpoint."""
    folder = tmp_path_factory.mktemp("killed")
    kill(CONFIG, folder)
    assert json.loads((folder / "run.json").read_text())["format"] == run_json.FORMAT
    return folder


@pytest.fixture
def killed(killed_once, tmp_path):
    shutil.copytree(killed_once, tmp_path / "run")
    return tmp_path / "run"


def run_count(folder):
    with contextlib.closing(history.open_(folder / "knowledge")) as store:
        return store.execute("SELECT count(DISTINCT run) FROM evaluations").fetchone()[0]


def goes_on(folder, whole, **changes):
    config = config_with(**{"search__budget": 12} | changes)
    result = loop.run(config, folder, build)
    assert timeless(result) == timeless(whole[1])
    assert rows_of(folder) == rows_of(whole[0])  # and that they are of one run
    return result


@pytest.mark.parametrize("damaged", [False, True])
def test_a_search_of_before_a_key_goes_on_by_the_command_that_began_it(
    whole, tmp_path, caplog, damaged
):
    """Again when more of it is asked for, when its config.json has the key."""
    kill(config_with(search__budget=12, features__structure=False, features__costs=False), tmp_path)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    features = {"structure": False, "costs": False, "proxies": False}
    assert stored.pop("features") == features
    path.write_text("" if damaged else json.dumps(stored))
    goes_on(tmp_path, whole)
    told = "the search goes on as it was begun, with features.structure=False, features.costs=False"
    assert told in caplog.text
    loop.run(config_with(search__budget=14), tmp_path, build)
    assert json.loads(path.read_text())["features"] == features
    caplog.clear()
    with pytest.raises(UserError, match=r"features\.costs \(True there, False now\)"):
        loop.run(config_with(search__budget=12, features__costs=False), whole[0], build)
    assert not caplog.text  # of a search of today nothing is told


@pytest.mark.parametrize("content", [None, "", "[]", "{}", "null", '{"id": 5, "starts": "x"}'])
def test_run_json_is_mended_by_the_checkpoint(killed, whole, caplog, content):
    """With another id, all rows would stand twice."""
    path = killed / "run.json"
    before = json.loads(path.read_text())
    path.unlink() if content is None else path.write_text(content)
    result = goes_on(killed, whole)
    assert result["resumed"] == 1
    assert f"run.json was {'missing' if content is None else 'damaged'}" in caplog.text
    after = json.loads(path.read_text())
    assert after == before | {"starts": 2}


@pytest.mark.parametrize("content", [None, "[]", "{}", '{"seed": 0}', "\x00\x01"])
def test_config_json_is_mended_and_another_configuration_refused(killed, whole, caplog, content):
    path = killed / "config.json"
    before = json.loads(path.read_text())
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=r"another configuration: seed \(0 there, 1 now\)"):
        loop.run(config_with(search__budget=12, seed=1), killed, build)
    goes_on(killed, whole)
    assert json.loads(path.read_text()) == before
    assert "config.json was" in caplog.text


def test_what_may_change_may_change_where_config_json_is_gone(killed, whole):
    (killed / "config.json").unlink()
    (killed / "run.json").unlink()
    goes_on(killed, whole, log__every=1, winner__steps=7)
    assert config_json.read_config(killed).winner.steps == 7


def test_a_finished_search_without_its_configuration_is_not_that_of_another_one(killed, whole):
    goes_on(killed, whole)
    (killed / "config.json").unlink()
    with pytest.raises(UserError, match="another configuration: seed"):
        loop.run(config_with(search__budget=12, seed=1), killed, build)
    (killed / "config.json").unlink()
    shutil.rmtree(killed / "checkpoints")
    with pytest.raises(UserError, match=r"holds a search and no config\.json"):
        loop.run(config_with(search__budget=12, seed=1), killed, build)
    assert not (killed / "config.json").exists()


def test_files_of_two_searches_are_not_taken_for_one(killed, tmp_path, whole):
    other = tmp_path / "other"
    loop.run(config_with(search__budget=8), other, build)
    before = (killed / "run.json").read_text()
    shutil.copy(other / "run.json", killed / "run.json")
    with pytest.raises(UserError, match=r"are of another search than run\.json"):
        loop.run(CONFIG, killed, build)
    (killed / "run.json").write_text(before)
    config = json.loads((killed / "config.json").read_text())
    (killed / "config.json").write_text(json.dumps(config | {"seed": 1}))
    with pytest.raises(UserError, match=r"another configuration: seed \(0 there, 1 now\)"):
        loop.run(config_with(search__budget=12, seed=1), killed, build)
    (killed / "config.json").write_text(json.dumps(config))
    goes_on(killed, whole)


def without_log(folder):
    """Takes the write-ahead log away from a store that was killed; the rows that are left."""
    path = folder / history.FILE
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT * FROM evaluations").fetchall()
        places = ", ".join("?" * len(rows[0]))
        with connection:
            connection.execute("DELETE FROM evaluations WHERE iteration > 0")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with connection:
            written = f"INSERT OR REPLACE INTO evaluations VALUES ({places})"
            connection.executemany(written, rows)
        shutil.copytree(folder, folder.with_name("copy"))  # while it is open, as a kill leaves it
    shutil.rmtree(folder)
    folder.with_name("copy").rename(folder)
    path.with_name(f"{history.FILE}-wal").unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        left = connection.execute("SELECT count(*) FROM evaluations").fetchone()[0]
    assert 0 < left < len(rows)
    return left


@pytest.mark.parametrize("what", ["file", "rows", "wal"])
def test_rows_that_are_gone_are_told(killed, what):
    store = killed / "knowledge"
    if what == "file":
        shutil.rmtree(store)
        there = "0"
    elif what == "wal":
        there = str(without_log(store))
    else:
        with contextlib.closing(sqlite3.connect(store / history.FILE)) as connection:
            connection.execute("DELETE FROM evaluations WHERE iteration = 1 AND position = 0")
            connection.commit()
            there = str(connection.execute("SELECT count(*) FROM evaluations").fetchone()[0])
    with pytest.raises(UserError, match=rf"has {there} of the \d+ rows .* start a new workdir"):
        loop.run(CONFIG, killed, build)


def test_a_moved_workdir_goes_on(killed, whole, tmp_path):
    shutil.move(killed, tmp_path / "elsewhere")
    goes_on(tmp_path / "elsewhere", whole)


@pytest.mark.parametrize("content", [None, b"5\n\xff\xfe\n[]\nnull\n"])
def test_lost_lines_of_metrics_are_told(killed, whole, caplog, content):
    path = killed / "metrics.jsonl"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match=r"search\.max_proposals is 1, .* proposed \d+"):
        loop.run(config_with(search__budget=12, search__max_proposals=1), killed, build)
    goes_on(killed, whole)
    assert "metrics.jsonl has 0 of 3 lines" in caplog.text
    assert [line["step"] for line in lines_of(killed)] == [
        line["step"] for line in lines_of(whole[0])[3:]
    ]


@pytest.mark.parametrize("written", [True, False])
def test_other_numbers_are_refused_also_where_run_json_does_not_say_which_they_were(
    tmp_path, written
):
    def on(protocol, budget):
        evaluator = EVALUATOR._replace(protocol=protocol)
        config = config_with(search__budget=budget)
        return loop.run(config, tmp_path, lambda c, k: (TASK, METHOD, evaluator))

    on('{"data": "one"}', 4)
    if not written:
        run = json.loads((tmp_path / "run.json").read_text())
        (tmp_path / "run.json").write_text(json.dumps(run | {"protocol": ""}))
    with pytest.raises(UserError, match="begun on another task or data"):
        on('{"data": "other"}', 8)


def without_about(folder):
    """Its checkpoints as the version before wrote them."""
    with contextlib.closing(checkpoint.open_(folder / "checkpoints")) as manager:
        before = {step: checkpoint._whole(manager, step) for step in sorted(manager.all_steps())}
        for step in before:
            manager.delete(step)
        for step, stored in before.items():
            leaves = [stored[name] for name in sorted(stored) if name.startswith("leaf")]
            checkpoint.save(manager, step, leaves)
    known = json.loads((folder / "run.json").read_text())
    del known["data"]
    (folder / "run.json").write_text(json.dumps(known | {"format": 10}))


def test_a_search_of_the_format_before_goes_on_and_is_of_this_one_then(killed, whole):
    without_about(killed)
    assert about.parse(checkpoint.newest_about(killed / "checkpoints")) is None
    goes_on(killed, whole)
    assert json.loads((killed / "run.json").read_text())["format"] == run_json.FORMAT
    known = about.parse(checkpoint.newest_about(killed / "checkpoints"))
    assert known.run["id"] == json.loads((killed / "run.json").read_text())["id"]


@pytest.mark.parametrize("name", ["run.json", "config.json"])
def test_without_what_says_whose_they_are_checkpoints_of_before_are_refused(killed, name):
    without_about(killed)
    (killed / name).unlink()
    with pytest.raises(UserError, match=rf"holds a search and no {name}, and no checkpoint says"):
        loop.run(CONFIG, killed, build)
    assert not (killed / name).exists()


def test_checkpoints_of_a_later_format_are_refused_though_run_json_is_gone(killed, monkeypatch):
    (killed / "run.json").unlink()
    monkeypatch.setattr(run_json, "FORMAT", run_json.FORMAT - 1)
    monkeypatch.setattr(run_json, "READABLE", ())
    with pytest.raises(UserError, match="finish it with that version"):
        loop.run(CONFIG, killed, build)


def test_an_empty_newest_checkpoint_hides_none(killed, whole, caplog):
    (killed / "checkpoints" / "999").mkdir()
    goes_on(killed, whole)
    assert "checkpoint 999 is damaged" in caplog.text


def test_a_file_in_the_place_of_checkpoints_is_told(killed):
    shutil.rmtree(killed / "checkpoints")
    (killed / "checkpoints").write_text("")
    with pytest.raises(UserError, match="must be a folder of checkpoints, or not there"):
        loop.run(CONFIG, killed, build)


def test_a_search_whose_checkpoints_are_gone_begins_again_under_its_id(killed, whole):
    shutil.rmtree(killed / "checkpoints")
    goes_on(killed, whole)
    assert run_count(killed) == 1


def test_a_history_damaged_behind_its_first_page_is_told(killed):
    path = killed / "knowledge" / history.FILE
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    content[4096:] = np.random.default_rng(0).bytes(len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"history .* is damaged \(database disk image"):
        loop.run(CONFIG, killed, build)


RESULT_DAMAGES = ["[]", "null", "{}", "5", '{"best": 5}', "{", "[" * 100_000]


@pytest.mark.parametrize("content", RESULT_DAMAGES)
def test_a_damaged_result_is_told(killed, content):
    (killed / "result.json").write_text(content)
    with pytest.raises(UserError, match=r"result\.json' (is damaged|cannot be read)") as error:
        loop.run(CONFIG, killed, build)
    assert "\n" not in str(error.value)


def test_the_same_images_go_on_and_changed_ones_are_refused(killed, monkeypatch):
    """Of images, all count, and not only those that the protocol looks at."""
    monkeypatch.setattr(loop.protocols, "fingerprint", lambda dataset: dataset)
    folder = killed.parent / "images"

    def on(data, budget):
        task = TASK._replace(dataset=data)
        monkeypatch.setattr(loop, "keep_winner", lambda *rest: {})
        return loop.run(
            config_with(search__budget=budget), folder, lambda c, k: (task, METHOD, EVALUATOR)
        )

    on("one", 4)
    on("one", 8)
    for gone in (False, True):
        if gone:
            (folder / "run.json").unlink()
        with pytest.raises(UserError, match="begun on other images or labels"):
            on("two", 12)
    assert jnp.isfinite(on("one", 12)["best"]["reward"])
