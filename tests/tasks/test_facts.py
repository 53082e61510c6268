"""What a set is said to be before it is searched on, and what is doubtful about it."""

import json

import numpy as np
import pytest

from fnas_jax import loop, retrain
from fnas_jax.core import exits
from fnas_jax.core.types import UserError
from fnas_jax.tasks import data, facts
from tests.ship import winners

DRAW = np.random.default_rng(0)


def pixels(count, low=0, high=256):
    return DRAW.integers(low, high, (count, 4, 4), dtype=np.uint8)


def loaded(tmp_path, **arrays):
    np.savez(tmp_path / "set.npz", **arrays)
    return data.load(str(tmp_path / "set.npz"))


def divided(tmp_path, **others):
    """A set of 30 training and 30 test images of 3 classes, but for `others`."""
    labels = np.arange(30) % 3
    arrays = {"x_train": pixels(30), "y_train": labels, "x_test": pixels(30), "y_test": labels}
    return loaded(tmp_path, **arrays | others)


def warnings(dataset):
    return [note.text for note in dataset.notes if note.loud]


def test_a_sound_set_is_described_without_warnings(tmp_path):
    found = divided(tmp_path)
    what, parts = (note.text for note in found.notes)
    assert "60 images of 3 classes (0, 1, 2); 4x4 pixels, 1 channel, uint8 from 0 to 255" in what
    assert parts == "24 training images, 6 validation images, 30 test images"
    assert not any(note.loud for note in found.notes)


def test_the_sizes_of_originals_are_said(tmp_path):
    np.savez(tmp_path / "set.npz", images=pixels(12), labels=np.arange(12) % 2)
    found = data.load(str(tmp_path / "set.npz"), image_size=3)
    assert "3x3 pixels, resized from 4x4, 1 channel" in found.notes[0].text


def test_many_classes_are_cut_short(tmp_path):
    found = loaded(tmp_path, images=pixels(60), labels=np.arange(60) % 12)
    assert "12 classes (0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more)" in found.notes[0].text


def test_images_that_are_all_equal_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"All 30 images of .* are equal: nothing can be learnt"):
        loaded(tmp_path, images=np.full((30, 4, 4), 7, np.uint8), labels=np.arange(30) % 3)


def test_copies_are_counted(tmp_path):
    once = pixels(12)
    copied = np.concatenate([once, once[:1], once[:1], once[1:2]])
    found = loaded(tmp_path, images=copied, labels=np.arange(15) % 1 + (np.arange(15) >= 6))
    assert "15 images (12 different)" in found.notes[0].text
    assert "3 of 15 images are copies of others (of one image 2)" in warnings(found)[0]


def test_one_image_per_class_in_parts_of_its_own_is_told(tmp_path):
    labels = np.arange(30) % 3
    few = pixels(3)[labels]
    found = divided(tmp_path, x_train=few, x_val=few, y_val=labels, x_test=few)
    told = " ".join(warnings(found))
    assert "87 of 90 images are copies" in told
    assert "30 of the 30 test images are training images, too" in told
    assert "30 of the 30 validation images are training images, too" in told


def test_shared_images_are_counted_where_they_are_after_the_division(tmp_path):
    """12 of the training images become validation images, and the test images are both."""
    images, labels = pixels(60), np.arange(60) % 3
    found = divided(tmp_path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    told = " ".join(warnings(found))
    train, val = len(found.train_labels), len(found.val_labels)
    assert (train, val) == (48, 12)
    assert "48 of the 60 test images are training images, too" in told
    assert "12 of the 60 test images are validation images, too" in told


def test_a_class_that_cannot_be_divided_is_told_once_with_the_other_facts(tmp_path, caplog):
    images, labels = pixels(60), np.arange(60) % 3
    images[labels == 2] = images[2]
    told = warnings(loaded(tmp_path, images=images, labels=labels))
    (few,) = (text for text in told if "different image" in text)
    assert "Class '2' of" in few and "has 20 training examples, but only 1 different" in few
    assert "the test images have none of 1 of the 3 classes (2)" in told
    assert not caplog.messages  # before they are asked for


def test_images_of_several_classes_are_counted(tmp_path):
    once = pixels(20)
    both = np.concatenate([once, once[:2]])
    labels = np.concatenate([np.arange(20) % 2, [1, 0]])  # the other class than at first
    names = np.array(["ant", "bee"])
    told = warnings(loaded(tmp_path, images=both, labels=labels, class_names=names))
    assert any(
        "2 different images, of 4 examples, stand under several classes each (as ant and bee)" in t
        for t in told
    )


def test_parts_on_other_scales_are_told_with_both(tmp_path):
    train = pixels(30).astype(np.float32)
    train[0, 0, :2] = (0, 255)
    test = pixels(30).astype(np.float32) / 255
    test[0, 0, :2] = (0, 1)
    (text,) = warnings(divided(tmp_path, x_train=train, x_test=test))
    assert "training images reach from 0 to 255, those of the test images from 0 to 1:" in text


def test_classes_of_very_different_sizes_are_told(tmp_path):
    labels = np.repeat([0, 1], [190, 10])
    (text,) = warnings(loaded(tmp_path, images=pixels(200), labels=labels))
    assert "classes have 6 ('1') to 114 ('0') training examples" in text and "95.0%" in text


def test_classes_that_a_part_lacks_are_told(tmp_path):
    (text,) = warnings(divided(tmp_path, y_test=np.zeros(30, int)))
    assert text == "the test images have none of 2 of the 3 classes (1, 2)"


def test_commands_show_it_by_its_weight(tmp_path, capsys):
    labels = np.repeat([0, 1], [190, 10])
    dataset = loaded(tmp_path, images=pixels(200), labels=labels)
    assert exits.run_command(lambda: facts.tell(dataset.notes)) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["info", "info", "warning"]
    assert "200 images of 2 classes" in lines[0] and "classes have 6" in lines[2]


def test_a_search_and_a_retraining_begin_with_it(tmp_path, monkeypatch):
    """Once each: the first thing that they do with a task."""

    class Told(Exception):
        pass

    def tell(notes):
        raise Told(notes[0].text)

    monkeypatch.setattr(facts, "tell", tell)
    config = winners.config_of("mnas", winners.write_npz(tmp_path / "a.npz"))
    with pytest.raises(Told, match="90 images of 3 classes"):
        loop.run(config, tmp_path / "run")
    # It is told while the search is built, before the folder is the run's.
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(config.to_dict()))
    best = {"arch": [0] * 7, "description": {"text": "a"}, "accuracy": 0.5, "reward": 0.5}
    done = {"winner": None, "counts": {"trained": 1, "failed": 0}, "seconds": {"total": 1.0}}
    (tmp_path / "run" / "result.json").write_text(json.dumps(done | {"best": best}))
    with pytest.raises(Told, match="90 images of 3 classes"):
        retrain.retrain(tmp_path / "run")
