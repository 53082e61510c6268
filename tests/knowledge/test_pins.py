"""What a run has taken of other searches is read back as it was, or refused."""

import json
import zipfile

import numpy as np
import pytest

from fnas_jax.core.types import UserError
from fnas_jax.knowledge import pins
from fnas_jax.knowledge.pins import Pin
from tests.fuzz.test_images import npy_claiming

PIN = Pin(
    decisions=np.array([[0, 1], [2, 3], [1, 1]], np.int32),
    reward=np.array([0.1, 1 / 3, -0.5]),
    task=np.array([0, 1, 1]),
    names=["a", "b"],
    protocols=["01", "unknown, 5 steps"],
    counts={"used": 3, "other_spaces": {"c": 1}},
    statistics=[None, {"images": 5.0}],
    images=[np.arange(24, dtype=np.uint8).reshape(2, 1, 2, 2, 3), None],
)


def test_it_is_read_back_by_the_run_that_wrote_it(tmp_path):
    path = tmp_path / "taken.npz"
    assert pins.read(path, "1f") is None
    pins.write(path, "1f", PIN)
    assert [p.name for p in tmp_path.iterdir()] == ["taken.npz"]
    found = pins.read(path, "1f")
    for name in ("decisions", "reward", "task"):
        np.testing.assert_array_equal(getattr(found, name), getattr(PIN, name))
    assert found._replace(decisions=0, reward=0, task=0, images=0) == PIN._replace(
        decisions=0, reward=0, task=0, images=0
    )
    np.testing.assert_array_equal(found.images[0], PIN.images[0])
    assert found.images[1] is None and found.reward.dtype == np.float64
    assert pins.read(path, "2f") is None  # of a search that never began


def test_one_that_an_earlier_version_wrote_is_read(tmp_path):
    """Compressed, and whole numbers as they are in memory."""
    about = {name: getattr(PIN, name) for name in ("names", "protocols", "counts", "statistics")}
    text = json.dumps(about | {"run": "1f", "digest": pins.digest(PIN)}).encode()
    arrays = {"about": np.frombuffer(text, np.uint8), "images0": PIN.images[0]}
    arrays |= {name: getattr(PIN, name) for name in ("decisions", "reward", "task")}
    np.savez_compressed(tmp_path / "taken.npz", **arrays)
    found = pins.read(tmp_path / "taken.npz", "1f")
    assert pins.digest(found) == pins.digest(PIN)
    assert (found.decisions.dtype, found.task.dtype) == (np.int32, np.int64)


@pytest.mark.parametrize("largest", [255, 256, 2**31 - 1])
def test_decisions_are_written_as_small_as_they_are_and_none_is_cut(tmp_path, largest):
    path, decisions = tmp_path / "taken.npz", np.array([[0, largest]] * 1000, np.int32)
    pin = PIN._replace(decisions=decisions, reward=np.zeros(1000), task=np.zeros(1000, int))
    pins.write(path, "1f", pin)
    found = pins.read(path, "1f")
    np.testing.assert_array_equal(found.decisions, decisions)
    assert (found.decisions.dtype, found.task.dtype) == (np.int32, np.int64)
    kept = np.load(path)["decisions"].dtype.itemsize
    assert kept == {255: 1, 256: 2}.get(largest, 4)


def test_none_is_an_answer_too(tmp_path):
    nothing = Pin(np.zeros((0, 2), np.int32), np.zeros(0), np.zeros(0, int), [], [], {}, [], [])
    pins.write(tmp_path / "a", "1f", nothing)
    assert pins.read(tmp_path / "a", "1f").decisions.shape == (0, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"reward": PIN.reward + 1e-9},
        {"task": PIN.task[::-1]},
        {"names": ["a", "c"]},
        {"statistics": [None, None]},
        {"images": [PIN.images[0] + 1, None]},
    ],
)
def test_the_digest_is_of_all_but_the_counts(change):
    assert pins.digest(PIN._replace(**change)) != pins.digest(PIN)
    assert pins.digest(PIN._replace(counts={})) == pins.digest(PIN)


@pytest.mark.parametrize("kind", ["empty", "half", "text", "other numbers", "object", "claim"])
def test_damage_is_told(tmp_path, kind, monkeypatch):
    path = tmp_path / "taken.npz"
    if kind == "other numbers":
        monkeypatch.setattr(pins, "digest", lambda pin: "0" * 16)
    pins.write(path, "1f", PIN)
    monkeypatch.undo()
    content = path.read_bytes()
    if kind == "object":
        np.savez(path, about=np.array([{"run": "1f"}], object))
    elif kind == "claim":  # of an array of a terabyte
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("about.npy", npy_claiming((2**40,)))
    else:
        damaged = {"empty": b"", "half": content[: len(content) // 2], "text": b'{"run": 1}'}
        path.write_bytes(damaged.get(kind, content))
    with pytest.raises(UserError, match=r"taken\.npz'.* is damaged .* start a new workdir"):
        pins.read(path, "1f")


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "taken.npz"
    pins.write(path, "1f", PIN)
    before = path.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pins.disk.os, "fsync", full)
    with pytest.raises(pins.disk.Refused, match="is full"):
        pins.write(path, "1f", PIN._replace(names=["x", "y"]))
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
