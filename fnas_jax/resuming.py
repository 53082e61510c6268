"""Where a search goes on: its newest checkpoint, and whether what stands beside it fits it."""

from __future__ import annotations

import functools
import json
import logging
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import ml_collections

from fnas_jax import iteration
from fnas_jax import saving as saving_lib
from fnas_jax.core import config as config_lib
from fnas_jax.core import config_json, hosts, unchanged, workdir
from fnas_jax.core.logging import last_line
from fnas_jax.core.types import UserError
from fnas_jax.iteration import State
from fnas_jax.knowledge import history
from fnas_jax.saving import Saving

if TYPE_CHECKING:
    from fnas_jax.loop import Context

LOG = logging.getLogger(__name__)


def as_begun(
    folder: str | pathlib.Path, config: ml_collections.ConfigDict
) -> ml_collections.ConfigDict:
    """`config` with what `config_json.as_begun` says on the first host, on every host."""
    known: dict[str, Any] = {}
    if hosts.is_first():
        known = config_json.as_begun(pathlib.Path(folder).expanduser(), config)
    known = json.loads(hosts.broadcast_text(json.dumps(known)))
    if not known:
        return config
    values = ", ".join(f"{name}={value}" for name, value in known.items())
    LOG.warning("the search goes on as it was begun, with %s", values)
    return config_lib.validate(config_lib.nest(config_lib.flatten(config) | known))


def resume(ctx: Context, saving: Saving, key: jax.Array) -> tuple[State, Mapping[str, float]]:
    """The state of the newest checkpoint, and how far it says that it is; or the first one and {}.

    A first one with a knowledge pool is saved at once: the pool is written before the next
    checkpoint, and a run killed in between must not find its own work. Drops the iterations beyond
    it from the history; `MetricLog` does so with the metrics. Raises UserError where the checkpoint
    is of another search, or the history lacks rows of this one.
    """
    decisions = len(ctx.task.space.cardinalities)
    state = iteration.initial(ctx.method, ctx.evaluator, decisions, key)
    done: Mapping[str, float] = {}
    mine = functools.partial(
        unchanged.check_checkpoint, folder=ctx.folder, config=ctx.config, run=ctx.run
    )
    restored = saving_lib.restore(saving, state, ctx.run.grown, mine)
    if restored is not None:
        state = restored.state
        if restored.about is not None:
            done = restored.about.done
        # Only plots are made of it, so that it stands in the metrics alone.
        disk = last_line(ctx.folder / "metrics.jsonl").get("seconds/disk")
        ctx.clock.resume(state.seconds | {"disk": disk if isinstance(disk, float) else 0.0})
    elif ctx.evaluator.hooks.sync is not None:
        saving_lib.save(saving, state, state.step)
    history.trim(ctx.knowledge.history, ctx.run.id, state.iteration)
    check_rows(ctx, state)
    return state, done


def check_rows(ctx: Context, state: State) -> None:
    """Raises UserError where the history does not hold every row that the run has written."""
    there = history.count(ctx.knowledge.history, ctx.run.id)
    written = state.counts["trained"] + state.counts["predicted"]
    if there != written:
        place = workdir.knowledge_folder(ctx.folder, ctx.config) / history.FILE
        raise UserError(
            f"{str(place)!r} has {there} of the {written} rows that the search in workdir"
            f" {str(ctx.folder)!r} has written: put back the file as it was (with its -wal), or"
            " start a new workdir"
        )


def tell_lost_lines(ctx: Context, written: int, there: int) -> None:
    """Warns where metrics.jsonl has lost lines, which only plots and reports are made of."""
    if there < written:
        LOG.warning(
            "%s has %d of %d lines; the search goes on without the others, and so do its plots",
            *(ctx.folder / "metrics.jsonl", there, written),
        )
