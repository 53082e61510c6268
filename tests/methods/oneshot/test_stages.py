"""The training stage: cut anywhere, reported by parts, and shared by devices."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from fnas_jax.core import devices
from fnas_jax.core.types import Failed
from fnas_jax.methods.oneshot import stages, supernet
from fnas_jax.methods.oneshot.stages import Tally
from fnas_jax.methods.oneshot.supernet import Weights
from fnas_jax.methods.pgnas import method as pgnas
from fnas_jax.methods.pgnas import posterior
from fnas_jax.methods.pgnas import step as steps
from fnas_jax.methods.spos import method as spos
from fnas_jax.training import parts
from fnas_jax.training.minibatches import Data
from tests import forced
from tests.methods.pgnas import toy

Q = posterior.make((3, 2))
FEATURES, TARGETS = map(jnp.asarray, toy.regression((3, 2), 12))
DATA = Data(FEATURES, TARGETS, FEATURES, TARGETS)
DECAY = 0.1
KEY = jax.random.key(3)


class State(NamedTuple):
    """Of a supernet that only learns weights."""

    weights: Weights
    tally: Tally


class Count(NamedTuple):
    """Of a training that only counts its steps."""

    done: Any
    tally: Tally


def make(mesh=None, batch_size=4, **options):
    """(stage, first state) of a supernet on the toy regression."""
    net = toy.make(Q, toy.squared_error, steps=20)._replace(axis=stages.axis_of(mesh))

    def step(state, images, labels, key):
        arch = jax.random.randint(key, (2, 2), 0, jnp.asarray([3, 2]))
        z = toy.to_switches(Q, arch)
        given = (net, state.weights, arch, z, images, labels, DECAY)
        moved, output = supernet.train_step(*given, **options)
        return state._replace(weights=moved), {"nll": output.nll.mean()}

    start = net.start({"w": jnp.linspace(-1, 1, 6).reshape(2, 3)})
    done = lambda state: state.weights.step // (1 if options.get("average") else 2)  # noqa: E731
    stage = stages.Stage(step, done, toy.PIPELINE, batch_size, mesh)
    return stage, State(start, stages.nothing(("nll",)))


def test_a_training_cut_anywhere_goes_on_as_if_it_had_not_been():
    stage, first = make()
    seen = []

    def step(state, images, labels, key):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), images.sum((1, 2)), ordered=True)
        return stage.step(state, images, labels, key)

    run = stages.compiled(stage._replace(step=step))
    whole, tally = run(first, first.tally, KEY, DATA, jnp.int32(7))
    seen.clear()
    part, sums = first, first.tally
    for count in (1, 1, 1, 2, 2):
        part, sums = run(part, sums, KEY, DATA, jnp.int32(count))
    chex.assert_trees_all_equal((whole, tally), (part, sums))
    assert sums.steps == 7
    jax.effects_barrier()
    # The three minibatches of the first epoch hold every example once.
    every = np.sort(np.concatenate(seen[:3]))
    np.testing.assert_allclose(every, np.sort(FEATURES.sum((1, 2))), rtol=1e-5)


def counting():
    def step(state, images, labels, key):
        return state._replace(done=state.done + 1), {"number": state.done.astype(jnp.float32)}

    return stages.Stage(step, lambda state: state.done, toy.PIPELINE, 4)


def test_a_stage_is_reported_by_parts_and_goes_on_where_it_is(monkeypatch):
    """Every three of seven steps, from the second on."""
    monkeypatch.setattr(parts, "steps_of_part", lambda size, seconds: 9)
    prepare = stages.prepare(counting(), lambda state, means: means, DATA, total=7, every=3)

    def reports(start):
        found = prepare(start, jax.random.key(0))
        return [(int(s.done), float(r["number"])) for s, r in found if "number" in r]

    nothing = stages.nothing(("number",))
    assert reports(Count(jnp.int32(2), nothing)) == [(5, 3.0), (7, 5.5)]
    assert reports(Count(jnp.int32(7), nothing)) == []
    # From the middle of a part: of the steps 3 and 4 it knows the sum.
    middle = Tally(jnp.int32(2), {"number": jnp.float32(7.0)})
    assert reports(Count(jnp.int32(5), middle)) == [(6, 4.0), (7, 6.0)]


def test_a_supernet_whose_loss_is_no_number_ends_the_stage_in_a_sentence(monkeypatch):
    """In the middle of what is reported, too."""
    monkeypatch.setattr(parts, "steps_of_part", lambda size, seconds: 2)

    def step(state, images, labels, key):
        loss = jnp.where(state.done < 3, 1.0, jnp.nan)
        return state._replace(done=state.done + 1), {"nll": loss}

    stage = stages.Stage(step, lambda state: state.done, toy.PIPELINE, 4)
    prepare = stages.prepare(stage, lambda state, means: means, DATA, total=90, every=50)
    handed = []
    with pytest.raises(Failed, match="its loss is not finite after 5 of 90 steps"):
        for state, _ in prepare(Count(jnp.int32(0), stages.nothing(("nll",))), KEY):
            handed.append(int(state.done))
    assert handed == [1, 3]  # no state without numbers is kept


def test_a_stage_is_settled_once_after_its_last_step(monkeypatch):
    monkeypatch.setattr(parts, "steps_of_part", lambda size, seconds: 2)
    settled = counting()._replace(settle=lambda state: state._replace(done=state.done + 100))
    prepare = stages.prepare(settled, lambda state, means: means, DATA, total=7, every=4)
    start = Count(jnp.int32(1), stages.nothing(("number",)))
    done = [int(state.done) for state, _ in prepare(start, jax.random.key(0))]
    assert done[-1] == 107 and max(done[:-1]) < 7


@pytest.mark.parametrize("module", [spos, pgnas], ids=["spos", "pgnas"])
def test_what_is_trained_keeps_no_momentum(module):
    vector = jnp.arange(3.0)
    moving = Weights(vector, (jnp.ones(3), {"more": jnp.ones(2)}), jnp.int32(7))
    blank = lambda kind: kind(*[None] * len(kind._fields))  # noqa: E731
    if module is spos:
        got = spos.settle(blank(spos.State)._replace(weights=moving)).weights
    else:
        learnt = blank(steps.Learnt)._replace(weights=moving)
        got = pgnas.settle(blank(pgnas.State)._replace(learnt=learnt)).learnt.weights
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(got.momentum))
    np.testing.assert_array_equal(got.vector, vector)


@pytest.mark.parametrize("size", [1, 2])
def test_where_reports_are_far_apart_states_in_between_are_handed_over(monkeypatch, size):
    """Each of them goes on to the same reports and the same end."""
    stage, first = make()

    def run(start):
        told = stages.prepare(stage, lambda state, means: means, DATA, total=7, every=5)
        return list(told(start, KEY))

    monkeypatch.setattr(parts, "steps_of_part", lambda size, seconds: 9)
    whole = [item for item in run(first) if "nll" in item[1]]
    monkeypatch.setattr(parts, "steps_of_part", lambda _, seconds: size)
    cut = run(first)
    between = [i for i, (_, told) in enumerate(cut) if list(told) == ["steps"]]
    assert len(whole) == 2 and len(cut) - len(between) == 2 and len(between) >= 2
    assert cut[between[0]][1]["steps"] == (1, 7)
    chex.assert_trees_all_equal([item for item in cut if "nll" in item[1]], whole)
    for i in between:
        left = [item for item in run(cut[i][0]) if "nll" in item[1]]
        chex.assert_trees_all_equal(left, whole[-len(left) :])
        assert len(left) == sum("nll" in told for _, told in cut[i:])


def by_hand(average: bool) -> np.ndarray:
    """The weights after one step by the means of both halves of the minibatch."""
    _, state = make(average=average)
    key_order, _, key_step = jax.random.split(KEY, 3)
    rows = np.asarray(jax.random.permutation(jax.random.fold_in(key_order, 0), 12)[:4])
    archs = jax.random.randint(jax.random.fold_in(key_step, 0), (2, 2), 0, jnp.asarray([3, 2]))
    net, weights = toy.make(Q, toy.squared_error, steps=20), state.weights
    gradients = []
    for arch in archs:
        z = toy.to_switches(Q, arch)

        def loss(vector, part, z=z, arch=arch):
            nll = toy.squared_error(net.params(vector), arch, z, FEATURES[part], TARGETS[part])
            return nll + DECAY / 2 * ((z.reshape(-1) * vector) ** 2).sum()

        own = [jax.grad(loss)(weights.vector, part) for part in (rows[:2], rows[2:])]
        gradients.append((own[0] + own[1]) / 2)
        if not average:
            weights = net.update(weights, gradients[-1])
    return (net.update(weights, sum(gradients) / 2) if average else weights).vector


def check_two_devices() -> None:
    """What two devices do, for the test below."""
    mesh = Mesh(np.asarray(jax.devices()), (devices.BATCH,))
    for average in (False, True):
        stage, first = make(mesh, average=average)
        told = stages.prepare(stage, lambda state, means: means, DATA, total=1, every=1)
        ((state, _),) = told(first, KEY)
        np.testing.assert_allclose(state.weights.vector, by_hand(average), rtol=1e-5, atol=1e-6)
        assert len(state.weights.vector.devices()) == 1  # the search goes on there
    parts.steps_of_part = lambda size, seconds: 2
    told = stages.prepare(stage, lambda state, means: means, DATA, total=7, every=4)
    whole = list(told(first, KEY))
    assert [float(r["nll"]) > 0 for _, r in whole if "nll" in r] == [True, True]
    for i, (state, _) in enumerate(whole[:-1]):
        as_read = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), state)
        left = list(told(as_read, KEY))
        chex.assert_trees_all_equal(left[-1], whole[-1])
        assert len(left) <= len(whole) - i


def test_two_devices_make_the_steps_of_the_mean_over_their_halves():
    forced.printed("from tests.methods.oneshot import test_stages as t; t.check_two_devices()", 2)
