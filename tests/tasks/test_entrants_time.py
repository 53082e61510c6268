"""Where time decides, a training has the steps that fit, and keeps their number when it goes on."""

import jax
import numpy as np
import pytest

from fnas_jax import loop, retrain
from fnas_jax.core import keep as keeping
from fnas_jax.core.config import default
from fnas_jax.tasks import data, entrants, images
from fnas_jax.tasks.entrants import Entrant, Examples
from fnas_jax.training import parallel
from fnas_jax.training.minibatches import Data
from tests.tasks.test_entrants import KEY, SPACE
from tests.training.test_child import toy_data
from tests.training.test_parallel import mesh_of, toy_context


@pytest.fixture(scope="module")
def run():
    own, compiled = parallel.make(toy_context(), mesh_of(1))
    return entrants.Run(own, compiled, parallel.place(own, toy_data(), None), KEY, 10**6, None)


@pytest.fixture
def a_step_takes_a_second(monkeypatch):
    monkeypatch.setattr(entrants, "seconds_of_step", lambda run: 1.0)


def judged_steps(run):
    """Evaluation in steps' worth: a third of the work, here and where the network is kept."""
    return 2 * len(run.data.eval_labels) / run.context.child.settings.batch_size / 3


@pytest.mark.parametrize(("left", "waiting"), [(1000.0, 1), (1000.0, 2), (4000.0, 1)])
def test_steps_are_those_that_fit(run, a_step_takes_a_second, left, waiting):
    keep = keeping.Keep(left=lambda: left)
    steps = entrants.steps_for(run, "winner", "it", keep, waiting)
    assert steps == int(left / waiting - judged_steps(run))


def test_no_more_than_are_wanted_and_never_none(run, a_step_takes_a_second):
    forever, late = (keeping.Keep(left=lambda left=left: left) for left in (1e9, -100.0))
    assert entrants.steps_for(run, "winner", "it", forever, 1) == run.steps
    assert entrants.steps_for(run, "winner", "it", late, 1) == entrants.LEAST_STEPS


def test_the_number_is_chosen_once(run, a_step_takes_a_second, tmp_path):
    kept = keeping.on_disk(tmp_path, 0.0)
    first, later = (kept._replace(left=lambda left=left: left) for left in (1000.0, 200.0))
    steps = entrants.steps_for(run, "winner", "it", first, 1)
    assert entrants.steps_for(run, "winner", "it", later, 1) == steps
    assert entrants.steps_for(run, "winner", "another", later, 1) < steps


def test_a_step_is_timed_without_its_compilation(run, monkeypatch):
    """On a clock where compiling takes 100 seconds, and a step 0.01."""
    now = [0.0]

    def advance(images, key, progress, span, arch):
        now[0] += 0.01 * int(span.last - span.first) + (100.0 if not calls else 0.0)
        calls.append(int(span.last - span.first))
        return progress

    calls = []
    monkeypatch.setattr(entrants.time, "monotonic", lambda: now[0])
    timed = run._replace(compiled=run.compiled._replace(advance=advance))
    assert entrants.seconds_of_step(timed) == pytest.approx(0.01)
    assert calls[0] == 1 and calls[-1] == 128  # the first that takes a second


def test_trainings_share_what_is_left(monkeypatch):
    config = default()
    ctx = images.train_context(config, SPACE, data.load("digits"))
    seen = []

    def steps_for(run, name, of, keep, waiting):
        seen.append((name, waiting, run.steps))
        return 70 + waiting

    monkeypatch.setattr(entrants, "steps_for", steps_for)
    monkeypatch.setattr(entrants, "tested", lambda run, name, of, keep: run.steps)
    parts = (ctx.dataset.train_images, ctx.dataset.train_labels) * 2
    jobs = [Entrant(name, {"arch": [i]}, None) for i, name in enumerate("ab")]
    examples = Examples(Data(*parts), "test")
    timed = keeping.Keep(left=lambda: 5.0)
    assert list(entrants.train(ctx, jobs, examples, KEY, timed)) == [72, 71]
    assert seen == [("a", 2, config.winner.steps), ("b", 1, config.winner.steps)]
    free = entrants.train(ctx, jobs, examples, KEY, keeping.Keep())
    assert list(free) == [config.winner.steps] * 2


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_loop_says_what_is_left(tmp_path, monkeypatch, share):
    config = default()
    config.search.seconds, config.search.winner_share = 100.0, share
    given = []

    class Clock:
        def part(self, name):
            return loop.contextlib.nullcontext()

        def seconds(self):
            return {"total": 30.0}

    class Evaluator:
        class hooks:  # noqa: N801
            finalize = None

    class Task:
        keeps = True

        def final(self, arch, key, keep):
            given.append(keep.left)

    class Bar:
        def say(self, line):
            pass

    state = loop.State(*[None] * len(loop.State._fields))._replace(best_arch=np.zeros(3, np.int32))
    ctx = loop.Context(config, tmp_path, Task(), None, Evaluator, None, Clock(), None)
    loop.judge_winner(ctx, Bar(), state, jax.random.key(0))
    (left,) = given
    assert left is None if not share else left() == 70.0


def test_training_again_takes_as_many_steps():
    config, result = default(), {"winner": {"steps": 777}}
    assert retrain.as_trained(config, result).winner.steps == config.winner.steps
    config.search.winner_share = 0.5
    assert retrain.as_trained(config, result).winner.steps == 777
    assert retrain.as_trained(config, {"winner": None}).winner.steps == config.winner.steps
