"""What of a search's state a checkpoint holds, what stands beside it, and what is found again.

The part of an evaluator's state that `Hooks.apart` gives is in no checkpoint. Weights that the
method has trained (`Hooks.load_weights`) are taken from its state again; anything else stands
beside (`core.apart`), as the knowledge store's own files where `Hooks.sync` has linked them there.
"""

from __future__ import annotations

import functools
import pathlib
from typing import NamedTuple

import orbax.checkpoint as ocp

from fnas_jax.core import apart, checkpoint
from fnas_jax.iteration import State
from fnas_jax.tasks.base import Evaluator


class Saving(NamedTuple):
    """Where a run keeps its states."""

    evaluator: Evaluator
    manager: ocp.CheckpointManager
    folder: pathlib.Path  # of what stands beside the checkpoints


def synced(saving: Saving, state: State, number: int) -> State:
    """`state` after the evaluator has shared what it has learnt with the knowledge store.

    What the store has then is linked beside the checkpoint `number`, which is to be taken next.
    """
    sync = saving.evaluator.hooks.sync
    if sync is None:
        return state
    return state._replace(evaluator=sync(state.evaluator, saving.folder / str(number)))


def save(saving: Saving, state: State, number: int) -> None:
    """Stores `state` as the checkpoint `number`."""
    checkpoint.save(saving.manager, number, _without(saving, state, number))
    apart.prune(saving.folder, saving.manager.all_steps())


def restore(saving: Saving, first: State, grown: bool) -> State | None:
    """The newest good state, shaped as `first`; None where there is none.

    `grown` as of `checkpoint.restore`, which raises UserError where none can be used.
    """
    held, hooks = first, saving.evaluator.hooks
    if hooks.apart is not None:
        held = first._replace(evaluator=hooks.apart.put(first.evaluator, None))
    whole = functools.partial(_with, saving, first)
    found = checkpoint.restore(saving.manager, held, grown, whole)
    # What a killed process has left beside a checkpoint that it did not come to.
    apart.prune(saving.folder, saving.manager.all_steps())
    return None if found is None else found[1]


def _without(saving: Saving, state: State, number: int) -> State:
    """`state` as a checkpoint holds it, once what stands apart is on disk."""
    hooks = saving.evaluator.hooks
    if hooks.apart is None:
        return state
    version = apart.NONE
    if hooks.load_weights is None:
        version = apart.version_of(saving.folder, number)
        if version == apart.NONE:  # no store has it
            version = apart.write(saving.folder, number, hooks.apart.get(state.evaluator))
    return state._replace(evaluator=hooks.apart.put(state.evaluator, None), apart=version)


def _with(saving: Saving, first: State, number: int, state: State) -> State:
    """`state`, which the checkpoint `number` holds, with what stands apart from it."""
    hooks = saving.evaluator.hooks
    if hooks.apart is None:
        return state
    part = hooks.apart.get(first.evaluator)
    if hooks.load_weights is None:
        part = apart.read(saving.folder, number, state.apart, part)
    known = hooks.apart.put(state.evaluator, part)
    if hooks.load_weights is not None and state.prepared >= 2:  # the method's stage is over
        known = hooks.load_weights(known, state.method)
    return state._replace(evaluator=known, apart=apart.NONE)
