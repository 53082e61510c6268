"""What is known before training: whose numbers it is, on which scale, and that methods get it."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax import registry
from fnas_jax.core import config as config_lib
from fnas_jax.core.sections import Features as Chosen
from fnas_jax.core.types import Features, UserError
from fnas_jax.knowledge import store
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.methods.baselines import random
from fnas_jax.networks.cost import cost
from fnas_jax.spaces import categorical, cell, mnas
from fnas_jax.tasks import features, table_features, table_index, tables
from fnas_jax.tasks.base import Task
from fnas_jax.tasks.function import from_function
from fnas_jax.tasks.latency import Source

ROWS = [(a, b, c) for a in range(3) for b in range(3) for c in range(2)]


def write(path, costs=("mflops",), rows=ROWS, unknown=()):
    """A table of three decisions, whose first cost grows with the first two."""
    header = ",".join(["decision_a", "decision_b", "decision_c", "accuracy", *costs])
    lines = [header]
    for i, (a, b, c) in enumerate(rows):
        price = "" if i in unknown else str(10 * 2**a * 3**b)
        lines.append(
            ",".join(
                [str(a), str(b), str(c), f"{0.1 * (a + b) + 0.01 * c:.3f}"] + [price] * len(costs)
            )
        )
    path.write_text("\n".join(lines) + "\n")
    return path


def configured(task, **changed):
    flat = {name.replace("__", "."): value for name, value in changed.items()}
    flat = config_lib.flatten(config_lib.default()) | {"task.name": task} | flat
    return config_lib.validate(config_lib.nest(flat))


def of_table(path, **changed):
    return registry.build_task(configured(f"tabular/{path}", **changed)).features()


def test_columns_of_costs_are_logarithms_on_one_scale(tmp_path):
    known = of_table(write(tmp_path / "net.csv"))
    assert known.names == ("mflops",)
    found = np.asarray(known.of(jnp.asarray(ROWS)))[:, 0]
    logs = np.log([10 * 2**a * 3**b for a, b, _ in ROWS])
    # Over the space, drawn at random: mean and deviation are those of 2,048 draws.
    np.testing.assert_allclose(found, (logs - logs.mean()) / logs.std(), atol=0.1)
    assert np.corrcoef(found, logs)[0, 1] == pytest.approx(1, abs=1e-6)


def test_an_unknown_cost_is_the_mean_one(tmp_path):
    known = of_table(write(tmp_path / "net.csv", unknown=(0, 17)))
    found = np.asarray(known.of(jnp.asarray(ROWS)))[:, 0]
    assert found[0] == found[17] == 0 and np.isfinite(found).all()
    assert np.unique(found[1:17]).size > 4


@pytest.mark.parametrize(("unknown", "there"), [(8, True), (14, False)])
def test_a_number_is_one_deviation_over_all_networks_or_left_out(unknown, there, tmp_path, caplog):
    caplog.set_level("INFO")
    known = of_table(write(tmp_path / "net.csv", unknown=tuple(range(unknown))))
    assert (known is not None) == there
    share = "mflops is known of 5" if there else "mflops is known of 2"
    assert share in caplog.text and ("methods do not go by" in caplog.text) != there
    if there:
        found = np.asarray(known.of(jnp.asarray(ROWS)))[:, 0]
        assert found.std() == pytest.approx(1, abs=0.1) and found.mean() == pytest.approx(
            0, abs=0.2
        )


def test_nothing_is_further_away_than_some_deviations():
    space = categorical.make((500,))
    part = features.logarithms(("x",), lambda a: [jnp.where(a[:, 0] == 0, 1e30, 1.0 + a[:, 0] % 2)])
    known = features.standard(space, [part], {})
    found = np.asarray(known.of(jnp.arange(500)[:, None]))
    assert found.max() == features.FURTHEST and np.unique(found).size == 3


@pytest.mark.parametrize("metric", ["latency_ms", "accuracy"])
def test_what_is_searched_for_is_never_known(metric, tmp_path, caplog):
    path = write(tmp_path / "net.csv", costs=("latency_ms", "mflops"))
    direction = "minimize" if metric == "latency_ms" else "maximize"
    config = configured(f"tabular/{path}", task__metric=metric, task__direction=direction)
    task = registry.build_task(config)
    others = ("mflops",) if metric == "latency_ms" else ("latency_ms", "mflops")
    assert task.features().names == others
    assert ("latency_ms counts as known before" in caplog.text) == (len(others) == 2)


WRONG = {
    "no Features": (lambda: np.zeros(3), "its features are ndarray"),
    "another shape": (
        lambda: Features(("a", "b"), lambda a: jnp.zeros((len(a), 1)), "{}"),
        r"have the shape \(2048, 1\); with 2 names it must be \(2048, 2\)",
    ),
    "raw numbers": (
        lambda: Features(("macs",), lambda a: 1e8 + a[:, :1].astype(jnp.float32), "{}"),
        "its feature 'macs' must be finite, with mean 0 and deviation 1",
    ),
    "NaN": (
        lambda: Features(("macs",), lambda a: jnp.full((len(a), 1), jnp.nan), "{}"),
        "its feature 'macs' must be finite",
    ),
    "numpy": (
        lambda: Features(("macs",), lambda a: np.asarray(a)[:, :1] * 1.0, "{}"),
        "task.name is 'mine', which raised TracerArrayConversionError",
    ),
    "no names": (lambda: Features((), lambda a: a[:, :0], "{}"), "must have names"),
    "no identity": (lambda: Features(("a",), lambda a: a[:, :1], None), "a text as their identity"),
    "an exception": (lambda: 1 / 0, "task.name is 'mine', which raised .*division by zero"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_a_task_of_the_users_own_says_is_looked_at(wrong):
    made, sentence = WRONG[wrong]
    task = Task("mine", categorical.make((3, 4)), None, None, features=made)
    with pytest.raises(UserError, match=sentence):
        registry.informed(task, "gp", own=True)
    assert registry.informed(task, "random").features is None


def test_a_task_of_the_users_own_is_believed_where_it_is_right():
    known = Features(("x",), lambda a: (a[:, :1] - 1.0) / (2 / 3) ** 0.5, "{}")
    task = Task("mine", categorical.make((3, 4)), None, None, features=lambda: known)
    assert registry.informed(task, "my.module:build", own=True).features is known


def test_a_function_has_the_structure_of_a_space_with_networks():
    space = mnas.make(blocks=1, strides=(1,))
    task = from_function(space, lambda network: 0.5)(config_lib.default())
    assert "kernel" in task.features().names and "macs" not in task.features().names
    assert from_function(categorical.make((2, 2)), len)(config_lib.default()).features() is None


def test_a_table_with_gaps_is_measured_on_its_rows(tmp_path):
    rows = [row for row in ROWS if row[0] < 2]
    known = of_table(write(tmp_path / "net.csv", rows=[*rows, (2, 2, 1)]))
    logs = np.log([10 * 2**a * 3**b for a, b, _ in [*rows, (2, 2, 1)]])
    found = np.asarray(known.of(jnp.asarray([*rows, (2, 2, 1)])))[:, 0]
    np.testing.assert_allclose(found, (logs - logs.mean()) / logs.std(), atol=0.15)
    assert np.asarray(known.of(jnp.asarray([[2, 0, 0]])))[0, 0] == 0  # no row


@pytest.mark.parametrize("changed", [{"features__costs": False}, {"without": True}])
def test_without_costs_nothing_is_known_of_such_a_table(changed, tmp_path):
    costs = () if changed.pop("without", False) else ("mflops",)
    assert of_table(write(tmp_path / "net.csv", costs), **changed) is None


def test_numbers_that_are_the_same_for_all_are_left_out():
    space = categorical.make((2, 3))
    parts = [
        features.logarithms(("same", "grows"), lambda a: [jnp.full(len(a), 7.0), 1.0 + a[:, 1]])
    ]
    known = features.standard(space, parts, {})
    assert known.names == ("grows",)
    nothing = [features.logarithms(("same",), lambda a: [jnp.full(len(a), 7.0)])]
    assert features.standard(space, nothing, {}) is None


def test_a_published_table_without_costs_has_those_of_its_networks():
    """As NATS-Bench: convolutions of CIFAR's images."""
    space = cell.make()
    archs = np.asarray(space.canonical(space.sample(jax.random.key(1), 300)))
    nothing = np.full(len(archs), np.nan, np.float32)
    judged = np.zeros(len(archs), np.float32)
    table = tables.Table("x", space, archs, judged, judged[:, None], *[nothing] * 3, note="")
    known = table_features.of(Chosen(), table, table_index.of(table), None)
    assert {"params", "macs", "nor_conv_3x3", "longest_path"} <= set(known.names)
    found = np.asarray(known.of(jnp.asarray(archs)))
    of_networks = np.log(np.asarray(cost(space, (32, 32, 3), 10)(jnp.asarray(archs)), np.float64))
    for i, name in enumerate(("params", "macs")):
        mine = found[:, known.names.index(name)]
        assert np.corrcoef(mine, of_networks[i])[0, 1] == pytest.approx(1, abs=1e-5)
    assert np.abs(found.mean(0)).max() < 0.25 and np.abs(found.std(0) - 1).max() < 0.25


@pytest.fixture(scope="module")
def digits():
    config = configured("images/digits", space__blocks=2, space__strides=(1, 2))
    return registry.build_task(config)


def test_images_have_costs_by_formula_and_the_structure(digits):
    known = registry.informed(digits, "fnas").features
    assert known.names[-2:] == ("params", "macs") and "kernel" in known.names
    archs = digits.space.canonical(digits.space.sample(jax.random.key(2), 100))
    found = np.asarray(jax.jit(known.of)(archs))
    of_networks = cost(digits.space, digits.dataset.image_shape, digits.dataset.num_classes)
    for i, exact in enumerate(of_networks(archs)):
        mine = found[:, i - 2]
        assert np.corrcoef(mine, np.log(np.asarray(exact, float)))[0, 1] > 1 - 1e-5
    assert digits.space.features is None  # the task's own space stays what it is
    assert registry.informed(digits, "fnas").identity == digits.space.identity


def test_a_flag_each():
    space = mnas.make(blocks=1, strides=(1,))
    costs = features.logarithms(("params", "macs"), cost(space, (8, 8, 1), 10))
    both = features.of(Chosen(), space, costs, {})
    structure = features.of(Chosen(costs=False), space, costs, {})
    alone = features.of(Chosen(structure=False), space, costs, {})
    assert structure.names + alone.names == both.names and alone.names == ("params", "macs")
    assert features.of(Chosen(False, False), space, costs, {}) is None
    assert len({known.identity for known in (both, structure, alone)}) == 3
    other = features.of(Chosen(), space, costs, {"image": [16, 16, 1]})
    assert other.identity != both.identity


ON_TABLES = set(registry.METHODS) - set(registry.ONE_SHOT) - set(registry.EARLY)


@pytest.mark.parametrize("name", sorted(ON_TABLES))
def test_methods_that_predict_are_told_and_others_are_not(name, tmp_path, monkeypatch):
    given = []

    def build(config, space, task, knowledge):
        given.append((space, task))
        return random.make(space, batch=2)

    monkeypatch.setattr(importlib.import_module(registry.METHODS[name]), "build", build)
    config = configured(f"tabular/{write(tmp_path / 'net.csv')}", method__name=name)
    with store.tentative(tmp_path / "knowledge") as known:
        registry.build_all(config, Knowledge(known))
    ((space, task),) = given
    assert (space.features is not None) == (name in registry.PREDICT)
    assert task.space.features is None and space.identity == task.space.identity


def test_latencies_of_a_table_are_known_and_measured_ones_are_not():
    space = mnas.make(blocks=1, strides=(1,))
    slow = Source("table:x", predict=lambda archs: 1.0 + archs.sum(1), identity={"digest": "x"})
    known = features.of_networks(Chosen(structure=False), space, (8, 8, 1), 10, slow)
    assert known.names == ("params", "macs", "latency_ms")
    archs = space.canonical(space.sample(jax.random.key(4), 50))
    logs = np.log(1.0 + np.asarray(archs).sum(1))
    assert np.corrcoef(np.asarray(known.of(archs))[:, 2], logs)[0, 1] == pytest.approx(1, abs=1e-4)
    here = features.of_networks(Chosen(structure=False), space, (8, 8, 1), 10)
    assert here.names == ("params", "macs") and here.identity != known.identity


def named_like_ours(config, space, knowledge):
    """A task of the user's own, whose name says nothing of that."""
    made = from_function(categorical.make((3, 4)), len)(config)
    return made._replace(name="images/mine", features=lambda: np.zeros(3))


def silent(config, space, knowledge):
    """A task of the user's own of which nothing is known."""
    return from_function(categorical.make((3, 4)), len)(config)


def test_proxies_that_a_task_of_the_users_own_does_not_have_are_told(tmp_path, caplog):
    name = "python:tests.tasks.test_features:silent"
    config = configured(name, method__name="gp", features__proxies=True)
    with store.tentative(tmp_path) as known:
        registry.build_all(config, Knowledge(known))
    assert f"the task {name}, your own, has no zero-cost proxies" in caplog.text


def test_a_task_of_the_users_own_is_looked_at_whatever_its_name(tmp_path):
    name = "python:tests.tasks.test_features:named_like_ours"
    config = configured(name, method__name="gp")
    with store.tentative(tmp_path) as known, pytest.raises(UserError, match="ndarray"):
        registry.build_all(config, Knowledge(known))
