"""Batches of which some children stop early: who does, what it leaves, and that it is told."""

import dataclasses
import itertools
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core import devices
from fnas_jax.core import keep as keeping
from fnas_jax.core.types import UserError
from fnas_jax.tasks import (
    halved,
    long_batches,
    population_trainer,
    protocols,
    recipe,
    trained,
    ways,
)
from fnas_jax.tasks.context import batch_of
from fnas_jax.training import halving, parts, population, streaming
from fnas_jax.training.minibatches import Data
from tests import forced
from tests.tasks.test_children_evaluator import KEY, SPACE, evaluator, settings
from tests.tasks.test_finalists import context
from tests.training.test_child import CONTEXT, toy_data
from tests.training.test_one_each import told as one_network

STEPS, AT = 16, (4, 8)  # epochs of 90 images have 5 steps of 16
STARTS = np.array([0.0, 0.5, 0.2, 1.0, 0.0, 1.5], np.float32)  # the higher, the worse
ACTIVE = np.array([True, True, True, True, False, True])
FREE = np.ones((6, 4), np.float32)
NONE = np.zeros(6, np.int32)  # rungs that children skip


def start(pool, arch, source):
    """Noise added to fresh weights, in proportion to `source`."""
    fresh = CONTEXT.network.init(jax.random.key(0), arch)
    noise = jax.random.normal(jax.random.key(1), fresh["w"].shape)
    return fresh | {"w": fresh["w"] + pool * source * noise}


def how(mesh=None, chunk=None, own=None, keep=keeping.NOWHERE, cost=False):
    settings_ = dataclasses.replace(CONTEXT.settings, steps=STEPS, halving=2, rungs=2, lr=0.003)
    ctx = CONTEXT._replace(settings=settings_)
    mesh = mesh or devices.children_mesh(jax.devices()[:1])
    given = population.Context(ctx, mesh, start=start, own=own)

    def by(accuracy, *costs):
        return accuracy * (0.1 / costs[0] if cost else 1)

    task = types.SimpleNamespace(settings=settings_, reward=by, keep=keep, space=None)
    return halved.make(task, given, chunk)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(long_batches, "are_long", lambda ctx: ctx.keep is not keeping.NOWHERE)
    monkeypatch.setattr(
        long_batches, "described", lambda ctx, given, begun, chunk: ("these", "children these")
    )


def trained_by(made, ladder=None, costs=FREE, brackets=NONE):
    """(what halving gives, who stopped)."""
    mesh = made.population.mesh
    data = toy_data() if made.chunk is None else Data(*map(np.asarray, toy_data()))
    if made.chunk is None:
        data = devices.replicate(data, mesh)
    keys = jax.random.key_data(jax.random.split(jax.random.key(3), 6))
    given = devices.shard((np.zeros((6, 1), np.int32), ACTIVE, keys), mesh)
    starts = devices.replicate(jnp.float32(1), mesh), devices.shard(STARTS, mesh)
    known = ladder or halving.empty(2, int(brackets.max()) + 1)
    by = halved.Ranked(jax.device_get(known), costs, brackets)
    return halved.train(made, by, data, *given, *starts)


def in_full(made, steps=STEPS):
    """All children after `steps` of the steps that they would make in full."""
    children = population.Child(
        jnp.zeros((6, 1), jnp.int32),
        jnp.asarray(ACTIVE),
        jax.random.split(jax.random.key(3), 6),
        jnp.asarray(STARTS),
    )
    begun = made.compiled.begin(jnp.float32(1), children)
    numbers = tuple(map(np.int32, (0, steps, 0, STEPS)))
    progress = made.compiled.advance(streaming.Span(toy_data(), *numbers), begun, children)
    return streaming.judged(made.population, made.compiled, None, toy_data(), (progress, children))


def some(tree, places):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[places], tree)


def test_who_goes_on_is_the_child_that_nobody_was_compared_with_and_others_stay_as_they_were():
    made = how()
    found, ended = trained_by(made)
    assert ended.going.tolist() == [True, False, True, False, False, False]
    came = ~np.isnan(ended.readings)
    assert came.tolist() == [[True, True]] * 3 + [[True, False], [False, False], [True, False]]
    np.testing.assert_array_equal(ended.rewards, ended.readings)
    last = np.where(ended.going, STEPS, np.where(came[:, 1], AT[1], AT[0]))
    for steps in (*AT, STEPS):
        there = in_full(made, steps)
        own = ACTIVE & (last == steps)
        assert own.any()
        chex.assert_trees_all_close(some(found, own), some(there, own), rtol=1e-5)
        if steps in AT:
            rung = AT.index(steps)
            here = came[:, rung]
            np.testing.assert_allclose(
                ended.readings[here, rung], some(there.outcome.accuracy, here), rtol=1e-6
            )


def test_earlier_children_count_and_where_all_fall_behind_all_stop():
    best = halving.empty(2)
    best = best._replace(rewards=jnp.full_like(best.rewards, 2.0))
    _, ended = trained_by(how(), best)
    assert not ended.going.any()
    assert np.isnan(ended.readings[:, 1]).all() and not np.isnan(ended.readings[ACTIVE, 0]).any()


def test_children_skip_the_rungs_of_their_bracket_and_are_compared_with_their_like(monkeypatch):
    made, brackets = how(), np.array([0, 1, 0, 1, 0, 2], np.int32)
    found, ended = trained_by(made, brackets=brackets)
    came = ~np.isnan(ended.readings)
    # The best of each bracket goes on (of each two; the fifth child is none), the last one anyway.
    assert came[:, 0].tolist() == [True, False, True, False, False, False]
    assert came[ACTIVE, 1].tolist() == [True, True, False, True, False]
    assert ended.going.tolist() == [True, True, False, False, False, True]
    last = np.where(ended.going, STEPS, np.where(brackets == 0, *AT))
    for steps in (*AT, STEPS):
        there, own = in_full(made, steps), ACTIVE & (last == steps)
        assert own.any()
        chex.assert_trees_all_close(some(found, own), some(there, own), rtol=1e-5)
    judged = []
    real = streaming.judged

    def watched(given, compiled, chunk, data, trained_ones):
        judged.append(np.asarray(trained_ones[1].active).tolist())
        return real(given, compiled, chunk, data, trained_ones)

    monkeypatch.setattr(streaming, "judged", watched)
    trained_by(made, brackets=brackets)
    assert judged[0] == [True, False, True, False, False, False]  # nobody is judged in vain
    assert judged[1] == [True, True, False, True, False, False]
    each = trained_by(how(own=lambda arch: one_network([], arch)), brackets=brackets)
    chex.assert_trees_all_close(some(each, ACTIVE), some((found, ended), ACTIVE), rtol=1e-4)
    # Where earlier children of the first bracket are better, the others do not care.
    best = halving.empty(2, 3)
    best = best._replace(rewards=best.rewards.at[:2].set(2.0))
    assert trained_by(made, best, brackets=brackets)[1].going.tolist() == [
        *(False, True, False, False, False, True)
    ]


def test_children_are_compared_by_their_reward_with_their_own_costs():
    costs = FREE.copy()
    costs[:, 0] = [8, 1, 8, 1, 8, 1]  # the good ones are the slow ones
    costs[:, 3] = [1, 2, 1, 2, 1, 2]  # prices
    _, ended = trained_by(how(cost=True), costs=costs)
    _, free = trained_by(how())
    assert free.going[[0, 2]].any() and not ended.going[[0, 2]].any()
    came = ~np.isnan(ended.rewards)
    expected = (ended.readings * (0.1 / costs[:, 0] * costs[:, 3])[:, None])[came]
    np.testing.assert_allclose(ended.rewards[came], expected, rtol=1e-6)


@pytest.mark.parametrize("chunk", [None, 40, 10])  # the last is less than a minibatch
def test_programs_for_each_child_give_the_same(chunk):
    each = trained_by(how(chunk=chunk, own=lambda arch: one_network([], arch)))
    chex.assert_trees_all_close(
        some(each, ACTIVE), some(trained_by(how(chunk=chunk)), ACTIVE), rtol=1e-4, atol=1e-6
    )


def test_a_batch_that_was_killed_goes_on_where_it_was_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "APART", 0)
    monkeypatch.setattr(parts, "steps_of_part", lambda *_: 3)
    whole = trained_by(how())
    kept, saved = keeping.on_disk(tmp_path, 0.0)._replace(progress=None, seconds=0.0), []

    class Killed(Exception):
        pass

    for number in range(1, 6):
        saves = []

        def save(name, of, step, state, number=number, saves=saves):
            kept.save(name, of, step, state)
            saves.append(step)
            if len(saves) == 2:
                raise Killed

        with pytest.raises(Killed):
            trained_by(how(keep=kept._replace(save=save)), costs=FREE * number)
        saved.append(saves)
        if saves[-1] > AT[1]:
            break
    # Here each start has measured other costs, which a batch that goes on does not take.
    # Parts end at rungs, and a start goes on where the one before was killed.
    assert {4, 8} <= {step for saves in saved for step in saves}
    assert all(a[-1] < b[0] for a, b in itertools.pairwise(saved))
    chex.assert_trees_all_equal(some(trained_by(how(keep=kept)), ACTIVE), some(whole, ACTIVE))


CODE = """
import jax, numpy as np
from fnas_jax.core import devices, keep
from fnas_jax.tasks import halved, long_batches
long_batches.are_long = lambda ctx: False
long_batches.described = lambda *given: ("", "")
from tests.tasks.test_halved import how, trained_by
one, two = (trained_by(how(devices.children_mesh(jax.devices()[:n]))) for n in (1, 2))
for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-5, atol=1e-6)
print(one[1].going.tolist())
"""


def test_two_devices_decide_as_one():
    assert "True" in forced.printed(CODE, 2)


def test_where_nobody_goes_on_no_more_steps_are_made():
    spans, made = [], how()

    def advance(span, progress, children):
        spans.append((int(span.first), int(span.last)))
        return made.compiled.advance(span, progress, children)

    best = halving.empty(2)
    best = best._replace(rewards=jnp.full_like(best.rewards, 2.0))
    trained_by(made._replace(compiled=made.compiled._replace(advance=advance)), best)
    assert spans[-1][1] == AT[0]


def halving_settings(**changes):
    config = settings(True, **changes)
    config.children.halving, config.children.steps = 2, 8
    return config


@pytest.fixture(scope="module")
def made():
    return evaluator(halving_settings())


def test_fair_rounds_and_finalists_are_trained_in_full(made, monkeypatch):
    asked = []
    train = population_trainer.train_everywhere

    def watched(trainer, children, pool, entry, by=None):
        asked.append(by is not None)
        return train(trainer, children, pool, entry, by)

    monkeypatch.setattr(population_trainer, "train_everywhere", watched)
    state = list(made.hooks.prepare(made.init(), KEY))[-1][0]
    assert asked and not any(asked)
    archs = SPACE.canonical(SPACE.sample(KEY, 3))
    state, _ = made.evaluate(state, archs, jnp.ones(3, bool), KEY)
    assert asked.pop() and not any(asked)
    made.hooks.finals(state, KEY)
    assert not any(asked)


def test_what_stopped_is_told_and_remembered(made):
    state = made.init()
    stopped, rewards = [], []
    for i in range(4):
        archs = SPACE.canonical(SPACE.sample(jax.random.key(i), 3))
        state, metrics = made.evaluate(state, archs, jnp.ones(3, bool), jax.random.key(i))
        again = made.evaluate(state, archs, jnp.ones(3, bool), KEY)[1]
        np.testing.assert_array_equal(again.stopped, metrics.stopped)
        np.testing.assert_array_equal(again.reward, metrics.reward)
        fresh = np.asarray(metrics.fresh)
        stopped += np.asarray(metrics.stopped)[fresh].tolist()
        rewards += np.asarray(metrics.reward)[fresh].tolist()
    stopped, rewards = np.array(stopped), np.array(rewards)
    assert set(stopped) <= {0, 2, 4} and (stopped > 0).any() and (stopped == 0).any()
    told = made.stats(state)
    assert int(told["stopped"]) == (stopped > 0).sum()
    assert int(told["steps_saved"]) == (8 - stopped[stopped > 0]).sum()


def test_the_pool_learns_what_children_are_and_not_what_is_expected_of_them(monkeypatch):
    ctx = context(halving_settings())
    trainer = population_trainer.make(ctx, trained.elastic_network(ctx), None)
    given = []

    def deposit(pool, batch, source, outcome, *others):
        given.append(np.asarray(outcome.accuracy))
        return pool, {}

    def everywhere(trainer, children, pool, entry, by=None):
        accuracy = np.array([0.9, 0.2, 0.3], np.float32)
        outcome = trained.Outcome(accuracy, accuracy, np.ones(3, bool))
        readings = np.array([[0.5, 0.7], [0.2, np.nan], [0.3, np.nan]], np.float32)
        going = np.array([True, False, False])
        ended = halved.Halved(going, readings, readings)
        return population.Trained(outcome, None), ended

    monkeypatch.setattr(population_trainer, "train_everywhere", everywhere)
    monkeypatch.setattr(devices, "on_first", lambda tree, mesh: tree)
    trainer = trainer._replace(
        find=lambda pool, archs: types.SimpleNamespace(entry=np.zeros(3)), deposit=deposit
    )
    archs = jnp.tile(SPACE.canonical(SPACE.sample(KEY, 1)), (3, 1))  # so that no order changes
    batch = batch_of(ctx, archs, jnp.ones(3, bool))
    _, _, outcome, ladder = population_trainer.train_population(
        trainer, jnp.zeros(1), batch, KEY, halving.empty(2)
    )
    order = np.argsort(-given[0])
    np.testing.assert_allclose(given[0][order], [0.9, 0.3, 0.2], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(outcome.accuracy)[order], [0.9, 0.7, 0.6], rtol=1e-6)
    assert np.asarray(outcome.stopped)[order].tolist() == [0, 2, 2]
    assert int(ladder.stopped) == 2


def test_rewards_at_a_rung_go_by_the_costs_of_the_very_child():
    """Whatever order children are dealt in: with a target, the dear ones fall behind."""
    config = halving_settings()
    config.akp.enabled = False
    ctx = context(config)
    batch = batch_of(ctx, SPACE.canonical(SPACE.sample(KEY, 3)), jnp.ones(3, bool))
    batch = batch._replace(latency_ms=jnp.array([3.0, 1.0, 2.0]))
    by = halved.ranked(ctx, halving.empty(2), batch, np.arange(3))
    np.testing.assert_allclose(by.costs[:, 0], [3, 1, 2])
    np.testing.assert_allclose(by.costs[:, 1], np.asarray(batch.macs) / 1e6, rtol=1e-6)
    np.testing.assert_allclose(by.costs[:, 2], np.asarray(batch.params) / 1e6, rtol=1e-6)
    trainer = population_trainer.make(ctx, trained.elastic_network(ctx), None)
    seen = []
    real = halved.train

    def train(how, by, data, archs, *others):
        seen.append((np.asarray(archs), np.asarray(by.costs)))
        return real(how, by, data, archs, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(halved, "train", train)
        population_trainer.train_population(trainer, None, batch, KEY, halving.empty(2))
    archs, costs = seen[0]
    for arch, own in zip(archs, costs, strict=True):
        place = np.all(np.asarray(batch.canonical) == arch, axis=1).argmax()
        np.testing.assert_allclose(own, np.asarray(by.costs)[place])


def test_brackets_are_dealt_by_the_key_and_stay_with_the_very_child(monkeypatch):
    config = halving_settings()
    config.akp.enabled, config.children.brackets = False, 3
    ctx = context(config)
    archs = SPACE.canonical(SPACE.sample(KEY, 3))
    batch = batch_of(ctx, archs, jnp.array([True, False, True]))
    trainer = population_trainer.make(ctx, trained.elastic_network(ctx), None)
    ladder = halved.empty(ctx)
    assert ladder.rewards.shape[0] == 3
    trained_ones, settled_ones, kept = [], [], []
    real = halved.train

    def train(how, by, data, archs, active, *others):
        trained_ones.append((np.asarray(archs), np.asarray(active), np.asarray(by.brackets)))
        return real(how, by, data, archs, active, *others)

    def settle(*given):
        settled_ones.append(np.asarray(given[-1]))
        return real_settle(*given)

    real_settle = halving.settle
    monkeypatch.setattr(halved, "train", train)
    monkeypatch.setattr(halving, "settle", settle)
    for seed in range(8):
        key = jax.random.key(seed)
        expected = halved.dealt(ctx, key, batch.new)
        assert expected[1] == 0  # it is not trained
        kept.append(expected.tolist())
        _, _, outcome, known = population_trainer.train_population(
            trainer, None, batch, key, ladder
        )
        archs, active, brackets = trained_ones[-1]
        for arch, own, bracket in zip(archs, active, brackets, strict=True):
            place = np.all(np.asarray(batch.canonical) == arch, axis=1).argmax()
            assert not own or bracket == expected[place]
        np.testing.assert_array_equal(settled_ones[-1][: len(expected)], expected)
        # A child of the last bracket makes all steps, and one alone in its bracket, too.
        assert np.asarray(outcome.stopped)[expected == 2].tolist() == [0] * (expected == 2).sum()
        compared = np.isfinite(np.asarray(known.rewards)).sum(axis=1)
        assert compared.tolist()[0] == (expected[[0, 2]] == 0).sum()
        assert compared.tolist()[2] == (expected[[0, 2]] == 1).sum()
    assert len(set(map(tuple, kept))) > 2


def test_the_brackets_of_a_batch_are_its_own_draw_on_any_number_of_devices(monkeypatch):
    config = halving_settings()
    config.akp.enabled, config.children.brackets = False, 3
    ctx = context(config)
    trainer = population_trainer.make(ctx, trained.elastic_network(ctx), None)
    batch = batch_of(ctx, SPACE.canonical(SPACE.sample(KEY, 3)), jnp.ones(3, bool))
    monkeypatch.setattr(devices, "padded_size", lambda count, mesh: 8)
    monkeypatch.setattr(devices, "balanced", lambda work, mesh: np.arange(len(work)))
    differ = 0
    for seed in range(8):
        key, ladder = jax.random.key(seed), halved.empty(ctx)
        found = population_trainer.work_of(trainer, batch, key, True, ladder).by.brackets
        own, among = jax.random.fold_in(key, 2**31), halving.shares(2, 2, 3)
        np.testing.assert_array_equal(found[:3], halving.dealt(own, batch.new, among))
        assert found.shape == (8,) and not found[3:].any()
        differ += not np.array_equal(found[:3], halving.dealt(key, batch.new, among))
    assert differ
    # Where nobody stops, nothing is dealt.
    assert not population_trainer.work_of(trainer, batch, key, True).by.brackets.any()


def test_what_earlier_children_read_counts_in_the_next_batch():
    config = halving_settings()
    config.akp.enabled = False
    ctx = context(config)
    trainer = population_trainer.make(ctx, trained.elastic_network(ctx), None)
    batch = batch_of(ctx, SPACE.canonical(SPACE.sample(KEY, 3)), jnp.ones(3, bool))
    best = halved.empty(ctx)
    best = best._replace(rewards=jnp.full_like(best.rewards, 2.0))
    _, _, outcome, _ = population_trainer.train_population(trainer, None, batch, KEY, best)
    assert np.asarray(outcome.stopped).tolist() == [2, 2, 2]


@pytest.mark.parametrize(("eta", "steps"), [(1, 8), (2, 1)])
def test_where_nobody_could_stop_it_is_told(eta, steps):
    config = halving_settings()
    config.children.halving, config.children.steps = eta, steps
    with pytest.raises(
        UserError, match=rf"halving={eta} and children.steps={steps} there .* 2 to 16"
    ):
        halved.rungs(context(config))


def test_children_that_are_trained_at_once_cannot_stop_before_others():
    config = halving_settings()
    config.children.group = 2
    ctx = context(config)
    with pytest.raises(UserError, match=r"children.group is 2, .*halving=2.* allowed are 0 and 1"):
        ways.way_of(ctx, devices.children_mesh(jax.devices()[:1]))


def test_numbers_of_searches_that_stop_children_are_comparable_with_their_like_only():
    plain, other = context(settings(True)), context(halving_settings())
    other = other._replace(settings=dataclasses.replace(other.settings, steps=plain.settings.steps))
    text = protocols.of_images(plain, "pool")
    assert "halving" not in text and "rungs" not in text
    assert '"halving":2' in protocols.of_images(other, "pool").replace(" ", "")
    assert protocols.of_images(other, "inherited") == protocols.of_images(plain, "inherited")
    for count in (2, 3):
        changed = dataclasses.replace(other.settings, brackets=count, steps=8)
        text = protocols.of_images(other._replace(settings=changed), "pool").replace(" ", "")
        assert f'"brackets":{count}' in text
    several = other._replace(settings=dataclasses.replace(other.settings, brackets=3, steps=8))
    assert "brackets" not in protocols.of_images(other, "pool")
    assert '"brackets":3' in protocols.of_images(several, "pool").replace(" ", "")
    more = several._replace(settings=dataclasses.replace(several.settings, brackets=9))
    assert protocols.of_images(more, "pool") == protocols.of_images(several, "pool")
    assert protocols.of_images(several, "inherited") == protocols.of_images(plain, "inherited")


def test_by_default_nobody_stops():
    ctx = context(settings(True))
    assert halved.rungs(ctx) == ()
    assert population_trainer.make(ctx, trained.elastic_network(ctx), None).halved is None


def test_nothing_of_it_is_in_what_is_said_of_a_winner():
    """Whose training nobody stops; and a kept one goes on whatever the children do."""
    ctx = context(halving_settings())
    said = recipe.described(ctx, "fresh", 9, recipe.of(ctx))
    plain = context(settings(True))
    assert said == recipe.described(plain, "fresh", 9, recipe.of(plain))
    assert not {"halving", "rungs", "brackets"} & set(said)
