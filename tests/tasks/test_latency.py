"""`latency.source`: what children, limits, rewards, winners and protocols make of it."""

import functools
import json
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax import registry
from fnas_jax.core import config as config_lib
from fnas_jax.core import devices
from fnas_jax.core.types import UserError
from fnas_jax.ship import card
from fnas_jax.spaces import cell
from fnas_jax.tasks import cheapest, children_evaluator, data, images, latency, protocols, winner
from fnas_jax.timing import lookup, units
from fnas_jax.timing import table as tables
from fnas_jax.training.child import Outcome

SPACE = cell.make(channels=4, cells_per_stage=1)
KEY = jax.random.key(0)
FIXED = 0.25
ARCHS = SPACE.canonical(SPACE.sample(jax.random.key(4), 6))
EVERYONE = jnp.ones(6, bool)


@pytest.fixture(scope="module")
def dataset():
    return data.load("digits")


def write_table(path, dataset, scale=1.0, **changes):
    """A table of drawn numbers; returns the name of the source."""
    found = lookup.of_space(SPACE, dataset.image_shape, dataset.num_classes)
    drawn = scale * np.random.default_rng(0).uniform(0.1, 1, len(found))
    here = tables.here(SPACE, dataset.image_shape, dataset.num_classes, 1) | changes
    rows = {unit.key: float(ms) for unit, ms in zip(found, drawn, strict=True)}
    tables.write(
        path, tables.Table(**here, fixed_ms=FIXED, operations_ms=rows, made={}, validation={})
    )
    return f"table:{path}"


def by_hand(source, dataset, archs):
    rows = tables.read(source.removeprefix("table:")).operations_ms
    shape, classes = dataset.image_shape, dataset.num_classes
    return [
        FIXED + sum(rows[u.key] for u in units.of_network(SPACE, np.asarray(a), shape, classes))
        for a in archs
    ]


@pytest.fixture(scope="module")
def source(tmp_path_factory, dataset):
    return write_table(tmp_path_factory.mktemp("table") / "t.json", dataset)


def context(dataset, **changes):
    own = {"akp.enabled": False, "winner.steps": 0, "task.name": "images/digits"}
    flat = config_lib.flatten(config_lib.default()) | own | changes
    return images.train_context(config_lib.validate(config_lib.nest(flat)), SPACE, dataset)


def everyone_is_half_right(learnt, batch, key):
    one = jnp.ones(len(batch.new))
    return learnt, Outcome(0.5 * one, one, one > 0)


def evaluated(ctx, archs=ARCHS, mask=EVERYONE):
    judges = children_evaluator.make(ctx, everyone_is_half_right, lambda: jnp.zeros(()))
    return judges.evaluate(judges.init(), archs, mask, KEY)[1]


def test_every_child_has_the_latency_of_the_table_whatever_the_reward(dataset, source):
    expected = by_hand(source, dataset, ARCHS)
    found = evaluated(context(dataset, **{"latency.source": source}))
    np.testing.assert_allclose(found.latency_ms, expected, rtol=1e-5)
    np.testing.assert_array_equal(found.accuracy, found.reward)
    mask = jnp.asarray([False, True, False, True, False, False])
    some = evaluated(context(dataset, **{"latency.source": source}), mask=mask)
    np.testing.assert_allclose(some.latency_ms[mask], np.asarray(expected)[mask], rtol=1e-5)
    assert np.isnan(some.latency_ms[~mask]).all()


def test_this_device_is_asked_only_where_reward_or_limit_needs_it(dataset, monkeypatch):
    timed = []
    monkeypatch.setattr(images, "latency_ms", lambda *args: timed.append(args) or 2.0)
    assert np.isnan(evaluated(context(dataset)).latency_ms).all() and not timed
    reward = {"reward.cost": "latency_ms", "reward.target": 1.0}
    assert (evaluated(context(dataset, **reward)).latency_ms == 2).all() and timed


@pytest.mark.parametrize("name", ["device", "python:tests.tasks.test_latency:constant"])
def test_nobody_waits_for_the_latency_of_what_another_limit_refuses(name, dataset, monkeypatch):
    timed = []
    monkeypatch.setattr(images, "latency_ms", lambda *args: timed.append(args[-1]) or 2.0)
    mflops = np.asarray(context(dataset).cost(ARCHS)[1]) / 1e6
    limit = float(np.median(mflops))
    kept = mflops <= limit
    options = {"limits.mflops": limit, "limits.latency_ms": 100.0, "latency.source": name}
    ASKED.clear()
    found = evaluated(context(dataset, **options))
    np.testing.assert_array_equal(found.fresh, kept)
    np.testing.assert_array_equal(np.isfinite(found.latency_ms), kept)
    asked = timed if name == "device" else [told["arch"] for told in ASKED]
    assert len(asked) == kept.sum() and 0 < kept.sum() < 6
    ASKED.clear()
    none = evaluated(context(dataset, **options | {"limits.mflops": 1e-6}))
    assert not none.fresh.any() and not ASKED


def test_the_table_decides_rewards_and_limits_and_nothing_is_timed(dataset, source, monkeypatch):
    monkeypatch.setattr(images, "latency_ms", lambda *args: pytest.fail("it was timed"))
    expected = np.asarray(by_hand(source, dataset, ARCHS))
    named = {"latency.source": source}
    reward = {"reward.cost": "latency_ms", "reward.target": 1.0, "reward.beta": -1.0}
    found = evaluated(context(dataset, **named, **reward))
    factor = np.where(expected <= 1, expected**-0.07, expected**-1.0)
    np.testing.assert_allclose(found.reward, 0.5 * factor, rtol=1e-4)
    limit = float(np.median(expected))
    found = evaluated(context(dataset, **named, **{"limits.latency_ms": limit}))
    np.testing.assert_array_equal(found.fresh, expected <= limit)


def test_methods_are_told_what_the_table_forbids(dataset, source):
    ctx = context(dataset, **{"latency.source": source})
    everything = SPACE.sample(jax.random.key(9), 200)
    expected = np.asarray(by_hand(source, dataset, SPACE.canonical(everything)))
    limit = float(np.median(expected))
    build = functools.partial(images.build, space=SPACE)
    options = {"latency.source": source, "limits.latency_ms": limit}
    task = build(context(dataset, **options).config)
    np.testing.assert_array_equal(jax.jit(task.allowed)(everything), expected <= limit)
    assert not task.refuses and build(ctx.config).allowed is None


def test_another_table_gives_other_latencies_and_another_protocol(dataset, source, tmp_path):
    other = write_table(tmp_path / "t.json", dataset, scale=3.0)
    first, second, timed = (
        context(dataset, **{"latency.source": name}) for name in (source, other, "device")
    )
    a, b = (np.asarray(evaluated(ctx).latency_ms) - FIXED for ctx in (first, second))
    np.testing.assert_allclose(3 * a, b, rtol=1e-4)
    texts = [protocols.of_images(ctx, "fresh") for ctx in (first, second, timed)]
    assert len(set(texts)) == 3 and "latency" not in json.loads(texts[2])


def test_a_limit_that_nothing_keeps_is_told_with_the_fastest_of_all(dataset, source, monkeypatch):
    monkeypatch.setattr(images, "latency_ms", lambda *args: pytest.fail("it was timed"))
    ctx = context(dataset, **{"latency.source": source, "limits.latency_ms": 0.01})
    everything = np.asarray(np.meshgrid(*[range(5)] * 6)).reshape(6, -1).T
    least = float(ctx.latency.of(jnp.asarray(everything, jnp.int32)).min())
    with pytest.raises(UserError, match=f"the cheapest network known has {least:.4g} "):
        cheapest.check(ctx)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tabel:x.json", "'tabel:x.json'; allowed are device, table:FILE and python:MODULE"),
        ("table:", "cannot be read"),
        ("python:nothing", "allowed are device, table:FILE and python:MODULE"),
        ("python:no.such:f", "no.such cannot be imported"),
        ("python:tests.tasks.test_latency:FIXED", "a float, which cannot be called"),
        ("python:tests.tasks.test_latency:constan", "has no 'constan'; did you mean 'constant'"),
    ],
)
def test_a_source_that_is_none_is_one_sentence(name, message, dataset):
    with pytest.raises(UserError, match=message):
        context(dataset, **{"latency.source": name})


def test_a_table_for_other_batches_is_refused(dataset, source):
    with pytest.raises(UserError, match="is for other images of a pass"):
        context(dataset, **{"latency.source": source, "latency.batch_size": 4})


def test_a_task_without_networks_has_no_use_for_it(tmp_path):
    path = tmp_path / "net.csv"
    path.write_text("decision_0,acc\n0,50\n1,60\n")
    config = config_lib.default()
    config.task.name, config.latency.source = f"tabular/{path}", "table:x"
    with pytest.raises(UserError, match="trains no networks whose latency it could say"):
        registry.build_task(config)


ASKED = []


def constant(network):
    ASKED.append(network)
    return {"conv": 2, "cell": 1}[network["layers"][1]["op"]] + len(network["arch"])


def wrong(answer, network):
    return answer


def failing(network):
    raise RuntimeError("no phone")


zero, text = functools.partial(wrong, 0), functools.partial(wrong, "fast")


def test_a_function_of_the_users_own_is_told_the_network(dataset):
    ASKED.clear()
    name = "python:tests.tasks.test_latency:constant"
    ctx = context(dataset, **{"latency.source": name})
    mask = jnp.asarray([False, True, False, True, False, False])
    found = evaluated(ctx, mask=mask)
    assert found.latency_ms[mask].tolist() == [7, 7] and len(ASKED) == 2
    assert np.isnan(found.latency_ms[~mask]).all()
    told = ASKED[0]
    assert told["arch"] == ARCHS[1].tolist() and told["text"] == SPACE.describe(ARCHS[1])["text"]
    assert told["image"] == [8, 8, 1] and told["classes"] == 10 and told["space"] == "cell"
    assert json.loads(json.dumps(told)) == told
    digests = {protocols.of_images(c, "fresh") for c in (ctx, context(dataset))}
    assert len(digests) == 2


class Phone:
    """A model of a phone."""

    def __init__(self, ms, lock=None):
        self.ms, self.lock = ms, lock

    def __call__(self, network):
        return self.ms


model = Phone(2.0)


def test_two_models_of_one_name_are_two(dataset, monkeypatch):
    """A callable object is known by its class's text and by what it holds."""
    name = "python:tests.tasks.test_latency:model"
    texts = [protocols.of_images(context(dataset, **{"latency.source": name}), "fresh")]
    for other in (Phone(2.0), Phone(3.0), functools.partial(wrong, 2.0)):
        monkeypatch.setattr(sys.modules[__name__], "model", other)
        ctx = context(dataset, **{"latency.source": name})
        texts.append(protocols.of_images(ctx, "fresh"))
        assert (
            evaluated(ctx).latency_ms == (2 if other.__class__ is not Phone else other.ms)
        ).all()
    assert texts[0] == texts[1] and len(set(texts)) == 3
    monkeypatch.setattr(sys.modules[__name__], "model", Phone(2.0, threading.Lock()))
    with pytest.raises(UserError, match=r"^latency.source is '.*:model': a _thread:lock cannot be"):
        context(dataset, **{"latency.source": name})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("failing", "RuntimeError: no phone"),
        ("zero", "returned 0 for .*; a number of milliseconds above 0 is needed"),
        ("text", "returned 'fast' for"),
    ],
)
def test_a_function_that_gives_no_latency_is_one_sentence(name, message, dataset):
    ctx = context(dataset, **{"latency.source": f"python:tests.tasks.test_latency:{name}"})
    with pytest.raises(UserError, match=message):
        evaluated(ctx)


def test_the_winner_is_timed_here_and_its_predicted_latency_stands_beside(dataset, source):
    ctx = context(dataset, **{"latency.source": source})._replace(latency_ms=lambda arch: 7.0)
    facts = winner.final(ctx, ARCHS[0], KEY).facts
    (expected,) = by_hand(source, dataset, ARCHS[:1])
    assert facts["latency_ms"] == 7
    predicted = facts["latency_by_source"]
    assert predicted == {
        "source": "table",
        "device": devices.describe(),
        "ms": pytest.approx(expected, rel=1e-5),
    }
    row = card._by_source(predicted)[0]
    assert row == (f"latency by a table of {devices.describe()}", f"{expected:.3g} ms")
    alone = context(dataset)._replace(latency_ms=lambda arch: 7.0)
    assert "latency_by_source" not in winner.final(alone, ARCHS[0], KEY).facts


@pytest.mark.parametrize("here", [True, False])
def test_a_winner_above_the_limit_at_the_end_is_said(dataset, tmp_path, caplog, here):
    """Unless the limit is about another device."""
    device = {} if here else {"device": "phone"}
    name = write_table(tmp_path / "t.json", dataset, **device)
    options = {"latency.source": name, "limits.latency_ms": 100.0}
    for ms, said in ((101.0, here), (99.0, False)):
        caplog.clear()
        ctx = context(dataset, **options)._replace(latency_ms=lambda arch, ms=ms: ms)
        winner.final(ctx, ARCHS[0], KEY)
        assert ("the winner takes 101 ms on this device now" in caplog.text) == said


def test_the_defaults_of_the_context_and_of_the_configuration_are_one():
    assert latency.Source().name == config_lib.default().latency.source == latency.DEVICE
