"""The folder `best/`: whole or not at all, and what is wrong with it in one sentence."""

import json
import os
import shutil

import numpy as np
import pytest

import fnas_jax
from fnas_jax.core.types import UserError
from fnas_jax.ship import best


def variables(value):
    return {
        "params": {"a": {"kernel": np.full((2, 3), value, np.float32)}},
        "batch_stats": {"a": {"mean": np.full(3, value, np.float32)}},
    }


def write(folder, value):
    return best.write(folder, {"value": value}, variables(value), f"# {value}\n")


def value_of(folder):
    record, found = best.read(folder)
    assert found["params"]["a"]["kernel"].tolist() == [3 * [record["value"]]] * 2
    assert found["batch_stats"]["a"]["mean"].tolist() == 3 * [record["value"]]
    return record["value"]


def test_what_is_written_is_read(tmp_path):
    assert write(tmp_path, 1.0) == tmp_path / "best"
    assert value_of(tmp_path) == value_of(tmp_path / "best") == value_of(str(tmp_path)) == 1.0
    assert sorted(os.listdir(tmp_path / "best")) == sorted(
        ["README.md", "architecture.json", "weights.safetensors"]
    )
    moved = shutil.copytree(tmp_path / "best", tmp_path / "elsewhere" / "any_name")
    assert value_of(moved) == 1.0


def test_a_newer_one_takes_its_place(tmp_path):
    write(tmp_path, 1.0)
    write(tmp_path, 2.0)
    assert value_of(tmp_path) == 2.0
    assert os.listdir(tmp_path) == ["best"]


class Killed(Exception):
    pass


@pytest.mark.parametrize("last", range(12))
def test_killed_at_any_moment_one_of_both_is_there(tmp_path, monkeypatch, last):
    """Each call by which `write` changes the disk is the last one, in turn."""
    write(tmp_path, 1.0)
    left = [last]

    def counted(function):
        def call(*args, **more):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return function(*args, **more)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(best.pathlib.Path, "rename", counted(best.pathlib.Path.rename))
        patch.setattr(best.pathlib.Path, "mkdir", counted(best.pathlib.Path.mkdir))
        patch.setattr(best, "write_bytes", counted(best.write_bytes))
        patch.setattr(best.shutil, "rmtree", counted(best.shutil.rmtree))
        try:
            write(tmp_path, 2.0)
            finished = True
        except Killed:
            finished = False
    assert finished == (last >= 9)
    assert value_of(tmp_path) == 2.0 if finished else value_of(tmp_path) in (1.0, 2.0)
    write(tmp_path, 3.0)
    assert value_of(tmp_path) == 3.0 and os.listdir(tmp_path) == ["best"]


def fails(path, *parts):
    with pytest.raises(UserError) as error:
        fnas_jax.load(path)
    message = str(error.value)
    assert all(part in message for part in parts), message
    assert "\n" not in message


def test_what_is_not_there_is_told(tmp_path):
    fails(tmp_path / "absent", "there is no folder", "absent")
    fails(tmp_path, "neither the workdir of a finished search nor its best/ folder")
    (tmp_path / "config.json").write_text("{}")
    fails(tmp_path, "is not finished")
    (tmp_path / "result.json").write_text("{}")
    fails(tmp_path, "has left no best/", "fnas_jax.retrain --workdir=")


@pytest.mark.parametrize("name", ["weights.safetensors", "architecture.json"])
def test_a_missing_file_is_told(tmp_path, name):
    (write(tmp_path, 1.0) / name).unlink()
    fails(tmp_path, "is not whole: it lacks", name)
    fails(tmp_path / "best", "is not whole: it lacks", name)


def test_damage_is_told(tmp_path):
    folder = write(tmp_path, 1.0)
    weights = folder / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-4])
    fails(tmp_path, "weights.safetensors", "is damaged")
    weights.write_bytes(b"nonsense")
    record = json.loads((folder / "architecture.json").read_text())
    record["weights"]["digest"] = best.digest(b"nonsense")
    (folder / "architecture.json").write_text(json.dumps(record))
    fails(tmp_path, "is no safetensors file")
    (folder / "architecture.json").write_text("{")
    fails(tmp_path, "architecture.json", "cannot be read")
    (folder / "architecture.json").write_text("[]")
    fails(tmp_path, "is damaged")


@pytest.mark.parametrize("number", [best.FORMAT + 1, "2"])
def test_a_network_of_a_later_version_is_refused(tmp_path, number):
    path = write(tmp_path, 1.0) / "architecture.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"format": best.FORMAT}))
    assert best.read(tmp_path)[0]["format"] == best.FORMAT
    path.write_text(json.dumps(record | {"format": number}))
    told = "by a later version of fnas_jax (format 2 there, 1 here): use that version"
    fails(tmp_path, "architecture.json", told if number == 2 else "its 'format' is '2'")
    if number == 2:  # whatever it may have made of the rest
        path.write_text(json.dumps({"format": number, "weights": ["weights.safetensors"]}))
        fails(tmp_path, "architecture.json", told)


def test_a_description_of_something_else_is_told(tmp_path):
    write(tmp_path, 1.0)
    fails(tmp_path, "architecture.json", "is damaged: it has no 'arch'")


def test_folders_that_were_not_written_here_stay_as_they_are(tmp_path):
    """Neither replaced nor removed, whatever is to be written."""
    mine = tmp_path / "best"
    mine.mkdir()
    (mine / "mine.txt").write_text("thesis")
    with pytest.raises(UserError, match=r"is in the way: it holds no architecture\.json"):
        best.replace(mine, {"a": b""})
    assert [p.name for p in tmp_path.iterdir()] == ["best"]
    assert (mine / "mine.txt").read_text() == "thesis"


def test_what_does_not_pass_its_check_leaves_nothing(tmp_path):
    def check(folder):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        best.replace(tmp_path / "jax", {"a": b""}, check)
    assert list(tmp_path.iterdir()) == []
