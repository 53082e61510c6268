import numpy as np
import pytest
from PIL import Image

from fnas_jax.core.types import UserError
from fnas_jax.tasks.data import load
from fnas_jax.tasks.readers.folder import read_folder

RANDOM = np.random.default_rng(0)


def write(path, shape=(6, 5, 3), mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RANDOM.integers(0, 256, shape, dtype=np.uint8)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)
    return pixels


def folder(root, classes=("cat", "dog"), n=5, shape=(6, 5, 3), suffix="png"):
    return {
        (name, i): write(root / name / f"{i}.{suffix}", shape) for name in classes for i in range(n)
    }


def test_one_folder_per_class_in_alphabetical_order(tmp_path):
    pixels = folder(tmp_path, ("dog", "cat"))
    source = read_folder(tmp_path, 0)
    assert source.class_names == ("cat", "dog")
    np.testing.assert_array_equal(source.train.labels, [0] * 5 + [1] * 5)
    assert source.train.images.dtype == np.uint8
    want = [pixels[name, i] for name in ("cat", "dog") for i in range(5)]
    np.testing.assert_array_equal(source.train.images, want)


def test_other_files_and_hidden_ones_are_passed_over(tmp_path):
    folder(tmp_path)
    (tmp_path / "README.txt").touch()
    (tmp_path / "cat" / "notes.txt").touch()
    (tmp_path / "cat" / "._0.png").touch()
    (tmp_path / "empty").mkdir()
    source = read_folder(tmp_path, 0)
    assert source.class_names == ("cat", "dog") and len(source.train.images) == 10


@pytest.mark.parametrize("held_out", ["val", "valid", "validation", "test"])
def test_train_and_held_out_folders(tmp_path, held_out):
    folder(tmp_path / "train")
    pixels = folder(tmp_path / held_out, n=1)
    source = read_folder(tmp_path, 0)
    part = source.test if held_out == "test" else source.val
    np.testing.assert_array_equal(part.images, list(pixels.values()))
    assert len(source.train.images) == 10
    np.testing.assert_array_equal(load(str(tmp_path)).test_images.sum(), part.images.sum())


def test_a_class_called_train_is_a_class(tmp_path):
    folder(tmp_path, ("bus", "train"))
    assert read_folder(tmp_path, 0).class_names == ("bus", "train")


def test_grey_stays_grey_and_becomes_rgb_beside_colour(tmp_path):
    pixels = folder(tmp_path, shape=(6, 5))
    images = read_folder(tmp_path, 0).train.images
    np.testing.assert_array_equal(images[..., 0], list(pixels.values()))
    assert images.shape == (10, 6, 5, 1)
    write(tmp_path / "cat" / "colour.png")
    images = read_folder(tmp_path, 0).train.images
    assert images.shape == (11, 6, 5, 3)
    np.testing.assert_array_equal(images[0], np.repeat(pixels["cat", 0][..., None], 3, axis=-1))


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK"])
def test_other_colour_modes_become_rgb(tmp_path, mode):
    folder(tmp_path)
    suffix = "jpg" if mode == "CMYK" else "png"
    write(tmp_path / "dog" / f"odd.{suffix}", mode=mode)
    assert read_folder(tmp_path, 0).train.images.shape == (11, 6, 5, 3)


def test_jpeg_is_read_and_turned_as_its_exif_says(tmp_path):
    folder(tmp_path, suffix="JPEG", shape=(16, 16, 3))
    step = np.zeros((16, 16, 3), np.uint8)
    step[:8] = 255  # top half white
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(step).save(tmp_path / "cat" / "z.jpg", exif=exif, quality=95)
    image = read_folder(tmp_path, 0).train.images[5]
    assert image[:7].mean() < 20 and image[9:].mean() > 235


def test_different_sizes_are_refused_or_resized(tmp_path):
    folder(tmp_path)
    write(tmp_path / "dog" / "large.png", (40, 30, 3))
    with pytest.raises(UserError, match=r"5x6, .*large\.png is 30x40.*set task.image_size"):
        read_folder(tmp_path, 0)
    assert read_folder(tmp_path, 8).train.images.shape == (11, 8, 8, 3)


def test_lying_and_standing_images_are_refused_or_resized(tmp_path):
    folder(tmp_path)
    write(tmp_path / "dog" / "turned.png", (5, 6, 3))
    with pytest.raises(UserError, match=r"turned\.png is 5x6x3.*set task.image_size"):
        read_folder(tmp_path, 0)


@pytest.mark.parametrize("content", [b"", b"no image", "half"])
def test_an_unreadable_image_is_named(tmp_path, content):
    folder(tmp_path)
    bad = tmp_path / "dog" / "3.png"
    if content == "half":
        write(bad, (200, 200, 3))
        content = bad.read_bytes()[:2000]
    bad.write_bytes(content)
    with pytest.raises(UserError, match=r"dog/3\.png cannot be read as an image: \w+"):
        read_folder(tmp_path, 8)


def test_sixteen_bit_images_are_refused(tmp_path):
    folder(tmp_path, shape=(6, 5))
    Image.fromarray(np.zeros((6, 5), np.uint16)).save(tmp_path / "dog" / "deep.png")
    with pytest.raises(UserError, match=r"deep\.png has more than 8 bits"):
        read_folder(tmp_path, 0)


def test_folders_without_classes_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds no sub-folder with images"):
        read_folder(tmp_path, 0)
    with pytest.raises(UserError, match="There is no folder"):
        read_folder(tmp_path / "gone", 0)
    folder(tmp_path / "train")
    folder(tmp_path / "test", ("cat", "cow"))
    with pytest.raises(UserError, match=r"test/cow is a class that the training .* cat, dog"):
        read_folder(tmp_path, 0)


def test_split_of_a_folder_does_not_depend_on_file_names(tmp_path):
    pixels = folder(tmp_path / "a", n=10)
    for (name, i), image in pixels.items():
        path = tmp_path / "b" / name / f"{9 - i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    one, two = load(str(tmp_path / "a")), load(str(tmp_path / "b"))
    np.testing.assert_array_equal(one.train_images, two.train_images)
    np.testing.assert_array_equal(one.test_images, two.test_images)
    assert one.class_names == ("cat", "dog")
