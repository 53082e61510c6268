import gzip
import struct

import numpy as np
import pytest

from fnas_jax.core import mapped
from fnas_jax.core.mapped import Mapped
from fnas_jax.core.types import UserError
from fnas_jax.tasks.data import load
from fnas_jax.tasks.readers import idx
from fnas_jax.tasks.readers.idx import read_idx

RANDOM = np.random.default_rng(0)
CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def content(array):
    code = CODES[array.dtype.str[1:]]
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, code, array.ndim]) + sizes + array.astype(array.dtype.str[1:]).tobytes()


def big_endian(array):
    return content(array)[: 4 + 4 * array.ndim] + array.astype(">" + array.dtype.str[1:]).tobytes()


def write(folder, name="", n=40, zipped=False, parts=("train", "t10k"), dots=False, first=0):
    folder.mkdir(exist_ok=True)
    arrays = {}
    for part in parts:
        images = RANDOM.integers(0, 256, (n, 5, 4), dtype=np.uint8)
        labels = (np.arange(n) % 4 + first).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            kind = kind.replace("-", ".") if dots else kind
            path = folder / f"{name}{part}-{kind}-ubyte{'.gz' * zipped}"
            data = big_endian(array)
            path.write_bytes(gzip.compress(data) if zipped else data)
            arrays[part, kind[:6]] = array
    return arrays


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("dots", [False, True])
def test_a_folder_of_four_files(tmp_path, zipped, dots):
    arrays = write(tmp_path, zipped=zipped, dots=dots)
    source = read_idx(tmp_path, 0)
    np.testing.assert_array_equal(source.train.images[..., 0], arrays["train", "images"])
    np.testing.assert_array_equal(source.train.labels, arrays["train", "labels"])
    np.testing.assert_array_equal(source.test.images[..., 0], arrays["t10k", "images"])
    assert source.class_names == ("0", "1", "2", "3") and source.val is None
    dataset = load(str(tmp_path))
    assert len(dataset.test_labels) == 40 and dataset.image_shape == (5, 4, 1)


def test_one_of_the_files_names_the_set(tmp_path):
    write(tmp_path)
    other = write(tmp_path, "other-")
    with pytest.raises(UserError, match=r"2 sets \(MNIST, other\): name a file"):
        load(str(tmp_path))
    source = read_idx(tmp_path / "other-t10k-labels-idx1-ubyte", 0)
    np.testing.assert_array_equal(source.train.images[..., 0], other["train", "images"])


def test_unzipped_files_that_kept_their_suffix_are_read(tmp_path):
    arrays = write(tmp_path, zipped=True)
    for path in tmp_path.iterdir():
        path.write_bytes(gzip.decompress(path.read_bytes()))
    source = read_idx(tmp_path, 0)
    np.testing.assert_array_equal(source.train.images[..., 0], arrays["train", "images"])


def test_images_of_emnist_are_upright_and_its_classes_have_names(tmp_path):
    arrays = write(tmp_path, "emnist-letters-", first=1)
    mapping = "1 65 97\n2 66 98\n3 67 99\n4 68 100\n5 69 101\n"
    (tmp_path / "emnist-letters-mapping.txt").write_text(mapping)
    source = read_idx(tmp_path, 0)
    turned = arrays["train", "images"].transpose(0, 2, 1)
    np.testing.assert_array_equal(source.train.images[..., 0], turned)
    assert source.class_names == ("A", "B", "C", "D")
    np.testing.assert_array_equal(source.train.labels, arrays["train", "labels"] - 1)
    (tmp_path / "emnist-letters-mapping.txt").write_text("1 A a\n")
    with pytest.raises(UserError, match="each line is a class number and codes"):
        read_idx(tmp_path, 0)


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("large", [False, True])
def test_all_types_of_numbers(tmp_path, monkeypatch, dtype, large):
    if large:
        monkeypatch.setattr(mapped, "MAPPED_FROM", 10)
    values = RANDOM.integers(0, 100, (7, 3, 2)).astype(dtype)
    (tmp_path / "a").write_bytes(big_endian(values))
    found = idx.read_array(tmp_path / "a")
    assert isinstance(found, Mapped) == large
    np.testing.assert_array_equal(np.asarray(found), values)


IMAGES = "train-images-idx3-ubyte"


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b[:-3], "takes 800 bytes, and it ends after 797"),
        (lambda b: b + b"x", "takes 800 bytes, and it holds more than the"),
        (lambda b: b"", "begins with nothing, not with 00 00 TYPE AXES"),
        (lambda b: b"\0\0\x07\3" + b[4:], "begins with 00 00 07 03"),
        (lambda b: b[:9], "ends within its header"),
        (lambda b: b[:4] + b"\xff" * 12 + b[16:], "and it ends after 800"),
        (lambda b: b"\0\0\x08\2" + b[4:], "and it holds more"),
        (lambda b: b"<html>Not found", "begins with 3c 68 74 6d"),
    ],
)
def test_damaged_files_are_told(tmp_path, damage, message, zipped):
    write(tmp_path)
    path = tmp_path / IMAGES
    data = damage(path.read_bytes())
    path.write_bytes(gzip.compress(data) if zipped else data)
    with pytest.raises(UserError, match=f"{IMAGES} cannot be read as an IDX file: .*{message}"):
        load(str(tmp_path))


def test_a_gzipped_file_that_is_cut_short_is_told(tmp_path):
    write(tmp_path, zipped=True)
    path = tmp_path / f"{IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="cannot be read as an IDX file"):
        load(str(tmp_path))


def test_labels_in_place_of_images_are_told(tmp_path):
    write(tmp_path)
    (tmp_path / IMAGES).write_bytes((tmp_path / "train-labels-idx1-ubyte").read_bytes())
    with pytest.raises(UserError, match=r"holds shape \[40\]: images have 3 axes"):
        load(str(tmp_path))


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("train-labels-idx1-ubyte", "lacks the labels of its 'train' part"),
        (
            "t10k-images-idx3-ubyte",
            "lacks the images of its 'test' part: .* t10k-images-idx3",
        ),
    ],
)
def test_missing_files_are_told(tmp_path, missing, message):
    write(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(UserError, match=message):
        load(str(tmp_path))


def test_fashion_mnist_that_is_not_installed_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "FASHION_MNIST", tmp_path / "absent")
    with pytest.raises(UserError, match="apt-get install dataset-fashion-mnist"):
        load("fashion_mnist")


@pytest.mark.slow
@pytest.mark.skipif(
    not idx.is_idx(idx.FASHION_MNIST), reason="the package dataset-fashion-mnist is not installed"
)
def test_fashion_mnist():
    source = idx.read_fashion_mnist(0)
    assert source.train.images.shape == (60000, 28, 28, 1) and source.class_names[9] == "Ankle boot"
    np.testing.assert_array_equal(np.bincount(source.train.labels), [6000] * 10)
    np.testing.assert_array_equal(np.bincount(source.test.labels), [1000] * 10)
    # As its authors' own reader (utils/mnist_reader.py in the package) does it.
    with gzip.open(idx.FASHION_MNIST / "train-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16)
    np.testing.assert_array_equal(source.train.images.ravel(), pixels)
