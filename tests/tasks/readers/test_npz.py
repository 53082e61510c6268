import numpy as np
import pytest

from fnas_jax.core.types import UserError
from fnas_jax.tasks.readers.npz import read_npz

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3


def saved(tmp_path, **arrays):
    np.savez(tmp_path / "set.npz", **arrays)
    return tmp_path / "set.npz"


@pytest.mark.parametrize(
    ("images", "labels"),
    [("images", "labels"), ("x", "y"), ("X", "Y"), ("data", "target"), ("image", "label")],
)
def test_one_set_by_any_spelling(tmp_path, images, labels):
    source = read_npz(saved(tmp_path, **{images: IMAGES, labels: LABELS}), 0)
    np.testing.assert_array_equal(source.train.images, IMAGES)
    np.testing.assert_array_equal(source.train.labels, LABELS)
    assert source.val is None and source.test is None
    assert source.class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("x", "y"), [("x_{}", "y_{}"), ("X_{}", "Y_{}"), ("{}_images", "{}_labels")]
)
@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_divided_sets_by_any_spelling(tmp_path, x, y, val):
    arrays = {}
    for i, part in enumerate(("train", val, "test")):
        arrays |= {x.format(part): IMAGES[i:], y.format(part): LABELS[i:, None]}
    source = read_npz(saved(tmp_path, **arrays), 0)
    for i, part in enumerate(source[:3]):
        np.testing.assert_array_equal(part.images, IMAGES[i:])
        np.testing.assert_array_equal(part.labels, LABELS[i:])


def test_grey_images_get_a_channel_and_other_numbers_become_float32(tmp_path):
    path = saved(tmp_path, images=IMAGES[..., 0].astype(np.float64) / 255, labels=LABELS)
    images = read_npz(path, 0).train.images
    assert images.shape == (12, 6, 5, 1) and images.dtype == np.float32
    np.testing.assert_allclose(images[..., 0], IMAGES[..., 0] / 255, rtol=1e-6)
    images = read_npz(saved(tmp_path, images=IMAGES.astype(np.uint16), labels=LABELS), 0)[0].images
    assert images.dtype == np.float32


def test_labels_may_be_texts_and_numbers_may_be_given_names(tmp_path):
    texts = np.array(["b", "a", "c"])[LABELS]
    source = read_npz(saved(tmp_path, images=IMAGES, labels=texts), 0)
    assert source.class_names == ("a", "b", "c")
    assert [source.class_names[label] for label in source.train.labels] == texts.tolist()
    names = np.array(["ant", "bee", "cow"])
    source = read_npz(saved(tmp_path, images=IMAGES, labels=LABELS, class_names=names), 0)
    assert source.class_names == ("ant", "bee", "cow")


def test_images_are_resized(tmp_path):
    path = saved(tmp_path, images=IMAGES, labels=LABELS)
    assert read_npz(path, 4).train.images.shape == (12, 4, 4, 3)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": IMAGES}, "holds the keys .'pictures'.: 'images' and 'labels' are needed"),
        ({"images": IMAGES}, "holds the keys"),
        ({"images": IMAGES, "labels": LABELS[:5]}, "12 images but 5 labels"),
        ({"images": IMAGES[0, 0], "labels": LABELS[:5]}, "neither .n, H, W. nor"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "holds no images"),
        ({"images": np.zeros((12, 3, 32, 32)), "labels": LABELS}, "the channels come last"),
        ({"images": np.full((12, 4, 4), np.nan), "labels": LABELS}, "row 0 holds values that are"),
        ({"images": np.full((12, 4, 4), "a"), "labels": LABELS}, "dtype <U1 is no number"),
        ({"images": IMAGES, "labels": np.eye(12)}, "labels .* shape .12, 12."),
        ({"images": IMAGES, "labels": LABELS - 1}, "Label -1 .* is no class number"),
        (
            {"images": IMAGES, "labels": LABELS, "class_names": np.array(["a"])},
            "'class_names' of .* at least 3 texts",
        ),
    ],
)
def test_arrays_that_are_no_image_set_are_refused(tmp_path, arrays, message):
    with pytest.raises(UserError, match=message):
        read_npz(saved(tmp_path, **arrays), 0)


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"There is no file .*gone\.npz"):
        read_npz(tmp_path / "gone.npz", 0)
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(UserError, match=r"text\.npz cannot be read"):
        read_npz(tmp_path / "text.npz", 0)
    path = saved(tmp_path, images=IMAGES, labels=LABELS)
    path.write_bytes(path.read_bytes()[:800])
    with pytest.raises(UserError, match=r"set\.npz cannot be read"):
        read_npz(path, 0)
    (tmp_path / "empty.npz").touch()
    with pytest.raises(UserError, match=r"empty\.npz cannot be read"):
        read_npz(tmp_path / "empty.npz", 0)


def test_damaged_contents_are_named(tmp_path):
    path = saved(tmp_path, images=IMAGES, labels=LABELS)
    content = bytearray(path.read_bytes())
    content[400:420] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"set\.npz cannot be read"):
        read_npz(path, 0)


def test_pickles_and_single_arrays_are_refused(tmp_path):
    path = saved(tmp_path, images=np.array([{}], dtype=object), labels=LABELS)
    with pytest.raises(UserError, match=r"cannot be read as an \.npz file"):
        read_npz(path, 0)
    np.save(tmp_path / "a.npy", IMAGES)
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(UserError, match="is a single array"):
        read_npz(tmp_path / "a.npz", 0)
