"""Full trainings, one network after another, each by all devices and in parts of some seconds.

Between two parts it is shown how far the training is, and kept (`core.keep`), so that one that was
killed goes on from there. Where it is cut changes no number.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from fnas_jax.core import devices, identity
from fnas_jax.core.keep import Keep
from fnas_jax.core.types import Array
from fnas_jax.layers import choose
from fnas_jax.layers.ops import Params
from fnas_jax.networks.base import Network
from fnas_jax.tasks import protocols, ways
from fnas_jax.tasks import recipe as recipes
from fnas_jax.tasks.context import TrainContext
from fnas_jax.training import child, parallel, parts, streaming
from fnas_jax.training.child import Progress
from fnas_jax.training.minibatches import Data
from fnas_jax.training.parallel import Compiled, Trained
from fnas_jax.training.parts import Kept

LOG = logging.getLogger(__name__)
LOG.setLevel(logging.INFO)
TIMED_SECONDS = 1.0  # of steps, to know how long one takes
LEAST_STEPS = 50  # of a training for which there is no time
_lost = jax.jit(child.lost)


class Entrant(NamedTuple):
    """A network that is trained fully."""

    name: str  # e.g. "winner"; no other of a run is called so
    of: dict[str, Any]  # all that tells it from others of the space; JSON-ready
    network: Network


class Examples(NamedTuple):
    """What entrants are trained on and judged by."""

    data: Data  # of the host
    judges: str  # "test" or "validation": which images judge


class Tested(NamedTuple):
    """An entrant after its training."""

    facts: dict[str, Any]  # "accuracy", "loss", "steps", "seconds"; JSON-ready
    trained: Trained


def train(
    ctx: TrainContext, entrants: list[Entrant], examples: Examples, key: Array, keep: Keep
) -> Iterator[Tested]:
    """Each of the entrants after `winner.steps` steps, in turn.

    Or after fewer, where `keep.left` seconds do not suffice for those.
    """
    size, count = ctx.settings.batch_size, len(examples.data.train_labels)
    mesh = parallel.mesh_of(size, count)
    parallel.tell(mesh, size, count)
    chunk = at_once(ctx, mesh)
    placed = None
    for waiting, entrant in zip(range(len(entrants), 0, -1), entrants, strict=True):
        how = recipes.settings(ctx), recipes.pipeline(ctx)
        trainee = child.Context(entrant.network, *how, ctx.objective, recipes.of(ctx))
        own, compiled = parallel.make(trainee, mesh)
        placed = parallel.place(own, examples.data, chunk) if placed is None else placed
        run = Run(own, compiled, placed, key, ctx.config.winner.steps, chunk)
        of = described(ctx, entrant, examples, key, chunk)
        if keep.left is not None:
            run = run._replace(steps=steps_for(run, entrant.name, of, keep, waiting))
        yield tested(run, entrant.name, f"{of} {run.steps}", keep)


def at_once(ctx: TrainContext, mesh: Mesh) -> int | None:
    """How many images are on each of the devices at a time, which is told; None: all."""
    chunk = ways.images_at_once(ctx.settings.device_images, ctx.dataset, mesh)
    if chunk is None:
        return None
    chunk = max(chunk, ctx.settings.batch_size)
    LOG.info("images come to the devices %d at a time", chunk)
    return chunk


class Run(NamedTuple):
    """The training of one network; nothing that changes."""

    context: parallel.Context
    compiled: Compiled
    data: Data  # of `parallel.place`
    key: Array
    steps: int
    chunk: int | None  # images that are on the devices at a time; None: all
    start: Params | None = None  # parameters that it starts from; None: fresh ones
    arch: Array | np.ndarray = parallel.NO_ARCH  # [T] of a network for several


def described(
    ctx: TrainContext, entrant: Entrant, examples: Examples, key: Array, chunk: int | None
) -> str:
    """What a training is of: equal texts, equal numbers at every step on as many devices."""
    settings = dataclasses.asdict(recipes.settings(ctx))
    # The order of the vector of parameters is the backend's.
    settings["backend"] = choose.candidates(ctx.settings.backend)[0]
    for name in protocols.HALVING:  # no winner stops
        del settings[name]
    return identity.text(
        {
            "network": entrant.of,
            "space": ctx.space.key,
            "children": protocols.of_images(ctx, "fresh"),
            "settings": {name: n for name, n in settings.items() if name != "steps"},
            "recipe": dataclasses.asdict(recipes.of(ctx)),
            "judges": examples.judges,
            "images": [len(examples.data.train_labels), len(examples.data.eval_labels)],
            "chunk": chunk,
            "most_steps": ctx.config.winner.steps,
            "key": np.asarray(jax.random.key_data(key)).tolist(),
        }
    )


def steps_for(run: Run, name: str, of: str, keep: Keep, waiting: int) -> int:
    """Steps of a training that has one part in `waiting` of the seconds that `keep` has left.

    Chosen once: a training that was killed goes on with the same number.
    """
    known = keep.load(f"steps of {name}", of, {"steps": np.zeros((), np.int32)})
    chosen = int(known["steps"])
    if not chosen:
        assert keep.left is not None
        began = keep.left()
        step = seconds_of_step(run)
        # The evaluation, on one device, is done here and once more where the network is kept.
        images = len(run.data.eval_labels) / run.context.child.settings.batch_size
        judged = 2 * images / 3 * step * run.context.mesh.size
        compiled = 2 * max(began - keep.left(), 0.0)
        chosen = int((keep.left() / waiting - judged - compiled) / step)
        chosen = min(max(chosen, LEAST_STEPS), run.steps)
        LOG.info("%s: %d steps, of %.3g s each, are what the time suffices for", name, chosen, step)
        keep.save(f"steps of {name}", of, 0, {"steps": np.asarray(chosen, np.int32)})
    return chosen


def spans(run: Run, done: int = 0) -> Iterator[tuple[Data, int, int]]:
    """Those of the training, without what is `done`."""
    how = run.context.child.settings, run.context.mesh
    return streaming.spans(*how, run.data, run.steps, run.chunk, done)


def seconds_of_step(run: Run) -> float:
    """How long a step of a training takes, by some that are thrown away."""
    key = devices.replicate(run.key, run.context.mesh)
    begun = run.compiled.begin(run.key, run.start, run.arch)
    progress = devices.replicate(begun, run.context.mesh)
    data, _, last = next(iter(spans(run)))
    size, compiled = 1, False
    while True:
        start = time.monotonic()
        span = parallel.span(run.context, 0, size, run.steps, 0)
        progress = run.compiled.advance(data, key, progress, span, run.arch)
        jax.block_until_ready(progress)
        seconds = time.monotonic() - start
        if compiled and (seconds >= TIMED_SECONDS or 2 * size > last):
            return max(seconds, 1e-6) / size
        size, compiled = 2 * size if compiled else size, True


def tested(run: Run, name: str, of: str, keep: Keep) -> Tested:
    """A network after its training, from where `keep` has it."""
    began = time.monotonic()
    first = Kept(0, 0.0, run.compiled.begin(run.key, run.start, run.arch))
    kept = keep.load(name, of, first)
    progress = trained(run, name, of, kept, keep)
    found = parallel.judged(run.context, run.compiled, run.data, progress, run.chunk, run.arch)
    outcome = jax.device_get(found.outcome)
    ok = bool(outcome.ok)
    facts = {
        "accuracy": float(outcome.accuracy) if ok else None,
        "loss": float(outcome.loss) if ok else None,
        "metrics": {n: float(x) for n, x in (outcome.figures or {}).items()} if ok else None,
        "steps": run.steps,
        "seconds": kept.seconds + time.monotonic() - began,
    }
    return Tested(facts, found)


def trained(run: Run, name: str, of: str, kept: Kept, keep: Keep) -> Progress:
    """The network after its last step, on all devices. Overwrites the progress of `kept`."""
    mesh, key = run.context.mesh, devices.replicate(run.key, run.context.mesh)

    def advance(data: Data, progress: Progress, done: int, upto: int, first: int) -> Progress:
        span = parallel.span(run.context, done, upto, run.steps, first)
        return run.compiled.advance(data, key, progress, span, run.arch)

    training = parts.Training(name, of, name, run.steps, advance, text=mean_loss, lost=lost)
    start = kept._replace(progress=devices.replicate(kept.progress, mesh))
    left = spans(run, kept.step)
    return parts.run(training, start, left, keep)


def lost(progress: Progress) -> bool:
    """Whether nothing will come of a training (`child.lost`); all devices have the same numbers."""
    return bool(_lost(progress.vector.addressable_data(0)))


def mean_loss(progress: Progress, count: int) -> str:
    """Of the last `count` steps, as it is shown."""
    assert progress.loss is not None
    return f", loss {float(progress.loss) / count:.4f}"
