import numpy as np
import pytest

from fnas_jax.core import mapped
from fnas_jax.core.types import UserError
from fnas_jax.tasks.readers import stored
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
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, r"'images' of .*set\.npz holds no images"),
        (
            {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:0], "y_test": LABELS[:0]},
            r"'x_test' of .*set\.npz holds no images",
        ),
        ({"images": np.full((12, 4, 4), 1e300), "labels": LABELS}, r"too large for float32 \(1e"),
        ({"images": np.zeros((12, 3, 32, 32)), "labels": LABELS}, "the channels come last"),
        ({"images": np.full((12, 4, 4), np.nan), "labels": LABELS}, "row 0 holds values that are"),
        ({"images": np.full((12, 4, 4), "a"), "labels": LABELS}, "dtype <U1 is no number"),
        ({"images": IMAGES, "labels": np.eye(12)}, "labels .* shape .12, 12."),
        ({"images": np.zeros((12, 4, 9)), "labels": LABELS / 2}, r"are fractions \(e.g. 0.5\)"),
        (
            {"images": np.zeros((12, 784)), "labels": LABELS},
            r"; images.reshape\(-1, 28, 28\) makes",
        ),
        (
            {"images": IMAGES, "labels": LABELS - 1, "class_names": np.array(["a", "b"])},
            "'class_names' of .* at least 3 texts.* it has 2, and the labels are '-1', '0', '1'",
        ),
        (
            {"images": IMAGES, "labels": LABELS, "class_names": np.array([["a"]])},
            r"'class_names' of .* must be texts, .* shape \[1, 1\]",
        ),
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


def told(source):
    return [note.text for note in source.notes]


@pytest.mark.parametrize(
    "shape",
    [
        (3, 32, 32),
        (1, 28, 28),
        (3, 8, 8),
        (4, 5, 6),
        (1, 60, 60),
        (3, 60, 60),
        (3, 4, 4),
        (1, 4, 4),
        (4, 5, 5),
    ],
)
def test_channels_first_are_told_with_how_to_move_them(tmp_path, shape):
    images = np.zeros((12, *shape), np.uint8)
    with pytest.raises(UserError, match=r"channels come last: np.moveaxis\(images, 1, -1\)"):
        read_npz(saved(tmp_path, images=images, labels=LABELS), 0)
    moved = read_npz(saved(tmp_path, images=np.moveaxis(images, 1, -1), labels=LABELS), 0)
    assert moved.train.images.shape == (12, *shape[1:], shape[0])


@pytest.mark.parametrize("shape", [(32, 32, 8), (5, 6, 16), (4, 4, 8), (3, 9, 3), (2, 7, 9)])
def test_many_channels_are_read(tmp_path, shape):
    images = np.zeros((12, *shape), np.uint8)
    source = read_npz(saved(tmp_path, images=images, labels=LABELS), 0)
    assert source.train.images.shape == images.shape and not source.notes


def test_what_is_not_read_is_told(tmp_path):
    whole, part = {"images": IMAGES, "labels": LABELS}, {"x_train": IMAGES, "y_train": LABELS}
    (text,) = told(read_npz(saved(tmp_path, **whole, **part), 0))
    assert text == (
        f"of {tmp_path}/set.npz, 'images' (12), 'labels' are not read, because there are 'x_train'"
        " (12), 'y_train'"
    )
    (text,) = told(read_npz(saved(tmp_path, **part, x_test=IMAGES, note=LABELS), 0))
    assert text.endswith(
        "set.npz, 'x_test' (12) is not read, because there are no labels to it, as 'y_test';"
        " 'note' is not read, because no images or labels are called so"
    )
    (text,) = told(read_npz(saved(tmp_path, **part, y_val=LABELS), 0))
    assert text.endswith("'y_val' is not read, because there are no images to it, as 'x_val'")
    assert not told(read_npz(saved(tmp_path, **whole, class_names=np.array(list("abc"))), 0))


def test_numbers_too_large_are_told_of_images_that_stay_in_their_file_too(tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "MAPPED_FROM", 1)
    images = IMAGES.astype(np.float64)
    for value, message in ((-1e39, r"too large for float32 \(-1e\+39\)"), (np.nan, "not finite")):
        images[7, 2, 3] = value
        with pytest.raises(UserError, match=rf"'images' of .*: row 7 holds values .*{message}"):
            read_npz(saved(tmp_path, images=images, labels=LABELS), 0)


def test_class_numbers_of_their_own_are_told(tmp_path):
    source = read_npz(saved(tmp_path, images=IMAGES, labels=LABELS - 1), 0)
    assert source.class_names == ("-1", "0", "1")
    assert told(source) == [
        "labels are '-1', '0', '1': 3 classes, which are named so; where -1 marks images without"
        " label, leave these out"
    ]


def test_names_are_of_the_numbers_or_in_their_order(tmp_path):
    names = np.array(["ant", "bee", "cow"])
    source = read_npz(saved(tmp_path, images=IMAGES, labels=LABELS + 1, class_names=names), 0)
    assert source.class_names == ("ant", "bee", "cow")
    np.testing.assert_array_equal(source.train.labels, LABELS)
    assert told(source) == ["labels begin with 1: 1 is 'ant', 2 is 'bee', 3 is 'cow'"]
    source = read_npz(saved(tmp_path, images=IMAGES, labels=LABELS // 2, class_names=names), 0)
    assert source.class_names == ("ant", "bee")
    assert told(source) == ["of the 3 'class_names', no image is 'cow': left out"]
    source = read_npz(saved(tmp_path, images=IMAGES, labels=LABELS // 2 * 2, class_names=names), 0)
    assert source.class_names == ("ant", "cow")
    np.testing.assert_array_equal(source.train.labels, LABELS // 2)
    given = np.array([b"zoo", b"bee", b"ant"])
    texts = np.array([b"bee", b"ant"])[LABELS % 2]
    source = read_npz(saved(tmp_path, images=IMAGES, labels=texts, class_names=given), 0)
    assert source.class_names == ("bee", "ant")
    assert [source.class_names[i].encode() for i in source.train.labels] == texts.tolist()


def test_parts_of_several_types_become_one_and_it_is_told(tmp_path):
    arrays = {"x_train": IMAGES, "y_train": LABELS, "y_test": LABELS}
    source = read_npz(saved(tmp_path, **arrays, x_test=IMAGES.astype(np.float64)), 0)
    assert source.train.images.dtype == source.test.images.dtype == np.float32
    assert source.train.ids == source.test.ids  # so that shared images are known
    assert "'train' uint8, 'test' float32" in told(source)[0]


@pytest.mark.parametrize("kind", ["text", "bytes", "number", "text of numpy"])
def test_objects_that_are_texts_or_numbers_are_read(tmp_path, kind):
    texts = np.array(["b", "猫", "c"])[LABELS]
    entries = {
        "text": texts.tolist(),
        "bytes": [text.encode() for text in texts],
        "number": LABELS.tolist(),
        "text of numpy": texts,
    }[kind]
    labels = np.array(entries, dtype=object)
    if kind == "number":
        texts = LABELS.astype(str)
    for given in (labels, labels[:, None]):
        source = read_npz(saved(tmp_path, images=IMAGES, labels=given), 0)
        assert [source.class_names[i] for i in source.train.labels] == texts.tolist()


class Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_no_object_of_a_file_runs_anything(tmp_path):
    """Nor what numpy itself would call, by other names or with other arguments."""
    marker = tmp_path / "ran"
    labels = np.array(["a"] * 11 + [Runs(marker)], dtype=object)
    with pytest.raises(UserError, match=r"of 'labels', it holds objects of (_?io|builtins)\.open"):
        read_npz(saved(tmp_path, images=IMAGES, labels=labels), 0)
    assert not marker.exists()
    with pytest.raises(UserError, match=r"it holds objects \(NoneType, str\)"):
        read_npz(saved(tmp_path, images=IMAGES, labels=np.array([None, *"a" * 11], object)), 0)
    ragged = np.empty(12, object)
    ragged[:] = [np.zeros((2, 2 + i % 2)) for i in range(12)]
    with pytest.raises(UserError, match="of 'images', it holds objects"):
        read_npz(saved(tmp_path, images=ragged, labels=LABELS), 0)


def test_objects_are_read_in_other_files_of_arrays_too(tmp_path, monkeypatch):
    labels = np.array(["a", "b", "c"], object)[LABELS]
    path = saved(tmp_path, images=IMAGES, labels=labels)
    monkeypatch.setattr(mapped, "MAPPED_FROM", 1)  # as if it were large
    assert read_npz(path, 0).class_names == ("a", "b", "c")
    np.save(tmp_path / "y.npy", labels)
    np.testing.assert_array_equal(stored.read_array(tmp_path / "y.npy"), labels.astype(str))
