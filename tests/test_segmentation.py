"""A search for masks end to end: the winner is kept, predicts masks, is judged and exported."""

import csv
import io
import os

import jax
import numpy as np
import pytest
from PIL import Image

import fnas_jax
from fnas_jax import export, predict, registry
from fnas_jax.core import mapped
from fnas_jax.core.types import UserError
from fnas_jax.ship import figures, mask_files, winner
from fnas_jax.ship import model as model_lib
from tests.tasks.test_segmentation import SIDE, SPACE, config_of


def boxes(count, seed):
    """Bright boxes of two kinds on dark images: their pixels are classes 1 and 2."""
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 40, (count, SIDE, SIDE, 1)).astype(np.uint8)
    masks = np.zeros((count, SIDE, SIDE), np.uint8)
    for image, mask in zip(images, masks, strict=True):
        kind, (top, left) = draw.integers(1, 3), draw.integers(0, SIDE - 5, 2)
        box = np.s_[top : top + 5, left : left + 5]
        image[box], mask[box] = 100 * kind, kind
    return images, masks


@pytest.mark.slow
def test_a_search_for_masks_from_arrays_to_exports(tmp_path, capsys):
    settings = {f"space.{name}": value for name, value in SPACE.items()} | {
        "task.objective": "segmentation",
        "children.steps": 20,
        "children.batch_size": 16,
        "akp.rounds": 1,
        "search.batch": 2,
        "winner.steps": 60,
        "winner.reference": False,
        "winner.cutmix": 0.5,
    }
    images, masks = boxes(90, 0)
    names = ["nothing", "dim", "bright"]
    found = fnas_jax.search(
        images,
        masks,
        workdir=tmp_path / "run",
        budget=4,
        method="fnas",
        class_names=names,
        **settings,
    )
    model = fnas_jax.load(tmp_path / "run")
    new, truth = boxes(7, 1)
    answers, probabilities = model.predict(new)
    assert answers.shape == (7, SIDE, SIDE) and answers.dtype == np.int32
    assert probabilities.shape == (7, SIDE, SIDE, 3)
    assert model.evaluate(new, truth) > 0.6 and model.class_names == tuple(names)
    assert set(model.figures(new, truth)) == {"mean_iou", "pixel_accuracy", "loss"}
    assert found.best["accuracy"] > 0.3
    assert export.export(tmp_path / "run", tmp_path / "out", ["flax", "jax"], new, truth)
    assert "differs" not in capsys.readouterr().out


def test_labels_of_another_kind_are_refused():
    images, _ = boxes(30, 0)
    with pytest.raises(UserError, match="needs the class of each pixel"):
        fnas_jax.search(images, np.zeros(30, int), budget=4, **{"task.objective": "segmentation"})


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The workdir of a network for masks, hardly trained."""
    root = tmp_path_factory.mktemp("kept")
    images, masks = boxes(60, 0)
    np.savez(root / "boxes.npz", images=images, masks=masks)
    config = config_of(root / "boxes.npz", winner__steps=20, akp__enabled=False)
    task = registry.build_task(config)
    arch = np.asarray(task.space.sample(jax.random.key(2), 1))[0]
    judged = task.final(jax.numpy.asarray(arch), jax.random.key(0))
    told = winner.keep(root, winner.Winner(config, task, judged, 0.5, "main"), pytest.fail)
    return root, told


def test_what_fills_the_memory_is_counted_batch_by_batch(kept, monkeypatch):
    """With the figures of all images at once, without an interval, which few images have."""
    root, told = kept
    model = fnas_jax.load(root)
    images, masks = boxes(11, 3)
    masks[2, :4] = 255
    at_once = model_lib.judged(model, images, masks, 256)
    sizes = []

    def outputs(model, images, most):
        sizes.append(len(images))
        return whole(model, images, most)

    whole = model_lib.raw_outputs
    monkeypatch.setattr(model_lib, "raw_outputs", outputs)
    monkeypatch.setattr(figures, "LARGEST", 4 * SIDE * SIDE * 3)
    in_parts = model_lib.judged(model, images, masks, 256)
    assert sizes == [4, 4, 3] and in_parts.images == 11
    assert in_parts.metrics == pytest.approx(at_once.metrics, rel=1e-5)
    for name, column in at_once.table.items():
        np.testing.assert_allclose(in_parts.table[name], column, rtol=1e-6)
    assert at_once.interval is not None and in_parts.interval is None
    assert told["interval"] is not None


def test_the_card_has_the_hub_s_word_for_masks(kept):
    assert "pipeline_tag: image-segmentation" in (kept[0] / "best" / "README.md").read_text()


def test_masks_of_a_user_are_resized_and_their_classes_checked(kept):
    model = fnas_jax.load(kept[0])
    images, masks = boxes(5, 3)
    twice = masks.repeat(2, 1).repeat(2, 2)
    assert model.figures(images, twice) == model.figures(images, masks)
    masks[0, 0, 0] = 3
    with pytest.raises(UserError, match="classes up to 3; class numbers are 0 to 2, and 255"):
        model.figures(images, masks)


def test_an_export_is_judged_by_images_that_fit_and_pixels_that_count(kept, monkeypatch):
    model = fnas_jax.load(kept[0])
    images, masks = boxes(5, 3)
    assert export.judging(model, images) == 5
    monkeypatch.setattr(mapped, "MAPPED_FROM", 4 * 3 * SIDE * SIDE * 2)
    assert export.judging(model, images) == 2
    answers = np.zeros_like(masks, np.int32)
    masks[:] = 255
    masks[:, 0, :2] = 0, 1
    scores = np.eye(3, dtype=np.float32)[answers]
    test = export.Test(images, model.objective, masks, answers, scores)
    # Of class 0 one pixel and two answers, of class 1 one pixel without an answer: 1/2 and 0.
    assert export.said(test, scores) == "test mean_iou 25.00%"


def test_predicted_masks_are_files_beside_a_line_of_shares(kept, tmp_path, capsys, monkeypatch):
    root, _ = kept
    monkeypatch.setattr(figures, "LARGEST", 2 * SIDE * SIDE * 3)  # images come two at a time
    images, _ = boxes(3, 4)
    photos = tmp_path / "photos"
    (photos / "deep").mkdir(parents=True)
    for name, pixels in zip(("a.png", "b.png", "deep/a.bmp"), images, strict=True):
        Image.fromarray(pixels[..., 0]).save(photos / name)
    larger = Image.fromarray(images[1][..., 0]).resize((30, 17), Image.Resampling.NEAREST)
    larger.save(photos / "b.png")
    out = tmp_path / "out"
    given = [f"--workdir={root}", f"--images={photos}", f"--out={out}"]
    assert predict.command(given) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["mask"] for row in rows] == [str(out / x) for x in ("a.png", "b.png", "deep/a.png")]
    model = fnas_jax.load(root)
    answers, _ = model.predict(images)
    for row, size, answer in zip(rows, (None, (17, 30), None), answers, strict=True):
        with Image.open(row["mask"]) as image:
            mask = np.asarray(image)
            assert image.mode == "P" and image.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
        assert mask.shape == (size or (SIDE, SIDE))
        if size is None:
            np.testing.assert_array_equal(mask, answer)
        shares = [float(row[name]) for name in model.class_names]
        assert shares == pytest.approx([(mask == c).mean() for c in range(3)], abs=1e-6)
    assert predict.command(given) == 2  # the masks of before stay
    assert "is not empty; masks go to a new folder" in capsys.readouterr().err
    assert predict.command([*given[:2], f"--out={photos / 'masks'}"]) == 2
    assert "inside the images" in capsys.readouterr().err
    assert not (photos / "masks").exists()


def test_masks_of_images_that_differ_in_the_suffix_do_not_meet(tmp_path):
    names = ["a.png", "a.jpg", "b/c.tif"]
    found = mask_files.places([tmp_path / name for name in names], tmp_path)
    assert [str(path) for path in found] == ["a.png.png", "a.jpg.png", "b/c.tif.png"]


def test_colours_are_those_of_pascal_voc():
    """The first of them as its annotations have them: black, dark red, dark green, .."""
    first = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128)]
    later = {15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    colours = mask_files.colours()
    assert [tuple(map(int, c)) for c in colours[:6]] == first
    assert {i: tuple(map(int, colours[i])) for i in later} == later
    assert len(np.unique(colours, axis=0)) == 256


def test_a_mask_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: os.write(-1, b""))  # fails
    with pytest.raises(UserError, match=r"mask\.png' cannot be written: Bad file"):
        mask_files.write(np.zeros((4, 4), np.uint8), tmp_path / "a" / "mask.png")
    assert list((tmp_path / "a").iterdir()) == []
