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


def texts(source, loud=True):
    return [note.text for note in source.notes if note.loud is loud]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "1 x .png"),
        (b"<html>404</html>", "1 x .png"),
        ("half", "1 x damaged .png"),
    ],
)
def test_damaged_images_are_left_out_and_told(tmp_path, content, why):
    folder(tmp_path)
    bad = tmp_path / "dog" / "3.png"
    if content == "half":
        write(bad, (200, 200, 3))
        content = bad.read_bytes()[:2000]
    bad.write_bytes(content)
    source = read_folder(tmp_path, 8)
    assert len(source.train.images) == 9
    (text,) = texts(source)
    assert text.startswith(f"left out: {why} ({bad}: ")


def test_other_files_are_told_by_kind_with_an_example(tmp_path):
    folder(tmp_path)
    for place in ("cat/b.txt", "cat/a.txt", "dog/c.heic", "dog/d", "dog/e.eps"):
        (tmp_path / place).write_text("%!PS-Adobe-3.0 EPSF-3.0")
    write(tmp_path / "loose.png")
    (tmp_path / "none").mkdir()
    source = read_folder(tmp_path, 0)
    assert len(source.train.images) == 10
    (text,) = texts(source)
    for part in (
        f"2 x .txt ({tmp_path}/cat/a.txt)",
        f"1 x .eps ({tmp_path}/dog/e.eps)",
        f"1 x .heic ({tmp_path}/dog/c.heic)",
        f"1 x file without suffix ({tmp_path}/dog/d)",
        f"1 x image in no class folder ({tmp_path}/loose.png)",
        f"1 x folder without images ({tmp_path}/none)",
    ):
        assert part in text


def test_hidden_folders_are_no_classes(tmp_path):
    folder(tmp_path)
    for place in (".ipynb_checkpoints/0-checkpoint.png", "__MACOSX/a.png", "cat/.thumbs/1.png"):
        write(tmp_path / place)
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "cat" / "Thumbs.db").touch()
    source = read_folder(tmp_path, 0)
    assert source.class_names == ("cat", "dog") and len(source.train.images) == 10
    assert texts(source) == [] and "5 x hidden" in texts(source, loud=False)[0]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM"])
def test_images_are_known_by_their_content_at_any_depth(tmp_path, kind):
    want = []
    for name in ("cat", "dog"):
        for i in range(4):
            path = tmp_path / name / "deep" / f"{i}" / ("a" if i % 2 else "a.dat")
            path.parent.mkdir(parents=True)
            pixels = RANDOM.integers(0, 256, (6, 5), dtype=np.uint8)  # grey: GIF keeps it exactly
            options = {"lossless": True} if kind == "WEBP" else {}
            Image.fromarray(pixels).save(path, kind, **options)
            want.append(pixels)
    source = read_folder(tmp_path, 0)
    assert source.class_names == ("cat", "dog") and not texts(source)
    for got, pixels in zip(source.train.images, want, strict=True):
        np.testing.assert_array_equal(got, np.broadcast_to(pixels[..., None], got.shape))


def test_links_that_go_round_are_followed_once(tmp_path):
    folder(tmp_path / "set")
    (tmp_path / "set" / "cat" / "loop").symlink_to(tmp_path / "set" / "cat")
    folder(tmp_path / "other", ("cow",))
    (tmp_path / "set" / "cow").symlink_to(tmp_path / "other" / "cow")
    (tmp_path / "set" / "dog" / "gone.png").symlink_to(tmp_path / "nothing")
    source = read_folder(tmp_path / "set", 0)
    assert source.class_names == ("cat", "cow", "dog") and len(source.train.images) == 15
    assert "1 x what is no file" in texts(source)[0]


@pytest.mark.parametrize(("alpha", "want"), [("white", 255), ("black", 0)])
def test_transparency_is_composited_and_told(tmp_path, alpha, want):
    pixels = folder(tmp_path)
    clear = np.zeros((6, 5, 4), np.uint8)
    clear[:3] = (10, 20, 30, 255)
    clear[3, :] = (100, 100, 100, 51)  # a fifth of 100 on four fifths of the ground
    Image.fromarray(clear).save(tmp_path / "dog" / "5.png")
    source = read_folder(tmp_path, 0, alpha)
    image = source.train.images[-1]
    np.testing.assert_array_equal(image[:3], np.broadcast_to((10, 20, 30), (3, 5, 3)))
    assert (image[4:] == want).all() and np.abs(image[3] - (0.8 * want + 20)).max() <= 1
    np.testing.assert_array_equal(source.train.images[0], pixels["cat", 0])
    assert f"1 of 11 images are with transparency, composited on {alpha}" in source.notes[0].text


def test_icons_and_other_rasters_are_read(tmp_path):
    folder(tmp_path, shape=(16, 16, 3))
    for suffix in ("ico", "pcx", "qoi"):
        pixels = RANDOM.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        image = tmp_path / "cat" / f"9.{suffix}"
        if suffix == "qoi":  # https://qoiformat.org: 16x16, RGB, each pixel by its three numbers
            head = b"qoif" + (16).to_bytes(4) + (16).to_bytes(4) + bytes([3, 0])
            rows = b"".join(b"\xfe" + bytes(pixel) for pixel in pixels.reshape(-1, 3))
            image.write_bytes(head + rows + bytes(7) + b"\x01")
        else:
            Image.fromarray(pixels).save(image, sizes=[(16, 16)])  # of which PCX knows nothing
        source = read_folder(tmp_path, 0)
        np.testing.assert_array_equal(source.train.images[5], pixels)
        assert len(source.train.images) == 11 and not texts(source)
        image.unlink()


def test_of_an_icon_of_several_sizes_the_largest_is_read_and_that_is_told(tmp_path):
    folder(tmp_path, shape=(32, 32, 3))
    pixels = RANDOM.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cat" / "9.ico", sizes=[(16, 16), (32, 32)])
    source = read_folder(tmp_path, 0)
    np.testing.assert_array_equal(source.train.images[5], pixels)
    assert any("of several frames, pages or sizes" in text for text in texts(source, loud=False))


@pytest.mark.parametrize("up", ["..", ".", "../.."])
@pytest.mark.parametrize("where", ["cat", "cat/more"])
def test_links_to_folders_above_are_not_followed_and_counted(tmp_path, where, up):
    """Every image would be a cat."""
    root = tmp_path / "outer" / "set"
    folder(root)
    folder(tmp_path / "outer", ("beside",))
    (root / where).mkdir(exist_ok=True)
    (root / where / "up").symlink_to(up)
    source = read_folder(root, 0)
    assert np.bincount(source.train.labels).tolist() == [5, 5]
    assert texts(source) == [f"left out: 1 x link to a folder above it ({root / where / 'up'})"]


def test_links_to_other_folders_are_followed_but_not_back_up_from_there(tmp_path):
    root, other = tmp_path / "set", tmp_path / "other"
    folder(root)
    pixels = folder(other, ("birds",))
    (root / "bird").symlink_to(other / "birds")
    (root / "all").symlink_to(".")
    (other / "birds" / "back").symlink_to(root)
    source = read_folder(root, 0)
    assert source.class_names == ("bird", "cat", "dog")
    np.testing.assert_array_equal(source.train.images[:5], list(pixels.values()))
    assert np.bincount(source.train.labels).tolist() == [5, 5, 5]
    (text,) = texts(source)
    assert "2 x link to a folder above it" in text


def test_transparency_may_be_a_channel(tmp_path):
    pixels = folder(tmp_path, shape=(6, 5, 2))
    images = read_folder(tmp_path, 0, "keep").train.images
    np.testing.assert_array_equal(images, list(pixels.values()))
    write(tmp_path / "cat" / "0.png", (6, 5, 3))
    images = read_folder(tmp_path, 0, "keep").train.images
    assert images.shape == (10, 6, 5, 4) and (images[0, ..., 3] == 255).all()
    np.testing.assert_array_equal(images[1, ..., 3], pixels["cat", 1][..., 1])


def test_several_frames_are_told_and_the_first_is_read(tmp_path):
    folder(tmp_path, shape=(6, 5))
    frames = [Image.fromarray(RANDOM.integers(0, 256, (6, 5), dtype=np.uint8)) for _ in range(3)]
    frames[0].save(tmp_path / "cat" / "0.tiff", save_all=True, append_images=frames[1:])
    source = read_folder(tmp_path, 0)
    np.testing.assert_array_equal(source.train.images[1, ..., 0], np.asarray(frames[0]))
    assert "1 of 11 images are of several frames" in source.notes[0].text


def test_sixteen_bits_in_grey_are_kept_and_beside_colours_rounded(tmp_path):
    pixels = folder(tmp_path, shape=(6, 5))
    deep = RANDOM.integers(0, 65536, (6, 5)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "dog" / "deep.png")
    source = read_folder(tmp_path, 0)
    assert source.bits == 16 and source.train.images.dtype == np.float32
    np.testing.assert_array_equal(source.train.images[-1, ..., 0], deep)
    np.testing.assert_array_equal(source.train.images[0, ..., 0], 257.0 * pixels["cat", 0])
    write(tmp_path / "cat" / "colour.png")
    source = read_folder(tmp_path, 0)
    assert source.bits == 8 and source.train.images.dtype == np.uint8
    want = np.round(deep / 257)[..., None]
    np.testing.assert_array_equal(source.train.images[-1], np.broadcast_to(want, (6, 5, 3)))
    assert "1 of 12 images are of 16 bits in grey, read at 8" in texts(source)[0]


def test_pixels_of_no_known_scale_are_left_out_and_told(tmp_path):
    folder(tmp_path, shape=(6, 5))
    Image.fromarray(np.zeros((6, 5), np.float32)).save(tmp_path / "dog" / "a.tiff")
    Image.fromarray(np.full((6, 5), 70000, np.int32)).save(tmp_path / "dog" / "b.tiff")
    source = read_folder(tmp_path, 0)
    assert len(source.train.images) == 10
    assert "fractions, of which no scale is known" in texts(source)[0]
    assert "from 70000 to 70000, beyond 16 bits" in texts(source)[0]


def test_parts_are_known_by_other_names_and_what_is_beside_them_is_told(tmp_path):
    for part in ("Training", "Testing", "valid", "validation", "spare"):
        folder(tmp_path / part, n=2)
    source = read_folder(tmp_path, 0)
    assert [len(part.images) for part in source[:3]] == [4, 4, 4]
    (text,) = texts(source)
    assert text == f"left out: 2 x folder beside train ({tmp_path}/spare)"


def test_a_folder_that_is_almost_right_says_what_is_needed(tmp_path):
    for i in range(3):
        write(tmp_path / "flat" / f"{i}.png")
    with pytest.raises(UserError, match=r"flat holds 3 images, but no sub-folder: .*FOLDER/CLASS"):
        read_folder(tmp_path / "flat", 0)
    folder(tmp_path / "outer" / "set")
    with pytest.raises(
        UserError, match=r"one class only .set.: .* \S*outer/set is then the folder"
    ):
        read_folder(tmp_path / "outer", 0)
    folder(tmp_path / "held" / "test")
    folder(tmp_path / "held" / "val")
    with pytest.raises(UserError, match="holds test and val and no train"):
        read_folder(tmp_path / "held", 0)


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
