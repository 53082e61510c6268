"""Batches of children in parts: the numbers of a whole one, shown, and kept on the way."""

import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core import devices
from fnas_jax.core import keep as keeping
from fnas_jax.core.config import default
from fnas_jax.spaces import mnas
from fnas_jax.tasks import data, images, long_batches, population_trainer
from fnas_jax.training import parts, population, streaming
from fnas_jax.training.minibatches import Data
from tests.training.test_child import CONTEXT, toy_data
from tests.training.test_one_each import told as one_network

STEPS = 13  # epochs of 90 images have 5 of 16
SPACE = mnas.make(blocks=1, strides=(1,), width=0.5, stem=16, stem_stride=1, head=16)


class Killed(Exception):
    pass


def start(pool, arch, source):
    """What a child starts from."""
    fresh = CONTEXT.network.init(jax.random.key(0), arch)
    return fresh | {"w": fresh["w"] + pool + source}


HOW = population.Context(CONTEXT, devices.children_mesh(jax.devices()[:1]), start=start)
RUN, COMPILED = population.make(HOW), streaming.compiled(HOW)


@pytest.fixture(autouse=True)
def protocol(monkeypatch):
    monkeypatch.setattr(long_batches.protocols, "of_images", lambda ctx, weights: "images")


def batch(seed=3, pool=0.5):
    keys = jax.random.key_data(jax.random.split(jax.random.key(seed), 3))
    given = jnp.arange(3)[:, None] % 2, jnp.array([True, False, True]), keys, jnp.int32(STEPS)
    return *given, jnp.float32(pool), jnp.array([0.0, 0.1, 0.2])


def trained(keep=keeping.NOWHERE, size=100, chunk=None, given=None, compiled=COMPILED):
    """A batch of which two are to be trained, in parts of `size` steps."""
    ctx = types.SimpleNamespace(keep=keep, space=SPACE)
    examples = toy_data() if chunk is None else Data(*map(np.asarray, toy_data()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "steps_of_part", lambda *_: size)
        found = long_batches.train(ctx, HOW, compiled, chunk, examples, *(given or batch()))
    used = np.array([True, False, True])
    return jax.tree.map(lambda leaf: np.asarray(leaf)[used], jax.device_get(found))


def recording(spans):
    """The compiled steps, which write down which of them are made."""

    def advance(span, progress, children):
        spans.append((int(span.first), int(span.last)))
        return COMPILED.advance(span, progress, children)

    return COMPILED._replace(advance=advance)


def test_wherever_a_batch_is_cut_it_is_that_of_one_program():
    whole = trained()
    one = jax.tree.map(lambda leaf: np.asarray(leaf)[[0, 2]], RUN(toy_data(), *batch()))
    chex.assert_trees_all_close(whole, one, rtol=1e-5)
    for chunk in (None, 40):
        chex.assert_trees_all_equal(trained(size=1, chunk=chunk), trained(size=4, chunk=chunk))
    chex.assert_trees_all_equal(trained(size=1), whole)


@pytest.mark.parametrize("chunk", [None, 40])
def test_programs_for_each_child_give_the_same_batch_wherever_it_is_cut(chunk):
    each = streaming.compiled(HOW._replace(own=lambda arch: one_network([], arch)))
    found = trained(size=4, chunk=chunk, compiled=each)
    chex.assert_trees_all_close(found, trained(chunk=chunk), rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(found, trained(size=1, chunk=chunk, compiled=each))


@pytest.mark.parametrize("chunk", [None, 40])
def test_a_batch_that_was_killed_goes_on_where_it_was_kept(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(parts, "APART", 0)
    whole, saved = trained(chunk=chunk), []
    kept = keeping.on_disk(tmp_path, 0.0)._replace(progress=None)

    def save(name, of, step, state):
        kept.save(name, of, step, state)
        saved.append(step)
        if len(saved) == 2:
            raise Killed

    with pytest.raises(Killed):
        trained(kept._replace(save=save, seconds=0.0), 3, chunk)
    assert saved == [1, 4 if chunk is None else 2]  # chunks have two steps
    spans = []
    again = trained(kept, 3, chunk, compiled=recording(spans))
    assert spans[0][0] == saved[-1] and spans[-1][1] == STEPS
    chex.assert_trees_all_equal(again, whole)
    # Its end is kept, too, for those that come after it.
    done, spans = trained(kept._replace(seconds=0.0), 3, chunk), []
    chex.assert_trees_all_equal(trained(kept, 3, chunk, compiled=recording(spans)), done)
    assert not spans


def test_a_batch_ends_where_none_of_its_children_has_numbers(caplog):
    """Of those that are trained; one that has some is trained to its end."""
    for sources, made in (([np.nan, 0.0, np.nan], 1), ([np.nan, 0.0, 0.2], STEPS)):
        spans = []
        given = (*batch()[:-1], jnp.array(sources))
        found = trained(size=4, given=given, compiled=recording(spans))
        assert spans[-1][1] == made
        assert found.outcome.ok.tolist() == [False, made == STEPS]
    told = [r.message for r in caplog.records if "is finite" in r.message]
    assert len(told) == 1 and told[0].startswith("3 children: no number is finite after 1 of")


def test_what_is_kept_is_read_by_the_same_batch_from_the_same_pool_only(tmp_path, caplog):
    kept = keeping.on_disk(tmp_path, 0.0)._replace(progress=None)
    trained(kept._replace(seconds=0.0))
    for given, told in ((batch(seed=4), False), (batch(pool=0.6), True)):
        spans = []
        trained(kept, given=given, compiled=recording(spans))
        assert spans[0][0] == 0 and bool(caplog.records) == told
    assert "is trained from the beginning" in caplog.text
    # Another number of steps makes another protocol.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_batches.protocols, "of_images", lambda ctx, weights: "others")
        trained(kept, compiled=recording(spans))
    assert spans[-1] == (1, STEPS) and len(spans) == 4
    assert {path.name.partition("-")[0] for path in tmp_path.iterdir()} == {keeping.BATCHES}


def test_a_batch_of_seconds_is_not_shown_and_one_that_takes_longer_is(monkeypatch):
    told = []

    class Bar:
        def show(self, done, text):
            told.append((done, text))

        def close(self):
            told.append("closed")

    keep = keeping.Keep(progress=lambda *given: told.append(given) or Bar())
    trained(keep, 4)
    assert not told
    monkeypatch.setattr(streaming, "QUIET", 0.0)
    trained(keep, 4)
    text = "steps of 3 children"
    assert told == [(STEPS, 1, "3 children"), *((n, text) for n in (5, 9, 13)), "closed"]


def test_whether_batches_take_long_is_a_matter_of_what_their_children_cost():
    config = default()
    ctx = images.train_context(config, SPACE, data.load("digits"))
    assert not long_batches.are_long(ctx)
    _, macs = ctx.cost(jnp.asarray(SPACE.largest)[None])
    settings = ctx.settings
    of_step = 3 * float(macs[0]) * config.search.batch * settings.batch_size
    enough = int(60 * 2e10 / of_step)
    for steps, long in ((enough - 1, False), (enough + 2, True)):
        changed = type(settings)(**vars(settings) | {"steps": steps})
        assert long_batches.are_long(ctx._replace(settings=changed)) == long


@pytest.mark.parametrize("long", [False, True])
def test_only_batches_that_take_long_are_divided(monkeypatch, long):
    monkeypatch.setattr(long_batches, "are_long", lambda ctx: long)
    ctx = images.train_context(default(), SPACE, data.load("digits"))
    trainer = population_trainer.make(ctx, None, None)
    in_parts = getattr(trainer.population, "func", None) is long_batches.train
    assert in_parts == long
    assert isinstance(trainer.examples.train_images, jax.Array)
