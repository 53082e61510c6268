import errno
import json
import os
import pathlib
import time

import filelock
import numpy as np
import pytest

from fnas_jax.core import budget, config_json, disk, keep, run_json, unchanged, workdir
from fnas_jax.core import config as config_lib
from fnas_jax.core.keep import on_disk
from fnas_jax.core.types import UserError


def config_with(**changes):
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    return config_lib.nest(config_lib.flatten(config_lib.default()) | changes)


def open_once(folder, config):
    with workdir.opened(folder, config) as path:
        run = run_json.identify(path)
        workdir.start(path, config, run)
        return run


def test_a_new_folder_gets_the_configuration_and_reads_it_back(tmp_path):
    config = config_with(space__strides=(1, 2), children__lr=0.3)
    open_once(tmp_path / "a" / "b", config)
    assert config_json.read_config(tmp_path / "a" / "b").to_dict() == config.to_dict()
    open_once(tmp_path / "a" / "b", config)


def test_another_configuration_is_refused_naming_the_keys(tmp_path):
    open_once(tmp_path, config_with())
    with pytest.raises(UserError) as error:
        open_once(tmp_path, config_with(seed=3, children__lr=0.5))
    assert str(error.value).endswith(
        "children.lr (0.1 there, 0.5 now), seed (0 there, 3 now);"
        " give the command that began it, another search.budget or other winner.* and log.* keys,"
        " or another --workdir"
    )
    open_once(tmp_path, config_with())


def test_a_folder_is_one_processs_at_a_time(tmp_path):
    with (
        filelock.FileLock(tmp_path / ".lock"),
        pytest.raises(UserError, match="another process is running"),
    ):
        open_once(tmp_path, config_with())
    open_once(tmp_path, config_with())


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="cannot be written"):
            open_once(folder, config_with())


def test_an_old_run_is_read_and_continued_under_the_names_of_today(tmp_path, monkeypatch):
    flat = config_lib.flatten(config_with())
    flat["search.limit"] = flat.pop("search.budget")
    (tmp_path / "config.json").write_text(config_lib.nest(flat).to_json())
    with pytest.raises(UserError, match=r"unknown config key 'search\.limit'"):
        config_json.read_config(tmp_path)
    new = config_lib.Renamed("search.budget")
    monkeypatch.setattr(config_lib, "RENAMED", {"search.limit": new})
    assert config_json.read_config(tmp_path) == config_with()
    open_once(tmp_path, config_with())  # is not another configuration


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UserError, match="cannot be written: Permission denied"):
            open_once(tmp_path, config_with())
    finally:
        tmp_path.chmod(0o700)


def test_a_damaged_or_missing_configuration_is_told(tmp_path):
    with pytest.raises(UserError, match=r"it has no config\.json"):
        config_json.read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json' cannot be read"):
        open_once(tmp_path, config_with())


def test_starts_are_counted_under_one_id(tmp_path):
    first = open_once(tmp_path, config_with())
    assert first.starts == 0 and time.time() - 60 < first.began <= time.time()
    again = [open_once(tmp_path, config_with()) for _ in range(2)]
    begun = first._replace(budget=64, proposals=1280)  # the defaults, of which its arrays are
    assert again == [begun._replace(starts=1), begun._replace(starts=2)]


def run_of_before(folder, **fields):
    """A workdir as an earlier version left it in the middle of a search."""
    open_once(folder, config_with())
    run = {"id": "ab" * 16, "starts": 2, "began": 1.7e9} | fields
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "checkpoints" / "12").mkdir(parents=True)


@pytest.mark.parametrize("fields", [{}, {"format": run_json.FORMAT + 1, "more": 0}])
def test_an_unfinished_run_of_another_version_is_refused_in_a_sentence(tmp_path, fields):
    run_of_before(tmp_path, **fields)
    for _ in range(2):  # nothing of the folder has changed
        with pytest.raises(UserError, match="finish it with that version, or start a new workdir"):
            open_once(tmp_path, config_with())
    assert json.loads((tmp_path / "run.json").read_text())["starts"] == 2


@pytest.mark.parametrize("fields", [{}, {"format": run_json.FORMAT + 1}])
def test_a_run_with_defaults_of_another_version_is_refused_with_what_to_do(tmp_path, fields):
    run = {"id": "ab" * 16, "starts": 1, "began": 1.7e9} | fields
    (tmp_path / "run.json").write_text(json.dumps(run))
    (tmp_path / "config.json").write_text(config_with(ppo__hidden=128).to_json())
    with pytest.raises(UserError) as error:
        open_once(tmp_path, config_with())
    today = config_with().ppo.hidden
    assert str(error.value).endswith(
        f"ppo.hidden (128 there, {today} now). It was begun by another version of fnas_jax, whose"
        " defaults differ: finish it with that version, or start a new workdir; report and retrain"
        " still read it"
    )
    assert config_json.read_config(tmp_path).ppo.hidden == 128
    assert json.loads((tmp_path / "run.json").read_text()) == run


def test_a_run_of_before_without_a_checkpoint_starts_under_its_id(tmp_path):
    run_of_before(tmp_path)
    (tmp_path / "checkpoints" / "12").rmdir()
    assert open_once(tmp_path, config_with()) == run_json.Run("ab" * 16, 2, 1.7e9, run_json.FORMAT)
    assert json.loads((tmp_path / "run.json").read_text())["format"] == run_json.FORMAT


def test_versions_are_json_ready():
    assert {"fnas_jax", "jax", "flax", "python", "platform"} <= set(workdir.versions())
    json.dumps(workdir.versions())


def test_a_run_that_never_began_leaves_nothing(tmp_path):
    """Neither a new folder and its parents, nor files in one that was there."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").write_text("")
    for folder in (tmp_path / "a" / "b", tmp_path / "there"):
        with pytest.raises(UserError), workdir.opened(folder, config_with()) as path:
            (path / "knowledge").mkdir()
            (path / "knowledge" / "history.sqlite").write_text("")
            on_disk(path / keep.FULL, 0.0).save(keep.MEASURED, "{}", 1, np.zeros(2))
            raise UserError("no such method")
    assert [p.name for p in tmp_path.iterdir()] == ["there"]
    assert [p.name for p in (tmp_path / "there").iterdir()] == ["mine"]


def test_a_run_that_began_keeps_everything(tmp_path):
    folder, config = tmp_path / "a", config_with()
    with pytest.raises(KeyboardInterrupt), workdir.opened(folder, config) as path:
        (path / "knowledge").mkdir()
        workdir.start(path, config, run_json.identify(path))
        raise KeyboardInterrupt
    assert {p.name for p in folder.iterdir()} >= {"config.json", "run.json", "knowledge"}


def test_knowledge_that_was_there_before_is_kept(tmp_path):
    (tmp_path / "knowledge").mkdir()
    with pytest.raises(UserError), workdir.opened(tmp_path, config_with()):
        raise UserError("no such method")
    assert [p.name for p in tmp_path.iterdir()] == ["knowledge"]


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({"search__budget": 80}, True),
        ({"search__budget": 40}, True),
        ({"search__budget": 39}, True),  # `check_budget` knows whether that is too few
        ({"search__max_proposals": 799}, True),
        ({"winner__steps": 1, "log__every": 2}, True),
        ({"search__budget": 80, "search__batch": 4}, False),
    ],
)
def test_a_run_may_be_given_more_budget_and_another_end(tmp_path, changes, allowed):
    open_once(tmp_path, config_with(search__budget=40))
    (tmp_path / "result.json").write_text("{}")
    (tmp_path / "retrain.json").write_text('{"kept": "best"}')
    if not allowed:
        with pytest.raises(UserError, match="belongs to a run with another configuration"):
            open_once(tmp_path, config_with(**{"search__budget": 40} | changes))
        return
    run = open_once(tmp_path, config_with(**{"search__budget": 40} | changes))
    same = changes == {"search__budget": 40}
    assert run.starts == 1 and run_json.identify(tmp_path).grown is not same
    assert (tmp_path / "result.json").exists() is same
    assert (tmp_path / "result-1.json").exists() is not same
    # It speaks of a network in best/, where the new winner will be.
    assert (tmp_path / "retrain.json").exists() is same
    assert (tmp_path / "retrain-1.json").exists() is not same
    assert config_json.read_config(tmp_path) == config_with(**{"search__budget": 40} | changes)


def test_arrays_keep_the_largest_budget_that_a_run_has_had(tmp_path):
    def size(**changes):
        config = config_with(**changes)
        search = workdir.room(tmp_path, config, run_json.identify(tmp_path)).search
        with workdir.opened(tmp_path, config) as path:
            workdir.start(path, config, run_json.identify(path))
        return search.budget, budget.proposals(search.max_proposals, search.budget)

    assert size(search__budget=40) == (40, 800)
    assert size(search__budget=30) == (40, 800)
    assert size(search__budget=35, search__max_proposals=900) == (40, 900)
    assert size(search__budget=50) == (50, 1000)
    assert size(search__budget=10) == (50, 1000)
    known = json.loads((tmp_path / "run.json").read_text())
    del known["budget"], known["proposals"]  # an earlier version: budgets only rose
    (tmp_path / "run.json").write_text(json.dumps(known))
    assert size(search__budget=5) == (10, 200)


def test_less_budget_than_was_trained_is_told(tmp_path):
    open_once(tmp_path, config_with(search__budget=40))
    for given, trained, fits in ((20, 20, True), (20, 21, False), (40, 43, True), (41, 43, True)):
        if fits:
            unchanged.check_budget(tmp_path, config_with(search__budget=given), trained)
            continue
        with pytest.raises(UserError, match=r"is 20, .* has trained 21 .* 21 or more"):
            unchanged.check_budget(tmp_path, config_with(search__budget=given), trained)


def test_drafts_of_killed_processes_go_when_a_folder_is_opened(tmp_path):
    config = config_lib.default()
    for name in (".run.json.77", ".metrics.jsonl.8", ".report.html.9", ".notes.1"):
        (tmp_path / name).touch()
    with workdir.opened(tmp_path, config):
        # Of a report that may be written just now, beside the search; and a file of the user's.
        names = {path.name for path in tmp_path.iterdir()}
        assert names == {".lock", ".report.html.9", ".notes.1"}


def test_a_workdir_on_a_full_disk_is_no_wrong_input(tmp_path, monkeypatch):
    def full(*args, **more):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pathlib.Path, "mkdir", full)
    with (
        pytest.raises(disk.Refused, match="cannot be written: No space left on device; the same"),
        workdir.opened(tmp_path / "w", config_lib.default()),
    ):
        pass
