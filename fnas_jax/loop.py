"""The search: a method asks, a task answers, the method is told; everything learnt is kept.

When the budget is spent, finals and the winner's training follow (`finals.py`, `Task.final`),
functions of the last checkpoint. A killed run repeats the finals, and goes on with the training
where it was kept (`core.keep`).

An iteration ends in this order: its evaluations are committed to the history, its line is written
to the metrics, its checkpoint is taken (iterations of a moment share one).

Another budget: a run goes on with a higher or lower `search.budget` (`config_json.may_change`) as
if it had been interrupted there, and so after `search.seconds`; arrays whose sizes follow the
budget grow, and never shrink.

Resume: `resuming.resume` reads the newest checkpoint and drops what history and metrics hold beyond
it; `run_stages` and `run_iterations` go on from there, because `State` says how far they are.
Random keys are functions of the seed and of the number of the iteration, so nothing about them is
stored. So a killed and resumed run does exactly what an undisturbed one does. One that a signal
ends takes a checkpoint first (`core.signals`). `core.run_json` says which run a folder holds,
`core.checkpoint` how a checkpoint is written and read, and `saving` what is in one.
"""

from __future__ import annotations

import contextlib
import functools
import math
import pathlib
import sqlite3
import tempfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from fnas_jax import ending, iteration, opening, outcome, resuming, simulated, summary, unsent
from fnas_jax import finals as finals_lib
from fnas_jax.core import (
    budget,
    checkpoint,
    config_json,
    devices,
    due,
    hosts,
    run_json,
    signals,
    stages,
    tracking,
    unchanged,
    workdir,
)
from fnas_jax.core import config as config_lib
from fnas_jax.core import keep as keeping
from fnas_jax.core.clock import Clock
from fnas_jax.core.keep import NOWHERE, Keep
from fnas_jax.core.logging import MetricLog, write_json
from fnas_jax.core.progress import Progress
from fnas_jax.iteration import FINAL, State
from fnas_jax.knowledge import history, pins, store, task_data
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.methods.base import SearchMethod
from fnas_jax.planning import plan
from fnas_jax.registry import Builder, completed
from fnas_jax.saving import Saving
from fnas_jax.ship import best
from fnas_jax.ship import winner as ship
from fnas_jax.stepping import Outputs, run_stages, step
from fnas_jax.tasks import protocols
from fnas_jax.tasks.base import Evaluator, Judged, Task

QUIET = 20  # of iterations in a row without anything new, one in so many is shown


class Context(NamedTuple):
    """What a run works with."""

    config: ml_collections.ConfigDict
    folder: pathlib.Path
    task: Task
    method: SearchMethod
    evaluator: Evaluator
    knowledge: Knowledge
    clock: Clock
    run: run_json.Run


def run(
    config: ml_collections.ConfigDict,
    folder: str | pathlib.Path,
    builder: Builder = opening.build,
    arrays: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Searches as `config` says, or goes on with the search in `folder`; returns result.json.

    `arrays`: an image set in memory, for the plan; `builder` has it, too. Raises UserError for
    wrong input, before anything is trained.
    """
    with contextlib.closing(Clock()) as clock:
        config = resuming.as_begun(folder, completed(config_lib.validate(config)))
        tracking.check(config.log)
        if not hosts.is_first():
            return work_for_first_host(plan.settle(config, folder, arrays), builder)
        with stages.running():
            with stages.at("planning"):
                config = plan.settle(config, folder, arrays)
            return search_in(config, folder, builder, clock)


def search_in(
    config: ml_collections.ConfigDict, folder: str | pathlib.Path, builder: Builder, clock: Clock
) -> dict[str, Any]:
    """As `run`, on the first host."""
    with workdir.opened(folder, config) as path, stages.kept(path):
        done = (path / "result.json").exists() and not config_json.extends(path, config)
        hosts.broadcast(np.bool_(done))
        if done:
            keeping.remove(path)  # where the process was killed before it could
            result = outcome.read(path)
            unsent.send(config, path, result)
            return result
        devices.enable_compilation_cache(config.jax.cache_dir)
        identity = run_json.identify(path)
        best.refuse_foreign(path / best.NAME)
        place = workdir.knowledge_folder(path, config)
        with store.tentative(place) as known:
            measured = history.count_trained(known, identity.id)
            unchanged.check_budget(path, config, measured, history.seconds(known, identity.id))
            room = workdir.room(path, config, identity)
            keep = keeping.on_disk(path / keeping.FULL, config.log.checkpoint_seconds)
            pinned = path / workdir.PINNED
            with stages.at("reading the data and building the task"):
                parts = builder(room, knowledge_of(known, place, identity, keep, pinned))
            task, _, evaluator = parts
            data = "" if task.dataset is None else protocols.fingerprint(task.dataset)
            pin = pins.read(pinned, identity.id)
            taken = "" if pin is None else pins.digest(pin)
            what = (task.space.key, evaluator.protocol, data, taken, task.simulated)
            identity = unchanged.same_task(identity, path, *what)
            metric, direction, kind, scale = task.measure
            identity = identity._replace(metric=metric, direction=direction, kind=kind, scale=scale)
            with store.settled(known, place) as kept:
                begun = workdir.start(path, config, identity)
                knowledge = knowledge_of(kept, place, identity)
                found = search(Context(config, path, *parts, knowledge, clock, begun))
            hosts.broadcast_command(0)
            return found


def knowledge_of(
    known: sqlite3.Connection,
    place: pathlib.Path,
    run: run_json.Run,
    keep: Keep = NOWHERE,
    pinned: pathlib.Path | None = None,
) -> Knowledge:
    """What `run` is handed of the store in `place`, whose history is `known`."""
    return Knowledge(known, run.began, place / "pool", run.id, run.starts > 0, keep, pinned)


def work_for_first_host(config: ml_collections.ConfigDict, builder: Builder) -> dict[str, Any]:
    """Trains children for the first host until it is done; leaves no files."""
    if hosts.broadcast(np.bool_(False)):
        return {}
    devices.enable_compilation_cache(config.jax.cache_dir)
    with tempfile.TemporaryDirectory() as folder:
        run = run_json.Run("0" * 32, 0)
        place = pathlib.Path(folder)  # what is known comes from the first host with the work
        with store.opened(place) as known:
            worker_loop = builder(config, knowledge_of(known, place, run))[2].hooks.worker_loop
            # The first host ends it, which is told to end when this one is, or goes on.
            with signals.deferred(hurried=True):
                if worker_loop is None:
                    hosts.broadcast_command()
                else:
                    worker_loop()
            signals.check()
    return {}


def search(ctx: Context) -> dict[str, Any]:
    """Resumes or starts, iterates until the budget is spent, and judges the winner."""
    key = jax.random.key(ctx.config.seed)
    with contextlib.ExitStack() as stack:
        manager = stack.enter_context(checkpoint.open_(ctx.folder / workdir.CHECKPOINTS))
        run = ctx.run._replace(starts=ctx.run.starts + 1)  # as run.json has it
        about = unsent.about(ctx.config, ctx.folder, run.id)
        said = (run._asdict(), about.settings)
        saving = Saving(ctx.evaluator, manager, ctx.folder / workdir.APART, *said)
        state, done = resuming.resume(ctx, saving, key)
        record_task(ctx)
        tracked = stack.enter_context(tracking.opened(ctx.config.log, about, state.step == 0))
        log = MetricLog(ctx.folder, state.step, ctx.config.log.tensorboard, tracked)
        stack.callback(log.close)
        log.settings(about.settings)
        resuming.tell_lost_lines(ctx, int(done.get("lines", 0)), log.lines)
        saving = saving._replace(lines=lambda: log.lines)
        trained = state.counts["trained"]
        remaining = functools.partial(search_seconds_left, ctx)
        progress = Progress(
            budget.children(ctx.config, budget.others(ctx.config, ctx.task.space.cardinalities)),
            trained,
            ctx.config.method.name,
            remaining=remaining,
            compiling=lambda: ctx.clock.seconds()["compile"],
        )
        stack.callback(progress.close)
        checkpoints = due.Paced(ctx.config.log.checkpoint_seconds)
        outputs = Outputs(saving, checkpoints, log, progress)
        with signals.deferred():  # `step` ends the process, behind a checkpoint
            with stages.at("preparing"):
                state = run_stages(ctx, outputs, state, key)
            with stages.at("search"):
                state = run_iterations(ctx, outputs, state, key)
        with stages.at("finals", ending.finals_expected(ctx.config, ctx.evaluator, state)):
            finals = finals_lib.hold(ctx.evaluator, state, key, ctx.clock)
        if finals is not None:
            progress.say(finals_lib.line(finals))
        state = finals_lib.decide(state, finals)
        with stages.at("winner"):
            winner = judge_winner(ctx, progress, state, key)
            facts = None if winner is None else keep_winner(ctx, progress, state, winner)
        path = ctx.folder / "result.json"
        write_json(path, outcome.content(ctx, state, finals, facts))
        keeping.remove(ctx.folder)
        result = outcome.read(ctx.folder)
        text, figures = summary.summary(result, str(ctx.folder)), summary.figures(result)
        log.finish(state.step, text, figures, unsent.made(ctx.folder))
    return result


def record_task(ctx: Context) -> None:
    """Tells the knowledge store what describes the task, for methods that know several."""
    task, store, protocol = ctx.task, ctx.knowledge.history, ctx.evaluator.protocol
    if task.statistics:
        task_data.record_task(store, task.name, task.statistics, protocol)
    if task.sample_images is not None:
        task_data.record_images(store, task.name, task.sample_images, protocol)


def run_iterations(ctx: Context, outputs: Outputs, state: State, key: jax.Array) -> State:
    """Asks, evaluates and tells until the search is done."""
    steps, origin = iteration.compiled(ctx.method, ctx.evaluator), _origin(ctx)
    outputs.progress.begin()
    # Asked once an iteration: time passes between two questions. Of a restored state by its own
    # time, so that the start of this process takes nothing of the search.
    over = functools.partial(ending.over, ctx.config, ctx.task, ctx.method, ctx.evaluator)
    search, spent = ctx.config.search, simulated.before(ctx.task, ctx.knowledge.history, ctx.run.id)
    last, quiet = over(state) or simulated.over(search, spent), 0
    while not last:
        number = state.iteration
        state, rows, scalars = iteration.iterate(steps, state, key, ctx.clock)
        with ctx.clock.part("disk"):
            history.record(ctx.knowledge.history, origin, number, rows)
        state = state._replace(seconds=ctx.clock.kept())
        spent = simulated.after(spent, rows)
        last = over(state) or simulated.over(search, spent)
        if state.iteration % ctx.config.log.every == 0 or last:
            times = {f"seconds/{name}": value for name, value in ctx.clock.seconds().items()}
            times |= {} if spent is None else {simulated.NAME: spent}
            details = iteration.details(steps, state)
            with ctx.clock.part("disk"):
                outputs.log.write(state.step, scalars | times | details)
            quiet = 0 if scalars["new"] else quiet + 1
            if last or quiet < 2 or quiet % QUIET == 0:
                line = iteration.line(scalars, ctx.task.measure)
                outputs.progress.show(state.counts["trained"], line)
        state = step(ctx, outputs, state, last)
    reason = ending.why(ctx.config, ctx.task, ctx.evaluator, state) or simulated.why(search, spent)
    if reason:
        outputs.progress.say(reason)
    return state


def seconds_left(ctx: Context) -> float:
    """Of `search.seconds`, which all starts together have; below 0 where more have passed."""
    return ctx.config.search.seconds - ctx.clock.seconds()["total"]


def search_seconds_left(ctx: Context) -> float:
    """Until the time is over in which the search may look for networks; without limit: infinite."""
    limit = budget.seconds(ctx.config.search)
    return max(limit - ctx.clock.seconds()["total"], 0.0) if limit else math.inf


def judge_winner(ctx: Context, progress: Progress, state: State, key: jax.Array) -> Judged | None:
    """What the task, and the evaluator if it has more to say, find out about the winner."""
    if state.best_arch[0] < 0:
        return None
    progress.say("search done; judging the best architecture")
    finalize = ctx.evaluator.hooks.finalize
    with ctx.clock.part("children"):
        arch, key_final = jnp.asarray(state.best_arch), jax.random.fold_in(key, FINAL)
        kept = keeping.arguments(ctx.task.keeps, ctx.folder, ctx.config)
        if ctx.config.search.winner_share and ctx.config.search.seconds:
            kept = tuple(k._replace(left=functools.partial(seconds_left, ctx)) for k in kept)
        winner = ctx.task.final(arch, key_final, *kept)
        if finalize is None:
            return winner
        more = finalize(state.evaluator, arch, key_final)
    # Where both have trained it, the task's. To choose the better one would be to choose by test
    # images, and there are no others left.
    network = more.network if winner.network is None else winner.network
    return Judged(winner.facts | more.facts, network)


def keep_winner(ctx: Context, progress: Progress, state: State, winner: Judged) -> dict[str, Any]:
    """Writes `best/`; returns the winner's facts for result.json, with what was kept."""
    found = ship.Winner(ctx.config, ctx.task, winner, float(state.best[0]), "main")
    return winner.facts | {"kept": ship.keep(ctx.folder, found, progress.say)}


def _origin(ctx: Context) -> history.Run:
    """What is the same for all rows that the run writes."""
    task = ctx.task
    trains = ending.trains_children(task, ctx.evaluator)
    steps = ctx.config.children.steps if trains else 0
    return history.Run(
        id=ctx.run.id,
        space=task.space.name,
        task=task.name,
        steps=steps,
        seed=ctx.config.seed,
        versions=workdir.versions(task.layers),
        space_identity=task.space.identity,
        protocol=ctx.evaluator.protocol,
        method=ctx.config.method.name,
    )
