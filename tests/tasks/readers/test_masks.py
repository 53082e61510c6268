"""Masks beside images: arrays and folders, in the sizes that are asked for, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from fnas_jax.core.types import IGNORE, UserError
from fnas_jax.tasks import data
from fnas_jax.tasks.readers.examples import nearest

RNG = np.random.default_rng(0)


def drawn(count=12, height=6, width=8):
    """(uint8 images [n, H, W, 3], masks [n, H, W] of three classes and of ignored pixels)."""
    images = RNG.integers(0, 256, (count, height, width, 3)).astype(np.uint8)
    masks = (images[..., 0] % 3).astype(np.uint8)  # so that each stays with its image
    masks[images[..., 1] > 240] = IGNORE
    return images, masks


def of_images(images):
    return np.where(images[..., 1] > 240, IGNORE, images[..., 0] % 3)


def parts_of(found):
    for part in ("train", "val", "test"):
        yield getattr(found, f"{part}_images"), getattr(found, f"{part}_labels")


@pytest.mark.parametrize("keys", [("images", "masks"), ("images", "labels"), ("x", "y")])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_an_npz_of_images_and_masks(tmp_path, keys, dtype):
    images, masks = drawn()
    path = tmp_path / "set.npz"
    np.savez(path, **dict(zip(keys, (images, masks.astype(dtype)), strict=True)))
    found = data.load(str(path), objective="segmentation")
    assert found.class_names == ("0", "1", "2") and found.outputs == data.dense.Dense(3)
    assert sum(len(images) for images, _ in parts_of(found)) == 12
    for images, masks in parts_of(found):
        assert masks.dtype == np.uint8
        np.testing.assert_array_equal(masks, of_images(images))


def test_a_part_whose_images_are_all_damaged_is_named(tmp_path):
    images, masks = drawn()
    for part in ("train", "test"):
        write(tmp_path / part, images, masks)
    for file in (tmp_path / "test" / "images").iterdir():
        file.write_bytes(file.read_bytes()[:60])  # a header, and no pixels
    with pytest.raises(UserError, match=f"^{tmp_path}/test holds no images .left out: 12 x dam"):
        data.load(str(tmp_path), objective="segmentation")


def test_masks_come_before_labels_and_classes_may_have_names(tmp_path):
    images, masks = drawn()
    names = np.asarray(["sky", "sea", "land", "nowhere"])
    np.savez(
        tmp_path / "a.npz", images=images, labels=np.arange(12), masks=masks, class_names=names
    )
    found = data.load(str(tmp_path / "a.npz"), objective="segmentation")
    assert found.class_names == tuple(names) and found.train_labels.ndim == 3


def write(folder, images, masks, palette=False):
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
        Image.fromarray(image).save(folder / "images" / f"{i}.png")
        file = Image.fromarray(mask)
        if palette:
            file = file.convert("P")
            file.putdata(mask.ravel().tolist())
        file.save(folder / "masks" / f"{i}.png")


@pytest.mark.parametrize("palette", [False, True])
def test_a_folder_of_images_and_masks(tmp_path, palette):
    write(tmp_path / "set", *drawn(), palette)
    Image.fromarray(drawn()[0][0]).save(tmp_path / "set" / "images" / "lonely.png")
    (tmp_path / "set" / "classes.txt").write_text("sky\nsea\nland\n")
    found = data.load(str(tmp_path / "set"), objective="segmentation")
    assert found.class_names == ("sky", "sea", "land")
    for images, masks in parts_of(found):
        np.testing.assert_array_equal(masks, of_images(images))
    assert any("1 x image without mask" in note.text for note in found.notes)


def test_parts_of_a_folder_are_kept(tmp_path):
    for part, count in (("train", 8), ("test", 3)):
        write(tmp_path / "set" / part, *drawn(count))
    found = data.load(str(tmp_path / "set"), objective="segmentation")
    assert len(found.test_labels) == 3 and len(found.train_labels) + len(found.val_labels) == 8


def test_masks_are_resized_to_the_nearest_pixel(tmp_path):
    images, masks = drawn()
    np.savez(tmp_path / "a.npz", images=images, masks=masks)
    found = data.load(str(tmp_path / "a.npz"), image_size=12, objective="segmentation")
    assert found.train_images.shape[1:3] == found.train_labels.shape[1:] == (12, 12)
    twice = nearest(masks[0], 12, 16)
    np.testing.assert_array_equal(twice, np.kron(masks[0], np.ones((2, 2), np.uint8)))
    np.testing.assert_array_equal(nearest(twice, 6, 8), masks[0])


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (np.zeros(12, np.int32), r"shape \[12\].*the class of each pixel"),
        (np.zeros((12, 6, 8), np.float32), "float32.*the class of each pixel"),
        (np.full((12, 6, 8), 300), "reach from 300 to 300"),
        (np.full((12, 6, 8), -1), "reach from -1 to -1"),
        (np.ones((12, 5, 8), np.uint8), "has 5x8 pixels, and its image 6x8"),
        (np.zeros((12, 6, 8), np.uint8), "one class only"),
    ],
)
def test_what_is_no_mask_is_refused(tmp_path, masks, message):
    np.savez(tmp_path / "a.npz", images=drawn()[0], masks=masks)
    with pytest.raises(UserError, match=message):
        data.load(str(tmp_path / "a.npz"), objective="segmentation")


def test_folders_that_do_not_fit_are_refused(tmp_path):
    images, masks = drawn(3)
    write(tmp_path / "a", images, np.stack([masks] * 3, axis=-1))
    with pytest.raises(UserError, match="pixels of the kind RGB: one channel"):
        data.load(str(tmp_path / "a"), objective="segmentation")
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match=r"holds no image with a mask: images/NAME.jpg"):
        data.load(str(tmp_path / "b"), objective="segmentation")
    write(tmp_path / "c", images, masks)
    (tmp_path / "c" / "classes.txt").write_text("only\n")
    with pytest.raises(UserError, match="has 1 names, and the masks have classes up to 2"):
        data.load(str(tmp_path / "c"), objective="segmentation")


def test_masks_are_not_read_for_another_objective():
    with pytest.raises(UserError, match=r"task.objective=segmentation, and task.objective is 'cla"):
        data.load("canvas_masks")
