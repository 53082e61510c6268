"""What of a search's state a checkpoint holds, what stands beside it, and what is found again.

The part of an evaluator's state that `Hooks.apart` gives is in no checkpoint. Weights that the
method has trained (`Hooks.load_weights`) are taken from its state again; anything else stands
beside (`core.apart`), as the knowledge store's own files where `Hooks.sync` has linked them there.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orbax.checkpoint as ocp

from fnas_jax.core import about as abouts
from fnas_jax.core import apart, checkpoint
from fnas_jax.core.about import About
from fnas_jax.iteration import State
from fnas_jax.tasks.base import Evaluator


class Saving(NamedTuple):
    """Where a run keeps its states, and what it says of them."""

    evaluator: Evaluator
    manager: ocp.CheckpointManager
    folder: pathlib.Path  # of what stands beside the checkpoints
    run: Mapping[str, Any]  # run.json
    config: Mapping[str, Any]  # all keys, flat
    lines: Callable[[], int] = lambda: 0  # of metrics.jsonl


class Restored(NamedTuple):
    """What a checkpoint holds."""

    state: State
    about: About | None  # None: of an earlier version


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
    done = {
        "proposed": state.counts["proposed"],
        "trained": state.counts["trained"],
        "seconds": state.seconds["total"],
        "lines": saving.lines(),
    }
    about = abouts.text(About(saving.run, saving.config, done))
    checkpoint.save(saving.manager, number, _without(saving, state, number), about)
    apart.prune(saving.folder, saving.manager.all_steps())


def restore(
    saving: Saving, first: State, grown: bool, check: Callable[[About | None], object]
) -> Restored | None:
    """The newest good state, shaped as `first`; None where there is none.

    `grown` as of `checkpoint.restore`, which raises UserError where none can be used; `check`
    raises it for a checkpoint that is not of this search.
    """
    held, hooks = first, saving.evaluator.hooks
    if hooks.apart is not None:
        held = first._replace(evaluator=hooks.apart.put(first.evaluator, None))
    read = functools.partial(_read_apart, saving, first)
    found = checkpoint.restore(
        saving.manager, held, grown, read, lambda text: check(abouts.parse(text))
    )
    # What a killed process has left beside a checkpoint that it did not come to.
    apart.prune(saving.folder, saving.manager.all_steps())
    # A mistake in what is made of it here is none of the checkpoint's, which stays.
    return None if found is None else _whole(saving, *found[1])


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


def _read_apart(
    saving: Saving, first: State, number: int, state: State, about: str
) -> tuple[State, Any, str]:
    """(`state`, which the checkpoint `number` holds, what stands apart from it, `about`)."""
    hooks = saving.evaluator.hooks
    if hooks.apart is None:
        return state, None, about
    part = hooks.apart.get(first.evaluator)
    if hooks.load_weights is None:
        part = apart.read(saving.folder, number, state.apart, part)
    return state, part, about


def _whole(saving: Saving, state: State, part: Any, about: str) -> Restored:
    """What `_read_apart` has read, as the search goes on from it."""
    hooks, parsed = saving.evaluator.hooks, abouts.parse(about)
    if hooks.apart is None:
        return Restored(state, parsed)
    known = hooks.apart.put(state.evaluator, part)
    if hooks.load_weights is not None and state.prepared >= 2:  # the method's stage is over
        known = hooks.load_weights(known, state.method)
    return Restored(state._replace(evaluator=known, apart=apart.NONE), parsed)
