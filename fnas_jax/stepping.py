"""The steps of a search: the stages before the loop, and what each step leaves on disk."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from fnas_jax import saving as saving_lib
from fnas_jax.core import checkpoint, due, hosts, pace, stages
from fnas_jax.core import keep as keeping
from fnas_jax.core.logging import MetricLog
from fnas_jax.core.progress import Progress
from fnas_jax.iteration import PREPARE, State
from fnas_jax.saving import Saving

if TYPE_CHECKING:
    from fnas_jax.loop import Context


class Outputs(NamedTuple):
    """Where a run writes, and how it shows how far it is."""

    saving: Saving
    checkpoints: due.Paced
    log: MetricLog
    progress: Progress


def step(ctx: Context, outputs: Outputs, state: State, last: bool = False) -> State:
    """`state` one step on, on disk if a checkpoint is due or it is the `last` of a stage."""
    state = state._replace(step=state.step + 1, seconds=ctx.clock.kept())
    if not last and not outputs.checkpoints.due:
        return state
    with ctx.clock.part("disk"):
        state = outputs.checkpoints.take(functools.partial(shared, outputs.saving, state))
        keeping.forget_batches(ctx.folder)
    hosts.end_if_asked()
    return state


def shared(saving: Saving, state: State) -> State:
    """`state` after a checkpoint of it, before which the knowledge store has got its share."""
    number = checkpoint.following(saving.manager, state.step)
    state = saving_lib.synced(saving, state, number)
    saving_lib.save(saving, state, number)
    return state


def run_stages(ctx: Context, outputs: Outputs, state: State, key: jax.Array) -> State:
    """The stages before the loop that are not finished: the evaluator's, then the method's."""
    hooks = ctx.evaluator.hooks
    owners = (("evaluator", hooks.prepare), ("method", ctx.method.prepare))
    for number, (owner, prepare) in enumerate(owners, start=1):
        if prepare is None or state.prepared >= number:
            continue
        # The owner's state says how far it is: from a restored one, `prepare` goes on.
        stage = prepare(getattr(state, owner), jax.random.fold_in(key, PREPARE))
        state = run_stage(ctx, outputs, state, owner, stage)
        if owner == "method" and hooks.load_weights is not None:
            state = state._replace(evaluator=hooks.load_weights(state.evaluator, state.method))
        state = step(ctx, outputs, state._replace(prepared=number), last=True)
    return state


def run_stage(
    ctx: Context, outputs: Outputs, state: State, owner: str, stage: Iterator[tuple[Any, Any]]
) -> State:
    """One stage of the `owner`, "evaluator" or "method", to its end."""
    part = "children" if owner == "evaluator" else "method"
    marks: list[pace.Mark] = []
    while True:
        with ctx.clock.part(part):
            item = next(stage, None)
        if item is None:
            return state
        metrics = jax.device_get(item[1])
        done, total = metrics.pop("steps", (0, 0))
        marks = [*marks, pace.Mark(*_moment(ctx, done))][-pace.MOST :]
        text = how_far(marks, total) + metrics.pop("text", "")
        state = state._replace(**{owner: item[0]})
        if not metrics:
            state = within_step(ctx, outputs, state, text)
            continue
        outputs.log.write(state.step, {"stage": "prepare", **metrics})
        outputs.progress.say(f"preparing: step {state.step + 1}{text}")
        children = state.counts["prepared"] + metrics.get("children", 0)
        counts = state.counts | {"prepared": children}
        state = step(ctx, outputs, state._replace(counts=counts))


def how_far(marks: list[pace.Mark], total: int) -> str:
    """What to say of a stage of so many steps, behind its name, at the last of `marks`; 0: unknown.

    A process that `status` asks says the same.
    """
    if not total:
        return ""
    done, left = int(marks[-1].done), pace.left(marks, total)
    text = f"{done} of {total} steps"
    stages.told("preparing", done, total, left, text)
    rest = f", {pace.text(left)} left" if math.isfinite(left) and done < total else ""
    return f": {text}{rest}"


def _moment(ctx: Context, done: float) -> tuple[float, float, float]:
    seconds = ctx.clock.seconds()
    return seconds["total"], done, seconds["compile"]


def within_step(ctx: Context, outputs: Outputs, state: State, text: str) -> State:
    """`state` in the middle of a step, on disk and told of if the last time is long ago."""
    if not outputs.checkpoints.overdue(keeping.LEAST_SECONDS):
        return state
    outputs.progress.say(f"preparing: step {state.step + 1}{text}")
    state = state._replace(seconds=ctx.clock.kept())
    with ctx.clock.part("disk"):
        state = outputs.checkpoints.take(functools.partial(shared, outputs.saving, state))
    hosts.end_if_asked()
    return state
