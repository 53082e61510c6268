import os
import shutil

import numpy as np
import pytest
from PIL import Image

from fnas_jax.core import mapped
from fnas_jax.core.mapped import Mapped
from fnas_jax.tasks import data
from fnas_jax.tasks.readers import kept, named, parallel

RANDOM = np.random.default_rng(0)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder of images, which is large enough to be kept."""
    monkeypatch.setattr(kept, "WORTH", 10)
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(10):
            write(tmp_path / "set" / name / f"{i}.png")
    (tmp_path / "set" / "cat" / "notes.txt").write_text("no image")
    return tmp_path / "set"


def write(path):
    Image.fromarray(RANDOM.integers(0, 256, (6, 5, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def reads(monkeypatch):
    """How often the folder was read itself."""
    count = []
    read = named.read_folder
    monkeypatch.setattr(named, "read_folder", lambda *given: count.append(1) or read(*given))
    return count


def entries(folder):
    return sorted(folder.iterdir()) if folder.exists() else []


def same(one, other):
    for part in ("train", "val", "test"):
        for kind in ("images", "labels"):
            found = [np.asarray(getattr(d, f"{part}_{kind}")) for d in (one, other)]
            np.testing.assert_array_equal(*found)
            assert found[0].dtype == found[1].dtype
    for found in zip(one.names, other.names, strict=True):
        np.testing.assert_array_equal(*found)
    for name in ("class_names", "notes", "files", "num_classes"):
        assert getattr(one, name) == getattr(other, name)


@pytest.mark.parametrize("large", [False, True])
def test_the_second_time_all_comes_from_the_cache(root, tmp_path, monkeypatch, reads, large):
    if large:
        monkeypatch.setattr(mapped, "MAPPED_FROM", 100)
    cache = tmp_path / "cache"
    fresh, again, none = (data.load(str(root), cache=c) for c in (str(cache), str(cache), ""))
    assert len(reads) == 2 and len(entries(cache)) == 1
    assert isinstance(again.train_images, Mapped) == large
    same(fresh, again)
    same(none, again)
    assert any("notes.txt" in note.text for note in again.notes)  # it is still told


def test_other_ways_to_read_have_entries_of_their_own(root, tmp_path, reads):
    cache = tmp_path / "cache"
    for _ in range(2):
        for given in ({}, {"image_size": 4}, {"alpha": "black"}):
            data.load(str(root), cache=str(cache), **given)
    assert len(reads) == 3 and len(entries(cache)) == 3


@pytest.mark.parametrize("change", ["new", "gone", "touched", "moved", "copied"])
def test_a_folder_that_has_changed_is_read_again(root, tmp_path, reads, change):
    cache = tmp_path / "cache"
    file, bitmap = root / "cat" / "3.png", root / "cat" / "bitmap.bmp"
    write(bitmap)
    data.load(str(root), cache=str(cache))
    if change == "new":
        write(root / "cat" / "new.png")
    elif change == "gone":
        file.unlink()
    elif change == "touched":
        os.utime(file, ns=(1, 1))
    elif change == "copied":  # another image of as many bytes, with the time of the one before
        facts = os.stat(bitmap)
        write(bitmap)
        os.utime(bitmap, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        assert os.stat(bitmap).st_size == facts.st_size
    else:
        file.rename(root / "dog" / "moved.png")
    before = entries(cache)
    same(data.load(str(root), cache=str(cache)), data.load(str(root)))
    assert len(reads) == 3 and len(entries(cache)) == 1 and entries(cache) != before


@pytest.mark.parametrize("name", ["index.json", "train.images.npy", "train.labels.npy"])
@pytest.mark.parametrize("damage", ["flipped", "short", "gone"])
def test_a_damaged_entry_is_made_anew(root, tmp_path, reads, caplog, name, damage):
    cache = tmp_path / "cache"
    fresh = data.load(str(root), cache=str(cache))
    file = entries(cache)[0] / name
    content = bytearray(file.read_bytes())
    content[-20] ^= 4
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content if damage == "flipped" else content[:-20])
    same(data.load(str(root), cache=str(cache)), fresh)
    assert len(reads) == 2 and "is damaged" in caplog.text
    same(data.load(str(root), cache=str(cache)), fresh)
    assert len(reads) == 2


def test_an_entry_under_another_name_is_not_believed(root, tmp_path, reads):
    cache = tmp_path / "cache"
    data.load(str(root), cache=str(cache))
    old = entries(cache)[0]
    write(root / "cat" / "new.png")
    data.load(str(root), cache=str(cache))
    new = entries(cache)[0]
    (root / "cat" / "new.png").unlink()
    new.rename(old)  # of other files
    assert len(data.load(str(root), cache=str(cache)).train_labels) < 13
    assert len(reads) == 3


def test_a_cache_that_cannot_be_written_costs_time_only(root, tmp_path, caplog):
    (tmp_path / "file").touch()
    same(data.load(str(root), cache=str(tmp_path / "file")), data.load(str(root)))
    assert "decoded images cannot be kept" in caplog.text


def test_an_entry_that_a_killed_process_was_making_is_removed_after_a_day(root, tmp_path):
    cache = tmp_path / "cache"
    data.load(str(root), cache=str(cache))
    place = entries(cache)[0]
    shutil.rmtree(place)
    left = [place.with_name(f".{place.name}.{number}") for number in (1, 2)]
    for folder in left:
        folder.mkdir()
    os.utime(left[0], (0, 0))
    data.load(str(root), cache=str(cache))
    assert [folder.exists() for folder in left] == [False, True]


def test_what_lies_above_a_folder_is_no_part_of_what_it_is_known_by(root, tmp_path, reads):
    """By a link back up, every file of `tmp_path`, the entry itself among them, would be."""
    (root / "cat" / "up").symlink_to("../..")
    cache = tmp_path / "cache"
    for _ in range(2):
        data.load(str(root), cache=str(cache))
    assert len(reads) == 1


def test_small_folders_are_not_kept(root, tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "WORTH", 100)
    data.load(str(root), cache=str(tmp_path / "cache"))
    assert not entries(tmp_path / "cache")


def test_threads_keep_the_order_and_raise_what_is_raised():
    assert list(parallel.in_order(lambda i: i * i, range(200))) == [i * i for i in range(200)]
    found = parallel.in_order(lambda i: 1 / (3 - i), range(10))
    assert [next(found) for _ in range(3)] == [1 / 3, 1 / 2, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(found)
