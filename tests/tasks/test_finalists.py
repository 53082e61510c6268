"""The finals: who is in them, on what terms they are read again, and what they leave alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax import finals as finals_lib
from fnas_jax.tasks import children_evaluator, data, finalists, images, inherited, trained
from fnas_jax.tasks.context import batch_of
from fnas_jax.training.child import Outcome
from tests.tasks.test_children_evaluator import KEY, SPACE, settings

DRIFT = 0.02  # by which children read better for every child before them
ARCHS = jnp.asarray(np.unique(SPACE.canonical(SPACE.sample(KEY, 64)), axis=0)[:9])


def truth(archs):
    """[N] how good they are: all different, the first of ARCHS best, by less than the drift."""
    place = jnp.all(archs[:, None] == ARCHS, axis=-1).argmax(axis=1)
    return 0.5 - 0.01 * place


def outcome(archs, learnt, fails=()):
    accuracy = truth(archs) + DRIFT * learnt
    ok = jnp.asarray([a.tolist() not in fails for a in np.asarray(archs)])
    return Outcome(jnp.where(ok, accuracy, jnp.nan), accuracy, ok)


def judge(fails, learnt, batch, key):
    """What comes late is read better, as from a pool that ripens."""
    return learnt + batch.new.sum(), outcome(batch.canonical, learnt, fails)


def context(config):
    dataset = data.load("digits")
    few = dataset._replace(
        train_images=dataset.train_images[:256, ::2, ::2],
        train_labels=dataset.train_labels[:256],
        val_images=dataset.val_images[:, ::2, ::2],
        test_images=dataset.test_images[:, ::2, ::2],
    )
    return images.train_context(config, SPACE, few)


def searched(ctx, fails=()):
    """The state after all of ARCHS were judged, in batches of three."""
    made = children_evaluator.make(ctx, functools.partial(judge, fails), lambda: jnp.int32(0))
    state = made.init()
    for i in range(0, len(ARCHS), 3):
        state, _ = made.evaluate(state, ARCHS[i : i + 3], jnp.ones(3, bool), KEY)
    return state


class Reader:
    """As `judge`, without learning; remembers what it was given."""

    def __init__(self, fails=()):
        self.fails, self.asked, self.learnt, self.keys = fails, [], [], []

    def __call__(self, learnt, batch, key):
        self.asked += np.asarray(batch.canonical)[np.asarray(batch.new)].tolist()
        self.learnt.append(int(learnt))
        self.keys.append(jax.random.key_data(key).tolist())
        return outcome(batch.canonical, learnt, self.fails)


@pytest.fixture(scope="module")
def ctx():
    return context(settings(True))


def test_where_late_children_read_better_the_finals_name_the_better_network(ctx):
    state = searched(ctx)
    first = np.asarray(state.cache.metrics.reward)[: len(ARCHS)]
    assert first.argmax() >= 6  # of the last batch, although the first of all is the best
    reader = Reader()
    held = finalists.hold(ctx, reader, state, KEY)
    assert len(held.ok) == 8 and held.ok.all()
    assert (np.diff(held.first.reward) <= 0).all()
    np.testing.assert_allclose(held.accuracy, truth(held.archs) + DRIFT * 9, rtol=1e-6)
    best = finals_lib.place(held)
    assert best > 0 and truth(held.archs)[best] == truth(held.archs).max()
    assert sorted(reader.asked) == sorted(held.archs.tolist())


def test_all_finalists_are_read_with_what_was_learnt_in_the_end_and_keys_of_their_own(ctx):
    """Eight in batches of three: as many keys as batches, whatever the batch held before."""
    reader, again = Reader(), Reader()
    held = finalists.hold(ctx, reader, searched(ctx), KEY)
    repeated = finalists.hold(ctx, again, searched(ctx), KEY)
    assert reader.learnt == [9, 9, 9]
    assert reader.keys == again.keys and len({tuple(k) for k in reader.keys}) == 3
    jax.tree.map(np.testing.assert_array_equal, held._replace(first=0), repeated._replace(first=0))
    finalists.hold(ctx, other := Reader(), searched(ctx), jax.random.key(1))
    assert not {tuple(k) for k in other.keys} & {tuple(k) for k in reader.keys}


@pytest.mark.parametrize(("wanted", "held"), [(0, None), (1, None), (2, 2), (20, 9)])
def test_the_number_of_finalists_can_be_chosen(wanted, held):
    config = settings(True)
    config.winner.finalists = wanted
    ctx = context(config)
    found = finalists.hold(ctx, Reader(), searched(ctx), KEY)
    assert found is None if held is None else len(found.ok) == held


def test_failed_children_are_no_finalists_and_failed_finalists_drop_out(ctx):
    late = ARCHS[7].tolist()
    held = finalists.hold(ctx, Reader(fails=[ARCHS[8].tolist()]), searched(ctx, [late]), KEY)
    assert late not in held.archs.tolist() and len(held.ok) == 8
    failed = held.archs.tolist().index(ARCHS[8].tolist())
    assert not held.ok[failed] and held.ok.sum() == 7
    assert held.accuracy[failed] == held.reward[failed] == 0


def test_the_reward_has_the_costs_of_the_first_reading():
    """Also a latency that was measured once: the second training changes the accuracy only."""
    config = settings(True)
    config.reward.cost, config.reward.target = "latency_ms", 1.0
    measured = iter(range(1, 10))
    ctx = context(config)._replace(latency_ms=lambda arch: float(next(measured)))
    held = finalists.hold(ctx, Reader(), searched(ctx), KEY)
    assert next(measured, None) is None  # nine children, timed once each
    np.testing.assert_allclose(held.reward, held.accuracy * held.first.latency_ms**-0.07, rtol=1e-5)


@pytest.fixture(scope="module")
def pooled():
    """An evaluator, its state after a fair round and three children, and its trainer."""
    config = settings(True)
    config.children.steps, config.akp.rounds = 20, 1
    made = trained.evaluator(context(config))
    *_, (state, _) = made.hooks.prepare(made.init(), KEY)
    archs = SPACE.canonical(SPACE.sample(jax.random.key(1), 3))
    state, _ = made.evaluate(state, archs, jnp.ones(3, bool), KEY)
    _, read = made.hooks.finals.args
    return made, state, read.args[0]


def test_finalists_are_trained_as_children_are_from_the_pool_at_the_end(pooled):
    """The readings are those of an evaluator that knows the same pool and none of the children."""
    made, state, _ = pooled
    held = made.hooks.finals(state, jax.random.key(7))
    unknown = state._replace(cache=made.init().cache)
    key = jax.random.fold_in(jax.random.key(7), 0)
    _, metrics = made.evaluate(unknown, jnp.asarray(held.archs), jnp.ones(3, bool), key)
    np.testing.assert_array_equal(held.accuracy, metrics.accuracy)
    np.testing.assert_array_equal(held.reward, metrics.reward)
    assert (held.accuracy != held.first.accuracy).any()


def test_the_pool_learns_nothing_from_finalists(pooled):
    _, state, trainer = pooled
    before = jax.tree.map(np.array, state)

    def refuse(*args):
        raise AssertionError("put into the pool")

    strict = trainer._replace(deposit=refuse)
    read = functools.partial(trained.read, strict)
    assert finalists.hold(trainer.context, read, state, KEY).ok.all()
    jax.tree.map(np.testing.assert_array_equal, state, before)
    with pytest.raises(AssertionError, match="put into the pool"):
        batch = batch_of(trainer.context, ARCHS[:3], jnp.ones(3, bool))
        trained.judge(strict, state.learnt, batch, KEY)


def test_finalists_are_judged_on_validation_and_never_on_test_images(pooled):
    made, state, trainer = pooled
    dataset, examples = trainer.context.dataset, trainer.examples
    np.testing.assert_array_equal(examples.train_images, dataset.train_images)
    np.testing.assert_array_equal(examples.train_labels, dataset.train_labels)
    np.testing.assert_array_equal(examples.eval_images, dataset.val_images)
    np.testing.assert_array_equal(examples.eval_labels, dataset.val_labels)
    wrong = trainer._replace(
        examples=examples._replace(eval_labels=(examples.eval_labels + 1) % 10)
    )
    read = functools.partial(trained.read, wrong)
    held = finalists.hold(trainer.context, read, state, KEY)
    assert (held.accuracy < made.hooks.finals(state, KEY).accuracy).all()


def test_first_readings_on_equal_terms_are_not_repeated(ctx):
    """Children of fresh weights, and those that inherit the weights of a finished network."""
    assert trained.evaluator(context(settings(False))).hooks.finals is None
    assert inherited.oneshot(ctx).evaluator.hooks.finals is None
