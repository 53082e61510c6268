import numpy as np
import pytest

from fnas_jax.core import mapped
from fnas_jax.core.mapped import Mapped
from fnas_jax.core.types import UserError
from fnas_jax.tasks import data
from fnas_jax.tasks.data import load
from fnas_jax.tasks.readers.npy import read_set
from fnas_jax.tasks.readers.npz import read_npz

RANDOM = np.random.default_rng(0)


def arrays(n=60, shape=(6, 5, 3), dtype=np.uint8):
    return RANDOM.integers(0, 256, (n, *shape)).astype(dtype), np.arange(n) % 3


def saved(folder, **named):
    for name, array in named.items():
        np.save(folder / f"{name}.npy", array)


@pytest.fixture
def large(monkeypatch):
    """Arrays of 100 bytes are large, and all of their images are read in pieces."""
    monkeypatch.setattr(mapped, "MAPPED_FROM", 100)
    monkeypatch.setattr(mapped, "CHUNK", 500)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.int16])
@pytest.mark.parametrize("shape", [(6, 5, 3), (6, 5)])
def test_a_large_set_is_the_same_as_a_small_one(tmp_path, monkeypatch, dtype, shape):
    x, y = arrays(shape=shape, dtype=dtype)
    saved(tmp_path, x_train=x, y_train=y, x_test=x[:9] // 2, y_test=y[:9])
    small = load(str(tmp_path))
    assert isinstance(small.train_images, np.ndarray)
    monkeypatch.setattr(mapped, "MAPPED_FROM", 100)
    monkeypatch.setattr(mapped, "CHUNK", 500)
    large = load(str(tmp_path))
    for part in ("train", "val", "test"):
        one, other = (getattr(d, f"{part}_images") for d in (small, large))
        assert isinstance(other, Mapped) and other.shape == one.shape and other.dtype == one.dtype
        np.testing.assert_array_equal(np.asarray(other), one)
        one, other = (getattr(d, f"{part}_labels") for d in (small, large))
        np.testing.assert_array_equal(other, one)
    for one, other in zip(small.names, large.names, strict=True):
        np.testing.assert_array_equal(other, one)
    np.testing.assert_allclose(large.mean, small.mean, rtol=1e-6)
    np.testing.assert_allclose(large.std, small.std, rtol=1e-6)
    np.testing.assert_array_equal(data.sample_images(large), data.sample_images(small))
    images = [(d.train_images, d.val_images) for d in (small, large)]
    assert data.pixel_range(*images[1]) == data.pixel_range(*images[0])


@pytest.mark.parametrize(
    ("images", "labels"),
    [("x", "y"), ("train_images", "train_labels"), ("cells_images", "cells_labels")],
)
def test_a_file_of_images_names_that_of_its_labels(tmp_path, images, labels):
    x, y = arrays()
    saved(tmp_path, **{images: x, labels: y, "notes": np.zeros(3)})
    source = read_set(tmp_path / f"{images}.npy", 0)
    np.testing.assert_array_equal(source.train.images, x)
    np.testing.assert_array_equal(source.train.labels, y)


def test_labels_can_be_named(tmp_path):
    x, y = arrays()
    saved(tmp_path, pictures=x, kinds=y)
    with pytest.raises(UserError, match=r"No labels of .*pictures\.npy.*task\.labels=FILE\.npy"):
        read_set(tmp_path / "pictures.npy", 0)
    source = read_set(tmp_path / "pictures.npy", 0, labels=tmp_path / "kinds.npy")
    np.testing.assert_array_equal(source.train.labels, y)


def test_large_images_are_resized(tmp_path, large):
    x, y = arrays()
    saved(tmp_path, x=x, y=y)
    assert load(str(tmp_path), image_size=4).image_shape == (4, 4, 3)


def test_what_is_not_finite_is_told_with_its_row(tmp_path, large):
    x, y = arrays(dtype=np.float32)
    x[41, 2, 3] = np.nan
    saved(tmp_path, x=x, y=y)
    with pytest.raises(UserError, match="row 41 holds values that are not finite"):
        load(str(tmp_path))


def test_damaged_files_are_told(tmp_path, large):
    x, y = arrays()
    saved(tmp_path, x=x, y=y)
    whole = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(whole[:-10])
    with pytest.raises(UserError, match=r"x\.npy cannot be read .*: it ends after .* bytes"):
        load(str(tmp_path))
    (tmp_path / "x.npy").write_bytes(b"PK" + whole[2:])
    with pytest.raises(UserError, match=r"x\.npy cannot be read as an \.npy file"):
        load(str(tmp_path))
    np.save(tmp_path / "x.npy", np.asfortranarray(x))
    with pytest.raises(UserError, match="Fortran order"):
        load(str(tmp_path))
    np.save(tmp_path / "x.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(UserError, match=r"it holds objects \(dict\)"):
        load(str(tmp_path))


def test_small_files_in_fortran_order_are_read(tmp_path):
    x, y = arrays()
    saved(tmp_path, x=np.asfortranarray(x), y=y)
    np.testing.assert_array_equal(read_set(tmp_path, 0).train.images, x)


def test_large_members_of_an_npz_file_stay_there(tmp_path, large, caplog):
    x, y = arrays()
    np.savez(tmp_path / "set.npz", images=x, labels=y)
    source = read_npz(tmp_path / "set.npz", 0)
    assert isinstance(source.train.images, Mapped)
    np.testing.assert_array_equal(np.asarray(source.train.images), x)
    np.testing.assert_array_equal(source.train.labels, y)
    np.savez_compressed(tmp_path / "set.npz", images=x, labels=y)
    source = read_npz(tmp_path / "set.npz", 0)
    assert isinstance(source.train.images, np.ndarray)
    np.testing.assert_array_equal(source.train.images, x)
    assert "'images' of" in caplog.text and "read into memory whole" in caplog.text
    assert "np.savez, which does not compress" in caplog.text
    caplog.clear()
    np.savez(tmp_path / "set.npz", images=np.asfortranarray(x), labels=y)
    np.testing.assert_array_equal(read_npz(tmp_path / "set.npz", 0).train.images, x)
    assert "np.ascontiguousarray" in caplog.text and "compress" not in caplog.text
