"""Full trainings in parts: shown and kept on the way, and the same after any interruption."""

import io

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core import keep as keeping
from fnas_jax.core.config import default
from fnas_jax.core.progress import Progress
from fnas_jax.spaces import mnas
from fnas_jax.tasks import data, entrants, images
from fnas_jax.tasks.entrants import Entrant, Examples
from fnas_jax.training import parallel
from fnas_jax.training.minibatches import Data
from tests.training.test_child import toy_data
from tests.training.test_parallel import KEY, mesh_of, toy_context

STEPS = 40
SPACE = mnas.make(blocks=1, strides=(1,), width=0.5, stem=16, stem_stride=1, head=16)


@pytest.fixture(scope="module")
def run():
    own, compiled = parallel.make(toy_context(ema=0.9), mesh_of(1))
    return entrants.Run(own, compiled, parallel.place(own, toy_data(), None), KEY, STEPS, None)


@pytest.fixture
def short_parts(monkeypatch):
    """Parts of three steps, each of which may be kept."""
    monkeypatch.setattr(entrants.parts, "APART", 0)
    monkeypatch.setattr(entrants.parts, "steps_of_part", lambda size, seconds: 3)


class Killed(Exception):
    pass


def counted(run, spans):
    """`run` that writes down which steps it makes."""

    def advance(images, key, progress, span, arch):
        spans.append((int(span.first), int(span.last)))
        return run.compiled.advance(images, key, progress, span, arch)

    return run._replace(compiled=run.compiled._replace(advance=advance))


@pytest.mark.parametrize("survives", [1, 3, 12])
def test_a_training_that_was_killed_goes_on_where_it_was_kept(run, tmp_path, short_parts, survives):
    whole = entrants.tested(run, "winner", "it", keeping.Keep())
    kept, saved = keeping.on_disk(tmp_path, 0.0), []

    def save(name, of, step, state):
        kept.save(name, of, step, state)
        saved.append(step)
        if len(saved) == survives:
            raise Killed

    with pytest.raises(Killed):
        entrants.tested(run, "winner", "it", kept._replace(save=save, seconds=0.0))
    spans = []
    again = entrants.tested(counted(run, spans), "winner", "it", kept)
    assert spans[0][0] == saved[-1] > 0 and spans[-1][1] == STEPS
    chex.assert_trees_all_equal(again.trained, whole.trained)
    timeless = [one.facts | {"seconds": 0} for one in (again, whole)]
    assert timeless[0] == timeless[1] and timeless[0]["steps"] == STEPS


def test_a_training_whose_numbers_are_none_ends_there_and_has_failed(run, short_parts, caplog):
    spoilt = run.data._replace(train_images=run.data.train_images * np.nan)
    spans = []
    found = entrants.tested(
        counted(run._replace(data=spoilt), spans), "winner", "it", keeping.NOWHERE
    )
    assert spans == [(0, 1)]
    assert "winner: no number is finite after 1 of 40 steps" in caplog.text
    assert found.facts["accuracy"] is None and found.facts["loss"] is None
    assert not found.trained.outcome.ok


def test_the_time_of_earlier_starts_counts(run, tmp_path, short_parts):
    kept = keeping.on_disk(tmp_path, 0.0)
    first = entrants.Kept(9, 1000.0, run.compiled.begin(KEY))
    kept.save("winner", "it", 9, first)
    assert entrants.tested(run, "winner", "it", kept).facts["seconds"] > 1000


def test_it_is_kept_as_seldom_as_told_and_in_the_end(run, monkeypatch, short_parts):
    clock, saved = iter(range(1000)), []
    monkeypatch.setattr(entrants.time, "monotonic", lambda: float(next(clock)))
    first = [entrants.Kept(0, 0.0, run.compiled.begin(KEY)) for _ in range(2)]
    keep = keeping.Keep(save=lambda name, of, step, state: saved.append(step), seconds=9.5)
    entrants.trained(run, "winner", "it", first[0], keep)
    # Two readings a part, of one step at first and then of three: one in five parts is kept.
    assert saved[-1] == STEPS and 3 <= len(saved) <= 4
    assert np.diff(saved[:-1]).min() >= 12
    saved.clear()
    monkeypatch.setattr(entrants.parts, "APART", 40)  # writing takes one reading
    entrants.trained(run, "winner", "it", first[1], keep)
    assert len(saved) == 2 and saved[-1] == STEPS


def test_it_is_shown_how_far_a_training_is(run, short_parts):
    stream, bars = io.StringIO(), []

    def progress(*args):
        bars.append(args)
        return Progress(*args, stream=stream)

    entrants.tested(run, "winner", "it", keeping.Keep(progress=progress))
    assert bars == [(STEPS, 1, "winner")]
    first, *_, last = stream.getvalue().splitlines()
    assert first.startswith("4/40 steps of winner, loss ") and first.endswith(" left")
    assert last.startswith("40/40 steps of winner, loss ") and "left" not in last


def test_parts_take_about_two_seconds_and_grow_slowly():
    assert entrants.parts.steps_of_part(1, 0.001) == 8
    assert entrants.parts.steps_of_part(1000, 0.001) == 2000
    assert entrants.parts.steps_of_part(8, 30.0) == 1
    assert entrants.parts.steps_of_part(8, 0.0) == 64


def test_what_a_training_is_of_says_all_that_its_numbers_depend_on():
    config, dataset = default(), data.load("digits")
    ctx = images.train_context(config, SPACE, dataset)
    one = Entrant("winner", {"arch": [0] * 7}, None)
    examples = Examples(Data(*(np.zeros(4),) * 4), "test")

    def of(ctx=ctx, entrant=one, examples=examples, key=KEY, chunk=None, **winner):
        changed = config.copy_and_resolve_references()
        changed.winner.update(winner)
        return entrants.described(ctx._replace(config=changed), entrant, examples, key, chunk)

    others = [
        of(entrant=one._replace(of={"arch": [1] * 7})),
        of(examples=examples._replace(judges="validation")),
        of(key=jax.random.key(6)),
        of(chunk=100),
        of(steps=7),
        of(mixup=0.5),
        of(smoothing=0.1),
        of(ctx=ctx._replace(space=mnas.make(blocks=1, strides=(2,), stem=16))),
        of(ctx=ctx._replace(dataset=dataset._replace(train_labels=dataset.train_labels[::-1]))),
    ]
    assert len({of(), *others}) == 1 + len(others)
    assert of() == of(entrant=one._replace(name="another name", network=jnp))


def test_entrants_are_trained_in_turn_each_with_what_is_kept_of_it(monkeypatch):
    """The wiring: images are placed once, recipe and steps are those of the configuration."""
    config = default()
    config.winner.steps, config.winner.mixup, config.children.device_images = 5, 0.25, 64
    ctx = images.train_context(config, SPACE, data.load("digits"))
    seen, placed = [], []

    def tested(run, name, of, keep):
        seen.append((name, run.steps, run.context.child.recipe.mixup, run.chunk, keep, of))
        placed.append(run.data)
        return name

    monkeypatch.setattr(entrants, "tested", tested)
    parts = (ctx.dataset.train_images, ctx.dataset.train_labels) * 2
    jobs = [Entrant(name, {"arch": [i]}, None) for i, name in enumerate("ab")]
    keep = keeping.Keep()
    trained = entrants.train(ctx, jobs, Examples(Data(*parts), "test"), KEY, keep)
    assert next(trained) == "a" and len(seen) == 1
    assert list(trained) == ["b"]
    assert [one[:5] for one in seen] == [(name, 5, 0.25, 64, keep) for name in "ab"]
    assert seen[0][5] != seen[1][5] and placed[0] is placed[1]
