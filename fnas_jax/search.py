"""The search: a method asks, a task answers, the method is told; everything learnt is kept.

An iteration ends in this order: its evaluations are committed to the history, its line is written
to the metrics, its checkpoint is taken (iterations of a moment share one). A killed run resumes at
the newest checkpoint and first drops what history and metrics hold beyond it. Random keys are
functions of the seed and of the number of the iteration. So a killed and resumed run does exactly
what an undisturbed one does.
"""

from __future__ import annotations

import contextlib
import math
import pathlib
import tempfile
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from fnas_jax import iteration
from fnas_jax.core import checkpoint, devices, hosts, workdir
from fnas_jax.core import config as config_lib
from fnas_jax.core.clock import Clock
from fnas_jax.core.logging import MetricLog, Progress, write_json
from fnas_jax.core.types import UserError
from fnas_jax.iteration import COUNTS, FIGURES, FINAL, PREPARE, State
from fnas_jax.knowledge import history
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.methods.base import SearchMethod
from fnas_jax.registry import Builder, build_all
from fnas_jax.tasks.base import Evaluator, Task


class Parts(NamedTuple):
    """What a run works with."""

    config: ml_collections.ConfigDict
    folder: pathlib.Path
    task: Task
    method: SearchMethod
    evaluator: Evaluator
    knowledge: Knowledge
    clock: Clock
    run: workdir.Run


def run(
    config: ml_collections.ConfigDict, folder: str | pathlib.Path, builder: Builder = build_all
) -> dict[str, Any]:
    """Searches as `config` says, or goes on with the search in `folder`; returns result.json.

    Raises UserError for wrong input, before anything is trained.
    """
    config = config_lib.validate(config)
    if not hosts.is_first():
        return _serve(config, builder)
    with workdir.opened(folder, config) as path, contextlib.closing(Clock()) as clock:
        done = (path / "result.json").exists()
        hosts.broadcast(np.bool_(done))
        if done:
            return workdir.read_json(path / "result.json")
        devices.enable_compilation_cache(config.jax.cache_dir)
        identity = workdir.identify(path)
        with _opened_knowledge(config, path, identity) as knowledge:
            parts = builder(config, knowledge)
            workdir.start(path, config, identity)
            result = _search(Parts(config, path, *parts, knowledge, clock, identity))
            hosts.broadcast_command(0)
            return result


def _serve(config: ml_collections.ConfigDict, builder: Builder) -> dict[str, Any]:
    """Trains children for the first host until it is done; leaves no files."""
    if hosts.broadcast(np.bool_(False)):
        return {}
    devices.enable_compilation_cache(config.jax.cache_dir)
    with tempfile.TemporaryDirectory() as folder:
        run = workdir.Run("0" * 32, 0)
        own = config.copy_and_resolve_references()
        own.knowledge.dir = folder  # what is known comes from the first host with the work
        with _opened_knowledge(own, pathlib.Path(folder), run) as knowledge:
            evaluator = builder(config, knowledge)[2]
            if evaluator.hooks.worker_loop is None:
                hosts.broadcast_command()
            else:
                evaluator.hooks.worker_loop()
    return {}


def _search(parts: Parts) -> dict[str, Any]:
    """Resumes or starts, iterates until the budget is spent, and judges the winner."""
    config, folder, clock = parts.config, parts.folder, parts.clock
    key = jax.random.key(config.seed)
    versions = workdir.versions()
    hooks = parts.evaluator.hooks
    trains = parts.task.trains and hooks.load_weights is None
    steps = config.children.steps if trains else 0
    origin = history.Run(
        parts.run.id, parts.task.space.name, parts.task.name, steps, config.seed, versions
    )
    with contextlib.ExitStack() as stack:
        manager = stack.enter_context(checkpoint.open_(folder / "checkpoints"))
        decisions = len(parts.task.space.cardinalities)
        state = iteration.initial(parts.method, parts.evaluator, decisions, key)
        restored = checkpoint.restore(manager, state)
        if restored is not None:
            state = restored[1]
            clock.resume(state.seconds)
        history.trim(parts.knowledge.history, parts.run.id, state.iteration)
        if parts.task.statistics:
            history.record_task(parts.knowledge.history, parts.task.name, parts.task.statistics)
        if parts.task.sample_images is not None:
            history.record_images(
                parts.knowledge.history, parts.task.name, parts.task.sample_images
            )
        log = MetricLog(folder, state.step, config.log.tensorboard)
        stack.callback(log.close)
        progress = Progress(config.search.budget, state.counts["trained"], config.method.name)
        stack.callback(progress.close)

        due = -math.inf  # when the next checkpoint is to be taken

        def keep(state: State, last: bool = False) -> State:
            nonlocal due
            state = state._replace(step=state.step + 1, seconds=clock.seconds())
            start = time.monotonic()
            if last or start >= due:
                if hooks.sync is not None:
                    state = state._replace(evaluator=hooks.sync(state.evaluator))
                checkpoint.save(manager, state.step, state)
                # Large states take long to write: at most a tenth of the time is spent so.
                now = time.monotonic()
                due = now + max(config.log.checkpoint_seconds, 9 * (now - start))
            return state

        stages = {"evaluator": hooks.prepare, "method": parts.method.prepare}
        for number, (owner, prepare) in enumerate(stages.items(), start=1):
            if prepare is None or state.prepared >= number:
                continue
            # The owner's state says how far it is: from a restored one, `prepare` goes on.
            stage = prepare(getattr(state, owner), jax.random.fold_in(key, PREPARE))
            part = "children" if owner == "evaluator" else "method"
            while True:
                with clock.part(part):
                    item = next(stage, None)
                if item is None:
                    break
                metrics = jax.device_get(item[1])
                text = metrics.pop("text", "")
                log.write(state.step, {"stage": "prepare", **metrics})
                progress.say(f"preparing: step {state.step + 1}{text}")
                children = state.counts["prepared"] + metrics.get("children", 0)
                counts = state.counts | {"prepared": children}
                state = keep(state._replace(counts=counts, **{owner: item[0]}))
            if owner == "method" and hooks.load_weights is not None:
                known = hooks.load_weights(state.evaluator, state.method)
                state = state._replace(evaluator=known)
            state = keep(state._replace(prepared=number), last=True)

        steps = iteration.compiled(parts.method, parts.evaluator)
        while not _done(parts, state):
            number = state.iteration
            state, rows, scalars = iteration.iterate(steps, state, key, clock)
            history.record(parts.knowledge.history, origin, number, rows)
            last = _done(parts, state)
            if state.iteration % config.log.every == 0 or last:
                spent = {f"seconds/{name}": value for name, value in clock.seconds().items()}
                log.write(state.step, scalars | spent)
                progress.show(state.counts["trained"], iteration.line(scalars))
            state = keep(state, last)

        winner = None
        if state.best_arch[0] >= 0:
            progress.say("search done; judging the best architecture")
            with clock.part("children"):
                best_arch = jnp.asarray(state.best_arch)
                winner = parts.task.final(best_arch, jax.random.fold_in(key, FINAL))
                if hooks.finalize is not None:
                    key_finish = jax.random.fold_in(key, FINAL)
                    winner |= hooks.finalize(state.evaluator, best_arch, key_finish)
    write_json(folder / "result.json", _result(parts, state, winner, versions))
    return workdir.read_json(folder / "result.json")


def _done(parts: Parts, state: State) -> bool:
    """The budget is spent, the method says so, or all that it proposes has long been known."""
    search, counts = parts.config.search, state.counts
    limit = search.max_proposals or 20 * search.budget
    if counts["trained"] >= search.budget or counts["proposed"] >= limit:
        return True
    return parts.method.done is not None and bool(parts.method.done(state.method))


def _result(
    parts: Parts,
    state: State,
    winner: dict[str, Any] | None,
    versions: dict[str, str],
) -> dict[str, Any]:
    best = None
    if winner is not None:
        best = {
            "arch": state.best_arch,
            "description": parts.task.space.describe(state.best_arch),
            **dict(zip(FIGURES, state.best, strict=True)),
        }
    counts = {name: state.counts[name] for name in COUNTS}
    return {
        "best": best,
        "winner": winner,
        "counts": counts,
        "iterations": state.iteration,
        "seconds": parts.clock.seconds(),
        "method": parts.config.method.name,
        "space": parts.task.space.name,
        "task": parts.task.name,
        "seed": parts.config.seed,
        "versions": versions,
        "resumed": parts.run.starts,
    }


@contextlib.contextmanager
def _opened_knowledge(
    config: ml_collections.ConfigDict, folder: pathlib.Path, run: workdir.Run
) -> Iterator[Knowledge]:
    place = pathlib.Path(config.knowledge.dir or folder / "knowledge").expanduser()
    try:
        connection = history.open_(place)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"knowledge folder {str(place)!r} cannot be used: {reason}") from None
    with contextlib.closing(connection):
        yield Knowledge(connection, run.began, place / "pool", run.id)
