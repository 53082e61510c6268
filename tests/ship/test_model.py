"""A kept network, loaded: it is the one that was trained, and says so of any image."""

import json
import re

import jax
import numpy as np
import pytest
from PIL import Image

import fnas_jax
from fnas_jax.core.types import UserError
from fnas_jax.networks import flax_reference, readable
from fnas_jax.ship import best, spec
from fnas_jax.ship import winner as ship
from fnas_jax.tasks import data, protocols
from tests.ship import winners


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            space,
            marks=[pytest.mark.slow] * (space in ("mobilenetv3", "mixed_cell", "mixed_chain")),
        )
        for space in winners.SPACES
    ],
)
def kept(request, data_file, tmp_path_factory):
    """(workdir, the winner, what `keep` tells) of each space."""
    folder = tmp_path_factory.mktemp(request.param)
    found = winners.trained(request.param, data_file)
    return folder, found, ship.keep(folder, found, pytest.fail)


@pytest.fixture(scope="module")
def mnas(data_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mnas")
    ship.keep(folder, winners.trained("mnas", data_file), pytest.fail)
    return fnas_jax.load(folder)


def test_the_loaded_network_gives_the_winner_s_test_accuracy_to_the_last_image(kept):
    folder, found, told = kept
    model, test = fnas_jax.load(folder), found.task.dataset
    accuracy = model.evaluate(test.test_images, test.test_labels)
    # By the arithmetic of the training, which is other code, and as a test images at a time.
    assert round(found.judged.facts["accuracy"] * len(test.test_labels)) == round(
        accuracy * len(test.test_labels)
    )
    named = {"folder": "best", "accuracy": accuracy, "weights": "fresh"}
    assert {name: told[name] for name in named} == named
    assert told["metrics"]["accuracy"] == accuracy
    assert told["interval"]["low"] <= accuracy <= told["interval"]["high"]
    assert sum(told["table"]["images"]) == len(test.test_labels)
    assert model.architecture["accuracy"]["test"] == accuracy
    assert (
        model.evaluate(test.test_images[:5], test.test_labels[:5], batch_size=2)
        == (model.predict(test.test_images[:5])[0] == test.test_labels[:5]).mean()
    )


def test_probabilities_are_those_of_the_network_that_was_trained(kept):
    """Beside the training's own code for layers, with the weights as it holds them."""
    folder, found, _ = kept
    dataset = found.task.dataset
    model = fnas_jax.load(best.locate(folder))  # the folder itself
    labels, probabilities = model.predict(dataset.test_images)
    network = found.judged.network
    fast = jax.jit(lambda v, x: fast_module(found).apply(v, x, train=False))
    pixels = data.normalise(dataset.test_images, dataset.mean, dataset.std)
    wanted = jax.nn.softmax(fast(network.variables, pixels))
    assert probabilities.shape == (len(dataset.test_labels), 3)
    np.testing.assert_allclose(probabilities, wanted, atol=1e-5)
    np.testing.assert_array_equal(labels, np.asarray(wanted).argmax(-1))
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)


def fast_module(found):
    return flax_reference.build(found.task.space, found.judged.network.arch, 3)


def test_weights_and_layers_stand_under_the_names_of_the_flax_network(kept):
    folder, found, _ = kept
    record, variables = best.read(folder)
    for name, leaf in best.flat(found.judged.network.variables).items():
        np.testing.assert_array_equal(best.flat(variables)[name], leaf)
    owners = {name.split("/")[1] for name in best.flat(variables)}
    owners = {name.removesuffix("_norm") if name != "last_norm" else name for name in owners}
    # A cell without convolution has no weights.
    assert owners <= {layer["name"] for layer in record["layers"]}
    size = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert record["costs"]["params_m"] == pytest.approx(size / 1e6)
    # Each layer takes what the one before it gives.
    for a, b in zip(record["layers"], record["layers"][1:], strict=False):
        assert a["out"] == b["in"], (a, b)


def test_architecture_json_says_what_users_need(mnas, data_file):
    record = mnas.architecture
    assert (record["inputs"]["height"], record["inputs"]["channels"]) == (12, 3)
    assert record["inputs"]["classes"] == list(winners.CLASSES) == list(mnas.class_names)
    dataset = data.load(data_file)
    np.testing.assert_allclose(record["inputs"]["normalise"]["mean"], dataset.mean)
    np.testing.assert_allclose(record["inputs"]["normalise"]["std"], dataset.std)
    assert record["decisions"]["block0/op"] == 2 and record["description"]["text"]
    assert record["training"]["steps"] == 12 and record["training"]["batch_size"] == 16
    assert record["accuracy"]["validation"] == 0.5
    assert record["data"]["fingerprint"] == protocols.fingerprint(dataset)
    assert {"fnas_jax", "jax", "flax"} <= record["versions"].keys()
    assert json.dumps(record)


def test_images_of_other_sizes_are_resized_as_the_task_resizes_its_own(mnas):
    large = np.random.default_rng(0).integers(0, 256, (3, 17, 40, 3), dtype=np.uint8)
    own = [
        np.stack(
            [Image.fromarray(image[..., c]).resize((12, 12), Image.BILINEAR) for c in range(3)], -1
        )
        for image in large
    ]
    np.testing.assert_array_equal(mnas.predict(large)[1], mnas.predict(np.stack(own))[1])


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 7])
def test_batches_do_not_change_what_is_said_of_an_image(mnas, count):
    pixels = winners.images(7, seed=1)[0]
    labels, probabilities = mnas.predict(pixels[:count], batch_size=3)
    assert labels.shape == (count,) and probabilities.shape == (count, 3)
    alone = [mnas.predict(pixels[i : i + 1])[1][0] for i in range(count)]
    np.testing.assert_allclose(probabilities, np.reshape(alone, (count, 3)), atol=1e-5)


def test_cpus_never_wait_for_grouped_convolutions(mnas):
    """Which the module that is exported has, and XLA computes many times as slowly."""
    images = np.zeros((1, mnas.inputs.height, mnas.inputs.width, mnas.inputs.channels))
    stock = jax.make_jaxpr(lambda x: mnas.module.apply(mnas.variables, x, train=False))(images)
    grouped = r"feature_group_count=([2-9]|\d\d)"
    assert re.search(grouped, str(stock))
    for run in (mnas.run, mnas.outputs):
        lowered = run.lower(mnas.variables, images.astype(mnas.inputs.dtype)).as_text()
        assert "stablehlo.convolution" in lowered
        assert not re.search(grouped.replace("=", " = "), lowered)


def test_labels_may_be_names(mnas):
    pixels, labels = winners.images(9, seed=1)
    expected = mnas.evaluate(pixels, labels)
    names = np.asarray(winners.CLASSES)[labels]
    for same in (names, names.astype(object), labels[:, None], names[:, None], labels.tolist()):
        assert mnas.evaluate(pixels, same) == expected
    assert mnas.evaluate(pixels, labels > 0) == mnas.evaluate(pixels, (labels > 0).astype(int))


def test_a_list_may_hold_images_of_several_sizes(mnas):
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 256, (*hw, 3), np.uint8) for hw in ((9, 20), (12, 12), (30, 8))]
    alone = np.concatenate([mnas.predict(image[None])[1] for image in images])
    boxed = np.empty(3, object)
    boxed[:] = images
    for given in (images, tuple(images), boxed):
        np.testing.assert_allclose(mnas.predict(given)[1], alone, atol=1e-6)
    labels = alone.argmax(-1)
    assert mnas.evaluate(images, labels[:, None]) == 1.0


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (np.zeros((12, 12), np.uint8), r"shape \[12, 12\]; .*images\[None\]"),
        (np.zeros((20, 12, 3), np.uint8), r"images\[None\] is one image"),
        (np.zeros((2, 12, 12, 1), np.uint8), "1 channel, and the network .* images of 3"),
        (np.zeros((2, 12, 12), np.uint8), "1 channel, and the network .* images of 3"),
        (np.zeros((2, 0, 12, 3), np.uint8), "at least 1"),
        (np.zeros((2, 12, 12, 3), np.float32), "are float32; uint8 from 0 to 255"),
        (np.zeros((2, 12, 12, 3), np.int64), "are int64; uint8"),
        ([[["a"]]], "<U1|shape"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)], r"image 1 of .* 1 channel"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3))], "image 1 of .* are float64; uint8"),
        ([[1], [2, 3]], r"image 0 of the list, alone: the images have shape \[1, 1\]"),
        ([[[1], [2, 3]], [[1]]], "image 0 of the list, alone: "),
        (np.zeros((2, 12, 12, 3), bool), "are bool; uint8 from 0 to 255"),
    ],
)
def test_images_that_do_not_fit_are_told_in_one_sentence(mnas, images, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        mnas.predict(images)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ([0, 1], "3 images and 2 labels"),
        ([0, 1, 3], "from 0 to 3; class numbers are 0 to 2"),
        ([0, -1, 2], "from -1 to 2"),
        ([0.0, 1.0, 2.0], "are float64"),
        ([[0, 1], [1, 0], [0, 1]], r"shape \[3, 2\]"),
        ([[0], [1, 2]], "are no array"),
        ([0, None, 1], "are object"),
        (["apple", "pear", "banana"], "'banana' is no class; these are apple, pear, plum"),
    ],
)
def test_labels_that_do_not_fit_are_told_in_one_sentence(mnas, labels, sentence):
    with pytest.raises(UserError, match=sentence):
        mnas.evaluate(winners.images(3)[0], labels)


def test_nothing_has_no_accuracy(mnas):
    with pytest.raises(UserError, match="at least one image"):
        mnas.evaluate(np.zeros((0, 12, 12, 3), np.uint8), [])
    with pytest.raises(UserError, match="batch_size is 0"):
        mnas.predict(winners.images(3)[0], batch_size=0)


def test_layers_that_this_version_would_not_make_are_told(mnas):
    record = json.loads(json.dumps(mnas.architecture))
    record["layers"][1]["kernel"] = 9
    with pytest.raises(UserError, match=r"this version would make otherwise"):
        type(mnas)(record, mnas.variables)


def test_a_space_that_is_not_all_written_down_is_told():
    with pytest.raises(UserError, match=r"by an early version of fnas_jax, .* train the winner"):
        spec.parse({"name": "mnas", "key": "mnas-5", "options": {"blocks": 5}})


def test_a_network_of_the_user_s_own_space_is_rebuilt(data_file, tmp_path):
    """Nothing but the decisions' meaning for layers is asked of a space."""
    found = winners.trained("mnas", data_file)
    own = found.task.space._replace(name="mine", spec=found.task.space.spec._replace(head=0))
    network = found.judged.network
    variables = jax.tree.map(lambda leaf: leaf, network.variables)
    for part in variables.values():
        part.pop("head_norm")
    del variables["params"]["head"]
    widest = readable.layers(own.spec, network.arch, 3, 3)[-1]["in"]
    variables["params"]["classifier"]["kernel"] = np.zeros((widest, 3), np.float32)
    judged = found.judged._replace(network=network._replace(variables=variables))
    ship.keep(tmp_path, found._replace(task=found.task._replace(space=own), judged=judged), print)
    model = fnas_jax.load(tmp_path)
    assert model.architecture["space"]["name"] == "mine"
    np.testing.assert_allclose(model.predict(winners.images(2)[0])[1].sum(-1), 1, atol=1e-5)


def test_weights_of_another_network_are_told(mnas):
    variables = jax.tree.map(lambda leaf: leaf, mnas.variables)
    variables["params"]["classifier"]["bias"] = np.zeros(4, np.float32)
    with pytest.raises(UserError, match=r"params/classifier/bias has shape \(4,\), and \(3,\)"):
        type(mnas)(mnas.architecture, variables)
    del variables["params"]["classifier"]["bias"]
    with pytest.raises(UserError, match=r"params/classifier/bias has shape None"):
        type(mnas)(mnas.architecture, variables)
