"""Which images are taken, where the data set's pixels are other numbers than 0 to 255."""

import numpy as np
import pytest

from fnas_jax.core.types import UserError
from fnas_jax.ship import inputs
from fnas_jax.tasks import data


@pytest.fixture(scope="module")
def digits():
    return inputs.of(data.load("digits"))


def test_inputs_survive_architecture_json(digits):
    assert inputs.parse(inputs.described(digits)) == digits
    assert (digits.height, digits.width, digits.channels) == (8, 8, 1)
    assert (digits.dtype, digits.low, digits.high) == ("float32", 0.0, 16.0)


def test_the_data_set_s_own_images_pass_unchanged(digits):
    own = data.load("digits").test_images
    for given in (own, own[..., 0], own.astype(np.uint8), own.astype(np.float64)):
        taken = inputs.fitted(digits, inputs.checked(digits, given))
        assert taken.dtype == np.float32
        np.testing.assert_array_equal(taken, own)


def test_images_are_resized_as_numbers_of_the_data_set_s_type():
    """As the reader of digits does at another size: uint8 would be rounded."""
    native, small = data.load("digits"), data.load("digits", image_size=5)
    taken = inputs.of(small)
    given = native.test_images.astype(np.uint8)
    np.testing.assert_array_equal(
        inputs.fitted(taken, inputs.checked(taken, given)), small.test_images
    )


def test_images_need_not_be_square():
    taken = inputs.Inputs(6, 10, 1, "uint8", 0, 255, (0.0,), (1.0,), ("a", "b"))
    given = np.zeros((2, 30, 20), np.uint8)
    given[:, 15:, :10] = 200  # below, left
    found = inputs.fitted(taken, inputs.checked(taken, given))
    assert found.shape == (2, 6, 10, 1)
    assert (found[:, 4:, :4] == 200).all() and (found[:, :2] == 0).all()


@pytest.mark.parametrize(
    "images",
    [np.full((1, 8, 8), 255, np.uint8), np.full((1, 8, 8), -9.0), np.full((1, 8, 8), np.nan)],
)
def test_pixels_on_another_scale_are_refused(digits, images):
    with pytest.raises(UserError, match="trained on pixels from 0 to 16"):
        inputs.checked(digits, images)


def test_bool_is_0_and_1_where_that_was_learnt():
    taken = inputs.Inputs(4, 4, 1, "float32", 0.0, 1.0, (0.0,), (1.0,), ("a", "b"))
    given = np.random.default_rng(0).random((3, 4, 4)) > 0.5
    found = inputs.fitted(taken, inputs.checked(taken, given))
    np.testing.assert_array_equal(found[..., 0], given.astype(np.float32))


def test_images_of_a_list_may_lack_their_one_channel(digits):
    given = [np.full((5, 7), 3), np.full((9, 4, 1), 16.0)]
    found = inputs.checked(digits, given)
    assert found.shape == (2, 8, 8, 1) and found.dtype == np.float32
    np.testing.assert_allclose(found[0], 3)
    np.testing.assert_array_equal(inputs.fitted(digits, found), found)


@pytest.mark.parametrize("images", [np.zeros((1, 8, 8), bool), np.full((1, 8, 8), "a")])
def test_what_are_no_numbers_is_refused(digits, images):
    with pytest.raises(UserError, match="numbers are needed"):
        inputs.checked(digits, images)
