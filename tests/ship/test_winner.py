"""What is kept of a winner, by the commands as users call them."""

import json
import logging

import numpy as np
import pytest

import fnas_jax
from fnas_jax import main, retrain
from fnas_jax.core import config_json
from fnas_jax.objectives import classification, regression
from fnas_jax.objectives.base import Known
from fnas_jax.pages import lists, summary
from fnas_jax.ship import figures
from fnas_jax.ship import winner as ship
from fnas_jax.tasks import data, protocols
from tests.plots import runs
from tests.ship import winners


def arguments(folder, data_file, space, *more):
    options = winners.SPACES[space].items()
    return [
        f"--workdir={folder}",
        f"--config.task.name=images/{data_file}",
        f"--config.space.name={space}",
        *(f"--config.space.{name}={value}" for name, value in options),
        "--config.children.steps=5",
        "--config.children.batch_size=16",
        "--config.search.budget=2",
        "--config.search.batch=2",
        "--config.winner.steps=20",
        "--config.winner.reference=False",
        "--config.akp.enabled=False",
        "--config.method.name=random",
        "--config.log.tensorboard=False",
        "--config.jax.cache_dir=",
        *more,
    ]


@pytest.fixture(scope="module")
def finished(data_file, tmp_path_factory):
    """The workdir of a search, and the accuracy that its result names."""
    folder = tmp_path_factory.mktemp("search")
    assert main.main(arguments(folder, data_file, "mnas")) == 0
    return folder, json.loads((folder / "result.json").read_text())


def judged_as_kept(folder, data_file, accuracy):
    """The loaded network gets as many test images right as `accuracy` says."""
    model, test = fnas_jax.load(folder), data.load(data_file)
    labels, _ = model.predict(test.test_images)
    assert (labels == test.test_labels).sum() == round(accuracy * len(labels))
    assert model.evaluate(test.test_images, test.test_labels) == pytest.approx(accuracy, abs=1e-6)
    return model


def test_a_search_leaves_its_winner(finished, data_file):
    folder, result = finished
    winner, best = result["winner"], result["best"]
    assert winner["kept"]["folder"] == "best" and winner["kept"]["weights"] == "fresh"
    model = judged_as_kept(folder, data_file, winner["accuracy"])
    record = model.architecture
    assert record["accuracy"]["test"] == winner["kept"]["accuracy"]
    assert record["accuracy"]["validation"] == pytest.approx(best["accuracy"])
    assert record["arch"] == best["arch"] and record["description"] == best["description"]
    assert record["costs"]["mflops"] == winner["mflops"]
    assert record["training"]["command"] == "main"
    assert record["versions"] == result["versions"]
    assert result["versions"]["layers"].startswith(("kernels", "reference (no kernels: "))
    card = (folder / "best" / "README.md").read_text()
    for text in (best["description"]["text"], "fnas_jax.load", *winners.CLASSES, "uint8"):
        assert text in card
    assert f"{record['accuracy']['correct']} of {record['accuracy']['test_images']}" in card


def test_retrain_takes_its_place_only_with_a_network(finished, data_file, capsys):
    folder, _ = finished
    before = (folder / "best" / "weights.safetensors").read_bytes()
    assert retrain.command([f"--workdir={folder}", "--steps=0"]) == 2
    assert "winner.steps is 0, so no network would be trained" in capsys.readouterr().err
    assert (folder / "best" / "weights.safetensors").read_bytes() == before

    assert retrain.command([f"--workdir={folder}", "--steps=25"]) == 0
    assert f"the network is kept in {folder / 'best'}" in capsys.readouterr().out
    again = json.loads((folder / "retrain.json").read_text())
    model = judged_as_kept(folder, data_file, again["winner"]["accuracy"])
    assert model.architecture["training"]["steps"] == 25
    assert model.architecture["training"]["command"] == "retrain"
    assert (folder / "best" / "weights.safetensors").read_bytes() != before


@pytest.mark.slow
def test_retrain_takes_another_network_of_the_front_and_another_training(
    finished, data_file, capsys
):
    folder, result = finished
    number = len(result["pareto"])
    how = ["--config.children.lr=0.03", "--config.task.augment.flip=True", "--steps=7"]
    how += ["--config.winner.mixup=0.2", "--config.winner.ema=0.9", "--config.winner.smoothing=0.1"]
    assert retrain.command([f"--workdir={folder}", f"--pick={number}", *how]) == 0
    again = json.loads((folder / "retrain.json").read_text())
    picked = result["pareto"][-1]
    assert again["arch"] == picked["arch"] and again["pick"] == number
    model = judged_as_kept(folder, data_file, again["winner"]["accuracy"])
    training = model.architecture["training"]
    assert training["steps"] == 7 and training["lr"] == pytest.approx(0.03)
    recipe = training["recipe"]
    assert recipe == again["winner"]["recipe"]
    assert (recipe["mixup"], recipe["ema"], recipe["smoothing"]) == (0.2, 0.9, 0.1)
    assert model.architecture["accuracy"]["validation"] == pytest.approx(picked["accuracy"])
    for wrong, message in {
        "--top=3": f"pick is {number} beside top, which is 3; give one of the two",
        f"--pick={number + 1}": f"the front has {number} networks: 1 is ",
        "--config.search.budget=9": "search.budget cannot be changed here; allowed are winner.*",
        "--config.children.step=9": "did you mean 'children.steps'",
        "--config.children.lr=none": "children.lr is 'none'; it must be a number",
    }.items():
        assert retrain.command([f"--workdir={folder}", f"--pick={number}", wrong]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_best_are_compared_by_validation_images_and_the_chosen_one_is_kept(
    finished, data_file, capsys
):
    folder, result = finished
    assert retrain.command([f"--workdir={folder}", "--top=5", "--config.winner.steps", "20"]) == 0
    captured = capsys.readouterr()
    again = json.loads((folder / "retrain.json").read_text())
    compared = again["compared"]
    assert len(compared) == result["counts"]["trained"] == 2 and again["top"] == 5
    assert "top is 5; the search has measured 2 networks" in captured.err
    assert "trained 2 of 2 networks that are compared" in captured.err
    assert compared[0]["arch"] == result["best"]["arch"]  # ranked by the search
    # The accuracy on validation images of a network trained on training images alone.
    count = len(data.load(data_file).val_labels)
    for entry in compared:
        assert entry["accuracy"] * count == pytest.approx(round(entry["accuracy"] * count))
        assert entry["reward"] == pytest.approx(entry["accuracy"])
        assert entry["steps"] == 20 and entry["seconds"] > 0
        assert entry["text"] in captured.out
    (chosen,) = (entry for entry in compared if entry["chosen"])
    assert chosen["reward"] == max(entry["reward"] for entry in compared)
    assert again["arch"] == chosen["arch"] and again["steps"] == 20
    model = judged_as_kept(folder, data_file, again["winner"]["accuracy"])
    assert model.arch == chosen["arch"] and model.description == chosen["text"]
    assert model.architecture["accuracy"]["validation"] == pytest.approx(chosen["accuracy"])


@pytest.mark.slow
def test_a_winner_trained_on_from_inherited_weights_is_kept(data_file, tmp_path):
    """Where it was trained in no other way; in the form by which its weights are named."""
    spos = ("--config.method.name=spos", "--config.oneshot.steps=20", "--config.oneshot.finetune=5")
    argv = arguments(tmp_path, data_file, "macro", *spos, "--config.winner.steps=0")
    assert main.main(argv) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    winner = result["winner"]
    assert winner["accuracy"] is None and winner["kept"]["weights"] == "inherited"
    model = judged_as_kept(tmp_path, data_file, winner["finetuned"]["accuracy"])
    assert model.architecture["training"]["weights"] == "inherited"
    assert model.arch == result["best"]["arch"]  # by which results name it
    lr = config_json.read_config(tmp_path).children.lr
    assert model.architecture["training"]["lr"] == pytest.approx(lr / 10)


@pytest.mark.parametrize(
    "children",
    [
        pytest.param({"backend": "reference"}, marks=pytest.mark.slow),
        pytest.param({"backend": "masked"}, marks=pytest.mark.slow),
        {"device_images": 16},
    ],
)
def test_however_it_was_trained_what_is_kept_is_what_was_tested(data_file, tmp_path, children):
    """By each code for layers, and with images that come to the device in chunks."""
    found = winners.trained("mnas", data_file, **children)
    assert ship.keep(tmp_path, found, pytest.fail) is not None
    judged_as_kept(tmp_path, data_file, found.judged.facts["accuracy"])


def test_a_network_whose_training_failed_is_not_kept(data_file, tmp_path):
    found = winners.trained("cell", data_file)
    failed = found._replace(judged=found.judged._replace(network=None))
    lines = []
    assert ship.keep(tmp_path, failed, lines.append) is None
    assert lines == ["nothing is kept in best/: the training of the winner failed"]
    assert not (tmp_path / "best").exists()


def test_what_training_and_float32_say_differently_is_told(data_file, tmp_path, caplog):
    """As where children are trained in bfloat16: what is kept speaks for itself."""
    found = winners.trained("cell", data_file)
    network, test = found.judged.network, found.task.dataset.test_labels
    other = network._replace(
        accuracy=network.accuracy + (1 if network.accuracy < 1 else -1) / len(test)
    )
    with caplog.at_level(logging.WARNING, "fnas_jax"):
        told = ship.keep(
            tmp_path, found._replace(judged=found.judged._replace(network=other)), print
        )
    assert "in float32, and" in caplog.text
    assert told["accuracy"] == pytest.approx(network.accuracy)
    assert fnas_jax.load(tmp_path).architecture["accuracy"]["test_by_training"] == other.accuracy


def test_where_the_metric_has_no_interval_result_card_and_report_say_why(
    data_file, tmp_path, monkeypatch
):
    found = winners.trained("cell", data_file)
    network = found.judged.network._replace(objective=classification.of(3, "macro_f1"))
    monkeypatch.setattr(figures, "MOST", 5)
    judged = found.judged._replace(network=network)
    told = ship.keep(tmp_path, found._replace(judged=judged), print)
    count = len(found.task.dataset.test_labels)
    assert told["interval"] is None and told["no_interval"].startswith(f"of {count} images")
    assert f"; no interval: {told['no_interval']}" in (tmp_path / "best" / "README.md").read_text()
    winner = {"accuracy": 0.5, "kept": told}
    assert f"No interval: {told['no_interval']}." in lists.on_test_images({"winner": winner})
    best = {"arch": [0], "accuracy": 0.5, "reward": 0.5}
    (card, *_) = summary.cards(runs.run([], result={"best": best, "winner": winner}))
    assert card.more == f"no interval: {told['no_interval']}"


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_errors_are_compared_with_that_of_a_trivial_answer(scale, caplog):
    known = Known(1, {"mae": scale, "rmse": scale, "loss": 1.0}, (0.0,), (scale,))
    objective = regression.make(known, "mae")
    found = figures.Figures({"mae": 0.5 * scale}, {}, None, 9)
    with caplog.at_level(logging.WARNING, "fnas_jax"):
        ship._compare(objective, found, -0.5005 * scale)
        assert not caplog.records
        ship._compare(objective, found, -0.502 * scale)
    assert "the mae of the winner is" in caplog.text


def test_fingerprints_tell_data_apart_and_not_their_order(data_file):
    one = data.load(data_file)
    order = np.arange(len(one.test_labels))[::-1]
    names = one.names._replace(test=one.names.test[order])
    turned = one._replace(test_labels=one.test_labels[order], names=names)
    assert protocols.fingerprint(turned) == protocols.fingerprint(one)
    for other in (
        data.load(data_file, split_seed=1),
        one._replace(test_labels=one.test_labels[order]),
        one._replace(test_labels=(one.test_labels + 1) % 3),
    ):
        assert protocols.fingerprint(other) != protocols.fingerprint(one)
