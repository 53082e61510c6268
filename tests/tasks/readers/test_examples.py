import jax
import numpy as np
import pytest

from fnas_jax.core.types import UserError
from fnas_jax.tasks.readers.examples import Example, collect, name_classes, resize


@pytest.mark.parametrize("size", [4, 8, 23])
def test_resize_agrees_with_jax_image(size):
    image = np.random.default_rng(0).uniform(-3, 5, (12, 17, 2)).astype(np.float32)
    want = jax.image.resize(image, (size, size, 2), "linear", antialias=True)
    got = resize(image, size, size)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_resize_of_uint8_rounds():
    image = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    want = jax.image.resize(image.astype(np.float32), (5, 5, 3), "linear", antialias=True)
    got = resize(image, 5, 5)
    assert got.dtype == np.uint8 and got.shape == (5, 5, 3)
    assert np.abs(got - np.asarray(want)).max() <= 1
    np.testing.assert_array_equal(resize(image, 12, 12), image)


def examples(*shapes):
    return [Example(f"row {i}", np.zeros(shape, np.uint8), 0) for i, shape in enumerate(shapes)]


def test_collect_refuses_different_sizes_unless_told_to_resize():
    different = examples((4, 4, 3), (4, 5, 3))
    with pytest.raises(UserError, match=r"row 0 is 4x4x3, row 1 is 4x5x3.*set task.image_size"):
        collect(different, 0, "birds")
    assert collect(different, 6, "birds").images.shape == (2, 6, 6, 3)
    with pytest.raises(UserError, match="birds holds no images"):
        collect([], 0, "birds")


def test_ids_name_the_native_pixels():
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 1), dtype=np.uint8)
    rows = [Example("", image, 0), Example("", image.copy(), 1), Example("", image[::-1], 0)]
    part = collect(rows, 0, "x")
    assert part.ids[0] == part.ids[1] != part.ids[2]
    assert part.ids == collect(rows, 4, "x").ids


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, bool])
def test_whole_numbers_of_any_type_and_columns_are_labels(dtype):
    (a, b), names = name_classes([np.array([[1], [0]], dtype), np.array([1], dtype)], "x")
    np.testing.assert_array_equal(a, [1, 0])
    np.testing.assert_array_equal(b, [1])
    assert a.dtype == np.int32 and names == ("0", "1")


def test_texts_are_numbered_alphabetically_over_all_parts():
    (a, b), names = name_classes([np.array(["cow", "ant"]), np.array(["bee"])], "x")
    assert names == ("ant", "bee", "cow")
    assert a.tolist() == [2, 0] and b.tolist() == [1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.eye(3), r"have shape \[3, 3\]"),
        (np.array([0, np.inf]), "Label inf of x .row 1. is no class number"),
        (np.arange(60) * 10**6, r"60 different values \(0, 1000000, 2000000, ..\) for 60 images"),
        (np.arange(60).astype(str), "60 different values .* for 60 images: these are ids"),
        (np.array([b"\xff"]), "are bytes, and no UTF-8"),
        (np.array([0.5]), "Label 0.5 of x"),
        (np.array([np.nan]), "Label nan of x"),
        (np.array([1j]), "dtype complex128"),
    ],
)
def test_other_labels_are_refused(labels, message):
    with pytest.raises(UserError, match=message):
        name_classes([labels], "x")


@pytest.mark.parametrize(
    "values", [[1, 2, 3], [0, 1, 5], [-1, 0, 1], [-1, 1], [7, 2**31, 2**40], [-(2**62), 0]]
)
@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_other_numbers_are_classes_named_by_them(values, dtype):
    drawn = np.random.default_rng(0).permutation(np.repeat(values, 5))
    (labels,), names = name_classes([drawn.astype(dtype)], "x")
    assert names == tuple(map(str, values)) and labels.dtype == np.int32
    assert [int(names[label]) for label in labels] == drawn.tolist()


def test_bytes_are_texts():
    (a, b), names = name_classes([np.array(["猫".encode(), b"cow"]), np.array(["cow"])], "x")
    assert names == ("cow", "猫") and a.tolist() == [1, 0] and b.tolist() == [0]
