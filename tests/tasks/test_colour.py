"""Changes of colour against other formulas, in units of pixels and not of normalised images."""

import colorsys

import jax
import numpy as np
import pytest

from fnas_jax.tasks import colour, data
from fnas_jax.tasks.colour import Jitter

KEY = jax.random.key(3)


def images(channels, count=30, dtype=np.uint8):
    pixels = np.random.default_rng(0).integers(0, 256, (count, 6, 5, channels))
    return (pixels if dtype == np.uint8 else pixels / 255).astype(dtype)


def dataset(stored):
    mean, std = data.channel_statistics(stored)
    parts = [stored, np.zeros(len(stored), np.int32)] * 3
    return data.Dataset("made up", *parts, 2, mean, std, ("a", "b"))


def jittered(stored, **most):
    """(pixels in [0, 1] before and after, as float64)."""
    own = dataset(stored)
    normal = np.asarray(data.normalise(stored, own.mean, own.std))
    run = jax.jit(lambda key, x: colour.jitter(colour.pixels_of(own), Jitter(**most), key, x)[0])
    found = np.asarray(run(KEY, normal))
    assert found.dtype == np.float32 and np.isfinite(found).all()
    high = 255 if stored.dtype == np.uint8 else 1
    return stored / high, (found * own.std + own.mean) / high


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_brightness_adds_one_number_to_each_image_within_its_range(channels, dtype):
    before, after = jittered(images(channels, dtype=dtype), brightness=0.2)
    inside = (after > 1e-4) & (after < 1 - 1e-4)
    added = [np.median((b - a)[i]) for a, b, i in zip(before, after, inside, strict=True)]
    assert np.abs(added).max() <= 0.2 + 1e-5 and min(added) < -0.1 and max(added) > 0.1
    wanted = np.clip(before + np.reshape(added, (-1, 1, 1, 1)), 0, 1)
    np.testing.assert_allclose(after, wanted, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_contrast_stretches_around_the_mean_of_each_channel(channels):
    stored = 64 + images(channels) // 2  # so that nothing is clipped
    before, after = jittered(stored, contrast=0.3)
    mean = before.mean(axis=(1, 2), keepdims=True)
    factor = ((after - mean) * (before - mean)).sum(axis=(1, 2, 3)) / ((before - mean) ** 2).sum(
        axis=(1, 2, 3)
    )
    assert factor.min() >= 0.7 - 1e-4 and factor.max() <= 1.3 + 1e-4 and np.ptp(factor) > 0.3
    wanted = mean + factor.reshape(-1, 1, 1, 1) * (before - mean)
    np.testing.assert_allclose(after, wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["saturation", "hue"])
def test_saturation_and_hue_change_that_alone(name):
    before, after = jittered(images(3, count=8), **{name: 0.25})
    for old, new in zip(before, after, strict=True):
        hsv = [
            np.array([colorsys.rgb_to_hsv(*np.clip(pixel, 0, 1)) for pixel in x.reshape(-1, 3)])
            for x in (old, new)
        ]
        turned = (hsv[1][:, 0] - hsv[0][:, 0] + 0.5) % 1 - 0.5
        clear = (hsv[0][:, 1] > 0.1) & (hsv[0][:, 2] > 0.1) & (hsv[1][:, 1] > 0.1)
        np.testing.assert_allclose(hsv[0][:, 2], hsv[1][:, 2], atol=1e-4)
        if name == "hue":
            np.testing.assert_allclose(hsv[0][clear, 1], hsv[1][clear, 1], atol=1e-3)
            assert np.ptp(turned[clear]) < 1e-3 and np.abs(turned[clear]).max() <= 0.251
        else:
            assert np.abs(turned[clear]).max() < 1e-3
            free = clear & (hsv[1][:, 1] < 1 - 1e-4)
            ratio = hsv[1][free, 1] / hsv[0][free, 1]
            assert np.ptp(ratio) < 2e-3 and 0.749 <= ratio.min() <= ratio.max() <= 1.251


def test_masks_are_left_alone_and_keys_decide():
    own = dataset(images(3))
    normal = np.asarray(data.normalise(own.train_images, own.mean, own.std))
    masks = np.arange(30 * 6 * 5, dtype=np.int32).reshape(30, 6, 5)
    run = jax.jit(
        lambda key: colour.jitter(
            colour.pixels_of(own), Jitter(0.1, 0.1, 0.1, 0.1), key, normal, masks
        )
    )
    found, same = run(KEY)
    np.testing.assert_array_equal(same, masks)
    np.testing.assert_array_equal(found, run(KEY)[0])
    assert (np.asarray(found) != np.asarray(run(jax.random.key(4))[0])).any()


def test_black_white_and_constant_images_stay_finite():
    stored = np.stack([np.full((4, 4, 3), value, np.uint8) for value in (0, 255, 7)])
    jittered(stored, brightness=0.5, contrast=0.5, saturation=0.5, hue=0.5)
