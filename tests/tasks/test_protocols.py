"""Protocols: what changes the numbers changes them, what changes only the speed does not."""

import json

import numpy as np
import pytest

from fnas_jax.core import config as config_lib
from fnas_jax.core.measure import Measure
from fnas_jax.knowledge import sources
from fnas_jax.spaces import mnas
from fnas_jax.tasks import images, protocols, tabular
from fnas_jax.tasks.data import Dataset

SPACE = mnas.make(blocks=1, strides=(1,), width=0.5, stem=16, stem_stride=2, head=16)


def configuration(changes):
    return config_lib.validate(
        config_lib.nest(config_lib.flatten(config_lib.default()) | {"akp.enabled": False} | changes)
    )


def dataset(seed=0, train=12, side=4):
    rng = np.random.default_rng(seed)
    labels = np.arange(train + 6) % 3
    pixels = rng.integers(0, 255, (train + 6, side, side, 1)).astype(np.uint8)
    return Dataset(
        name="made up",
        train_images=pixels[:train],
        train_labels=labels[:train].astype(np.int32),
        val_images=pixels[train:],
        val_labels=labels[train:].astype(np.int32),
        test_images=pixels[:0],
        test_labels=labels[:0].astype(np.int32),
        num_classes=3,
        mean=np.zeros(1, np.float32),
        std=np.ones(1, np.float32),
        class_names=("a", "b", "c"),
    )


def of(changes=None, weights="fresh", data=None):
    ctx = images.train_context(configuration(changes or {}), SPACE, data or dataset())
    return protocols.of_images(ctx, weights)


@pytest.mark.parametrize(
    "changes",
    [
        {"children.steps": 151},
        {"children.batch_size": 32},
        {"children.lr": 0.2},
        {"children.momentum": 0.8},
        {"children.weight_decay": 0.0},
        {"children.label_smoothing": 0.1},
        {"children.warmup": 0.2},
        {"task.val_fraction": 0.3},
        {"task.test_fraction": 0.3},
        {"task.split_seed": 1},
        {"task.augment.flip": True},
        {"task.metric": "macro_f1"},
        {"task.metric": "loss"},
        {"task.class_weights": "balanced"},
        {"latency.batch_size": 8},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_changes_numbers_is_another_protocol(changes):
    assert of(changes) != of()


def test_classes_judged_by_accuracy_have_the_protocol_that_they_always_had():
    """Rows of earlier versions, which knew nothing else, stay comparable."""
    found = json.loads(of({"task.metric": "accuracy"}))
    assert not {"objective", "measure", "class_weights"} & found.keys()
    assert of({"task.metric": "accuracy"}) == of()
    # An error's scale is that of the training labels: four of twelve images are of each class.
    other = json.loads(of({"task.metric": "loss"}))["measure"]
    assert other.pop("scale") == pytest.approx(np.log(3))
    assert other == {"name": "loss", "direction": "minimize", "kind": "error"}


@pytest.mark.parametrize("asks", [{"limits.latency_ms": 1.0}, {"reward.cost": "latency_ms"}])
def test_timed_latencies_are_known_by_what_is_timed(asks, monkeypatch):
    """Rows of an earlier definition are not comparable; where nothing is timed, all are."""
    assert "latency" not in json.loads(of())
    asks = asks | ({"reward.target": 1.0} if "reward.cost" in asks else {})
    found = of(asks)
    assert json.loads(found)["latency"] == {"kind": "device", "definition": 2}
    monkeypatch.setattr(protocols.whole, "DEFINITION", 3)
    assert of(asks) != found and of() == of({"seed": 3})


def test_where_weights_come_from_and_data_count():
    same = [of(weights=kind) for kind in ("fresh", "pool", "inherited")]
    same += [of(data=dataset(seed=1)), of(data=dataset(train=15)), of(data=dataset(side=5))]
    assert len(set(same)) == 6
    assert "steps" not in json.loads(of(weights="inherited"))["children"]


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 3},
        {"search.budget": 5},
        {"children.group": 1},
        {"children.backend": "reference"},
        {"children.eval_batch": 7},
        {"reward.cost": "mflops", "reward.target": 2.0, "reward.beta": -1.0},
        {"method.name": "fnas"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_does_not_change_numbers_is_the_same_protocol(changes):
    assert of(changes) == of()


def test_a_task_says_whether_children_come_from_a_pool():
    config = configuration({"akp.enabled": True})
    for enabled, weights in ((True, "pool"), (False, "fresh")):
        config.akp.enabled = enabled
        ctx = images.train_context(config, SPACE, dataset())
        evaluator = images.trained.evaluator(ctx)
        assert json.loads(evaluator.protocol)["weights"] == weights


def table(path, rows, **changes):
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["decision_0,acc,other,mflops", *rows]))
    asked = {"task.name": f"tabular/{path}", "task.metric": "acc"}
    return tabular.build(configuration(asked | changes))


def test_tables_are_known_by_metric_and_content(tmp_path):
    rows = ["0,50,40,1", "1,60,30,2"]
    one = table(tmp_path / "a" / "net.csv", rows)
    assert json.loads(one.evaluator.protocol)["metric"] == "acc"
    turned = table(tmp_path / "b" / "net.csv", rows[::-1])
    assert turned.name == one.name and turned.evaluator.protocol == one.evaluator.protocol
    named = table(tmp_path / "a" / "net.csv", rows, **{"task.noisy": False})
    assert named.evaluator.protocol == one.evaluator.protocol
    others = [
        table(tmp_path / "c" / "net.csv", ["0,50,40,1", "1,61,30,2"]),
        table(tmp_path / "d" / "net.csv", ["0,50,40,1", "1,60,30,3"]),
        table(tmp_path / "e" / "net.csv", rows, **{"task.metric": "other"}),
    ]
    assert len({task.evaluator.protocol for task in (one, *others)}) == 4
    assert {task.name for task in others} == {one.name}


def test_tables_of_no_accuracies_say_what_they_are_and_others_what_they_always_said(tmp_path):
    """By which rows of other searches are read (`sources.measure_of`)."""
    rows = ["0,50,40,1", "1,60,30,2"]
    plain = json.loads(table(tmp_path / "a" / "net.csv", rows).evaluator.protocol)
    assert plain.keys() == {"kind", "metric", "noisy", "data"}
    assert sources.measure_of(json.dumps(plain)) == Measure()
    for changes in ({"task.metric": "other"}, {"task.direction": "minimize"}):
        task = table(tmp_path / "a" / "net.csv", rows, **changes)
        assert sources.measure_of(task.evaluator.protocol) == task.measure


def test_noise_counts_where_there_are_several_readings(tmp_path):
    one = tabular.load(configuration({"task.name": f"tabular/{_csv(tmp_path)}"}))
    three = one._replace(readings=np.repeat(one.readings, 3, axis=1))
    assert protocols.of_table(one, True) == protocols.of_table(one, False)
    assert protocols.of_table(three, True) != protocols.of_table(three, False)


def _csv(folder):
    (folder / "net.csv").write_text("decision_0,acc\n0,50\n1,60\n")
    return folder / "net.csv"
