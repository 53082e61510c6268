import numpy as np
import pytest

from fnas_jax.core.types import UserError
from fnas_jax.tasks import data

FIELDS = ("train", "val", "test")


def rows(dataset, part):
    """The examples of one part as a multiset of (pixels, label)."""
    images = getattr(dataset, f"{part}_images")
    labels = getattr(dataset, f"{part}_labels")
    return sorted(
        (image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
    )


def save(path, counts=(20, 30, 50), seed=0, order=None, **extra):
    """An .npz of distinct random 6x5x3 images, `counts[c]` of class c."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    images = random.integers(0, 256, (len(labels), 6, 5, 3), dtype=np.uint8)
    order = np.arange(len(labels)) if order is None else order(len(labels))
    np.savez(path, images=images[order], labels=labels[order], **extra)
    return str(path)


def test_digits_are_all_there_and_divided_60_20_20():
    digits = data.load("digits")
    assert digits.image_shape == (8, 8, 1)
    assert digits.train_images.dtype == np.float32
    assert digits.num_classes == 10 and digits.class_names == tuple("0123456789")
    sizes = [len(getattr(digits, f"{p}_labels")) for p in FIELDS]
    assert sum(sizes) == 1797
    np.testing.assert_allclose(np.array(sizes) / 1797, [0.6, 0.2, 0.2], atol=0.005)
    everything = np.concatenate([getattr(digits, f"{p}_images") for p in FIELDS])
    assert everything.min() == 0 and everything.max() == 16


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    digits, source = data.load("digits"), load_digits()
    ours = sorted(row for p in FIELDS for row in rows(digits, p))
    images = source.images.astype(np.float32)
    assert ours == sorted((x.tobytes(), int(y)) for x, y in zip(images, source.target, strict=True))


def test_mean_and_std_are_those_of_the_training_images_only(tmp_path):
    got = data.load(save(tmp_path / "a.npz"))
    pixels = got.train_images.astype(np.float64).reshape(-1, 3)
    np.testing.assert_allclose(got.mean, pixels.mean(0), rtol=1e-6)
    np.testing.assert_allclose(got.std, pixels.std(0), rtol=1e-6)
    normal = data.normalise(got.train_images, got.mean, got.std)
    assert normal.dtype == np.float32
    np.testing.assert_allclose(normal.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(normal.std((0, 1, 2)), 1, atol=1e-5)


def test_a_constant_channel_is_normalised_to_zero_not_nan():
    images = np.full((4, 2, 2, 1), 7, np.uint8)
    mean, std = data.channel_statistics(images)
    np.testing.assert_array_equal(data.normalise(images, mean, std), 0)


def test_every_part_holds_its_share_of_every_class(tmp_path):
    got = data.load(save(tmp_path / "a.npz"), val_fraction=0.3, test_fraction=0.1)
    for name, share in (("train", 0.6), ("val", 0.3), ("test", 0.1)):
        labels = getattr(got, f"{name}_labels")
        np.testing.assert_array_equal(np.bincount(labels), np.array([20, 30, 50]) * share)
        assert labels.dtype == np.int32


def test_parts_are_disjoint_and_lose_nothing(tmp_path):
    path = save(tmp_path / "a.npz")
    got = data.load(path)
    parts = [rows(got, p) for p in FIELDS]
    with np.load(path) as file:
        want = zip(file["images"], file["labels"], strict=True)
        want = sorted((image.tobytes(), int(label)) for image, label in want)
    assert sorted(row for p in parts for row in p) == want
    assert len({row for p in parts for row in p}) == 100


def test_split_depends_on_the_seed_and_not_on_the_order_in_the_file(tmp_path):
    path = save(tmp_path / "a.npz")
    turned = save(tmp_path / "b.npz", order=np.random.default_rng(1).permutation)
    first, second = data.load(path), data.load(turned)
    for name in FIELDS:
        images, labels = f"{name}_images", f"{name}_labels"
        np.testing.assert_array_equal(getattr(first, images), getattr(second, images))
        np.testing.assert_array_equal(getattr(first, labels), getattr(second, labels))
    other = data.load(path, split_seed=1)
    assert rows(first, "test") != rows(other, "test")


def test_split_does_not_change_with_image_size():
    small, native = data.load("digits", image_size=4), data.load("digits")
    assert small.image_shape == (4, 4, 1)
    np.testing.assert_array_equal(small.test_labels, native.test_labels)
    # Bilinear with antialiasing keeps the mean of an image nearly.
    means = [x.test_images.mean((1, 2, 3)) for x in (small, native)]
    assert np.abs(means[0] - means[1]).mean() < 0.3


def test_parts_are_mixed_so_that_a_prefix_holds_every_class():
    digits = data.load("digits")
    for name in FIELDS:
        assert len(set(getattr(digits, f"{name}_labels")[:100].tolist())) == 10


def test_equal_images_are_never_divided(tmp_path):
    """39 images, each three times: 8 rows of each class would cut the third image at the border."""
    random = np.random.default_rng(0)
    images = np.repeat(random.integers(0, 256, (39, 4, 4), dtype=np.uint8), 3, axis=0)
    order = random.permutation(117)
    labels = np.repeat(np.arange(39) % 3, 3)
    np.savez(tmp_path / "a.npz", images=images[order], labels=labels[order])
    for seed in range(4):
        names = data.load(str(tmp_path / "a.npz"), split_seed=seed).names
        assert [len(part) for part in names] == [63, 27, 27]
        assert not set(names.train) & set(names.val)
        assert not (set(names.train) | set(names.val)) & set(names.test)


def test_too_few_examples_of_a_class_are_refused_by_name(tmp_path):
    path = save(tmp_path / "a.npz", (5, 2), class_names=np.array(["cat", "dog"]))
    with pytest.raises(UserError, match=r"Class 'dog' of .* has 2 training examples: at least 3"):
        data.load(path)


def test_class_numbers_with_gaps_are_classes_of_their_own(tmp_path):
    got = data.load(save(tmp_path / "b.npz", (5, 0, 6)))
    assert got.num_classes == 2 and got.class_names == ("0", "2")
    assert "labels are '0', '2': 2 classes, which are named so" in [n.text for n in got.notes]


def test_one_class_is_refused(tmp_path):
    with pytest.raises(UserError, match="one class only"):
        data.load(save(tmp_path / "a.npz", (9,)))


def held_out(path, names, shape=(6, 5, 3), top=2):
    """An .npz with 10 training images per class of 3, and 7 of each part in `names`."""
    random = np.random.default_rng(0)
    arrays = {"x_train": random.integers(0, 256, (30, 6, 5, 3), dtype=np.uint8)}
    arrays["y_train"] = np.arange(30) % 3
    for i, name in enumerate(names):
        arrays[f"x_{name}"] = np.full((7, *shape), i, np.uint8)
        arrays[f"y_{name}"] = np.arange(7) % (top + 1)
    np.savez(path, **arrays)
    return str(path)


def test_the_sets_that_the_source_brings_are_kept(tmp_path):
    got = data.load(held_out(tmp_path / "a.npz", ["val", "test"]))
    assert (got.val_images == 0).all() and (got.test_images == 1).all()
    assert len(got.train_images) == 30
    np.testing.assert_array_equal(got.test_labels, np.arange(7) % 3)


@pytest.mark.parametrize("name", ["val", "test"])
def test_a_single_held_out_set_is_the_test_set(tmp_path, name):
    got = data.load(held_out(tmp_path / "a.npz", [name]), test_fraction=0.9, val_fraction=0.3)
    assert (got.test_images == 0).all()
    assert (len(got.train_images), len(got.val_images)) == (21, 9)


def test_held_out_labels_and_shapes_must_fit_the_training_images(tmp_path):
    with pytest.raises(UserError, match=r"Class '3' of .* has 0 training examples"):
        data.load(held_out(tmp_path / "a.npz", ["test"], top=3))
    with pytest.raises(UserError, match=r"shape \[6, 5, 3\], .* \[4, 5, 3\]: set task.image_size"):
        data.load(held_out(tmp_path / "b.npz", ["test"], (4, 5, 3)))
    assert data.load(str(tmp_path / "b.npz"), image_size=8).image_shape == (8, 8, 3)
    with pytest.raises(UserError, match="3 channels, but held-out images 1"):
        data.load(held_out(tmp_path / "c.npz", ["test"], (6, 5, 1)))


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"val_fraction": 0.0}, "task.val_fraction is 0.0: it must lie between 0 and 1"),
        ({"test_fraction": 1.5}, "task.test_fraction is 1.5"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "their sum must be less than 1"),
    ],
)
def test_fractions_out_of_range_are_refused(shares, message):
    with pytest.raises(UserError, match=message):
        data.load("digits", **shares)


@pytest.mark.parametrize(
    ("name", "near"), [("digit", "digits"), ("mnist", "mnist5k"), ("MNIST-5k", "mnist5k")]
)
def test_unknown_names_are_refused_with_the_nearest(name, near):
    with pytest.raises(UserError, match=f"no image set is called '{name}'.*did you mean '{near}'"):
        data.load(name)


def test_a_path_is_told_from_a_name(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        data.load("photo/cats")
    assert str(error.value) == (
        f"There is no file or folder {tmp_path}/photo/cats: {tmp_path} holds no 'photo'; nearest in"
        " it: 'photos'."
    )
    with pytest.raises(UserError, match=f"There is no file or folder {tmp_path}/a.zip"):
        data.load(str(tmp_path / "a.zip"))
    with pytest.raises(UserError, match=f"^There is no file or folder {tmp_path}/mnist, and no"):
        data.load("mnist")
    with pytest.raises(UserError) as error:
        data.load("nosuch")  # like nothing that there is
    assert "did you mean" not in str(error.value)


def test_a_file_that_is_no_npz_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("1,2")
    with pytest.raises(UserError, match=r"is no file of a format that is read"):
        data.load(str(tmp_path / "a.txt"))
    with pytest.raises(UserError, match="The name of the image set is empty"):
        data.load("")


def test_another_way_with_transparency_is_refused_whatever_the_set():
    with pytest.raises(UserError, match=r"task\.alpha is 'grey'; it takes white, black, keep"):
        data.load("digits", alpha="grey")


def test_a_sample_holds_training_images_of_every_class_stretched_to_bytes():
    dataset = data.load("digits")
    sample = data.sample_images(dataset, count=7)
    assert sample.shape == (10, 7, 8, 8, 1) and sample.dtype == np.uint8
    threes = dataset.train_images[dataset.train_labels == 3][:7].astype(float)
    np.testing.assert_allclose(sample[3], 255 * threes / threes.max(), atol=0.51)
    small = dataset._replace(train_labels=np.where(np.arange(len(dataset.train_labels)) < 2, 0, 1))
    repeated = data.sample_images(small._replace(num_classes=2), count=5, side=3)
    assert repeated.shape == (2, 5, 3, 3, 1)
    np.testing.assert_array_equal(repeated[0, :2], repeated[0, 2:4])


def test_images_are_named_by_their_native_pixels():
    """The same in any size and on any side of a split, and no two of different images alike."""
    parts = ("train", "val", "test")
    found = data.load("digits")
    whole = np.concatenate([getattr(found, f"{part}_images") for part in parts])
    names = np.concatenate(found.names)
    assert [len(part) for part in found.names] == [
        len(getattr(found, f"{part}_labels")) for part in parts
    ]
    different = np.unique(whole.reshape(len(names), -1), axis=0)
    assert len(np.unique(names)) == len(different)
    small = data.load("digits", image_size=4, split_seed=0)
    for mine, theirs in zip(found.names, small.names, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    other = data.load("digits", split_seed=1)
    np.testing.assert_array_equal(np.sort(np.concatenate(other.names)), np.sort(names))
    assert len(np.intersect1d(found.names.train, other.names.test)) > 100
