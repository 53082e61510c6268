"""Checkpoints: a pytree per step, the last two kept, a damaged newest one passed over.

Orbax writes each step beside the others and renames it when it is complete, so that a killed
process leaves no half-written step. A checksum over all leaves is stored with them, because a
damaged chunk of an array need not look wrong to a reader; and so may be a text about them
(`core.about`).
"""

from __future__ import annotations

import contextlib
import functools
import logging
import pathlib
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from fnas_jax.core import disk, leftovers
from fnas_jax.core.types import Failed, UserError

logger = logging.getLogger(__name__)


ABOUT, CHECKSUM = "about", "checksum"  # what is stored beside the leaves
STEP = "step"  # beside a text, because the files of two steps may be exchanged


class StructureError(ValueError):
    """A checkpoint holds other arrays than this program has a place for."""


def open_(folder: str | pathlib.Path, keep: int = 2, alone: bool = True) -> ocp.CheckpointManager:
    """The checkpoints of `folder`, created where it is missing; `close()` it in the end.

    `alone`: nobody else writes there, so that what a killed process has not finished is removed.
    Raises `disk.Refused`, and UserError where that is no folder.
    """
    path = pathlib.Path(folder).absolute()
    try:
        with disk.at(path):
            path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(
            f"{str(folder)!r} is in the way: it must be a folder of checkpoints, or not there"
        ) from None
    if alone:
        leftovers.remove_unfinished(path)
    # This process alone writes, whatever other hosts do; Orbax would otherwise wait for them.
    this = jax.process_index()
    itself = ocp.options.MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix=f"host{this}"
    )
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        enable_async_checkpointing=False,
        create=False,
        multiprocessing_options=itself,
    )
    # Orbax would look into the newest step for what it holds, which may be an empty folder.
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=itself)
    manager = functools.partial(ocp.CheckpointManager, path, options=options, item_handlers=handler)
    try:
        return manager()
    except Exception:  # of what Orbax says about a step: whatever its parsers raise
        if not leftovers.remove_damaged_dates(path):
            raise
    return manager()


def save(manager: ocp.CheckpointManager, step: int, tree: Any, about: str = "") -> None:
    """Stores `tree` as `step`, with a text `about` it; returns when it is safe on disk.

    Leaves are arrays (also empty ones, and typed PRNG keys), or Python numbers and booleans. A
    newest step that is there already stays as it is. Raises `disk.Refused`, of which no trace is
    left, and `Failed` for a step before the newest, of which Orbax keeps none.
    """
    newest = manager.latest_step()
    if newest is not None and step < newest:
        raise Failed(
            f"checkpoint {step} cannot be kept in {str(manager.directory)!r}, which has {newest}"
            " already"
        )
    leaves = [_to_numpy(leaf) for leaf in jax.tree.leaves(tree)]
    stored = {_name(i): leaf for i, leaf in enumerate(leaves) if leaf.size}  # Orbax: size > 0
    if about:
        stored |= {
            ABOUT: np.frombuffer(about.encode(), np.uint8),
            STEP: np.asarray(step, np.uint32),
        }
    stored[CHECKSUM] = np.asarray(_checksum(_ordered(stored)), np.uint32)
    folder = pathlib.Path(manager.directory)
    with disk.at(folder, texts=True), leftovers.one_error():
        try:
            manager.save(step, args=ocp.args.PyTreeSave(stored))
            manager.wait_until_finished()
        except Exception:
            leftovers.remove_for_good(folder, str(step))
            raise


def following(manager: ocp.CheckpointManager, step: int) -> int:
    """`step`, or the next one that is free: within a step of a run there may be several."""
    newest = manager.latest_step()
    return step if newest is None else max(step, newest + 1)


def restore(
    manager: ocp.CheckpointManager,
    template: Any,
    grown: bool = False,
    complete: Callable[[int, Any, str], Any] = lambda step, tree, about: tree,
    check: Callable[[str], object] = lambda about: None,
) -> tuple[int, Any] | None:
    """(step, tree) of the newest good checkpoint, shaped as `template`; None where there is none.

    `template` may be a function of the step. Where it has `grown`, a smaller array takes the first
    places of the template's, whose others stay as they are. `complete`(step, tree, about) adds what
    stands apart; a checkpoint of which it raises an error is damaged. Newer damaged checkpoints are
    deleted, with a warning. `check` is handed the text about a checkpoint that is whole, and what
    it raises ends the search for one. Raises UserError where checkpoints exist and none of them can
    be used.
    """
    steps = sorted(manager.all_steps(), reverse=True)
    reason, advice = "", "remove that folder to start again"
    for position, step in enumerate(steps):
        try:
            stored = _whole(manager, step)
        except Exception as error:  # whatever a damaged file makes Orbax or tensorstore raise
            reason = reason or leftovers.reason(error)
            continue
        about = _about(stored)
        check(about)
        try:
            like = template(step) if callable(template) else template
            tree = complete(step, _fill(stored, like, grown), about)
        except Exception as error:  # likewise, of what stands apart
            if isinstance(error, StructureError):
                advice = "go on with the version of fnas_jax that wrote it, or with a new folder"
            reason = reason or leftovers.reason(error)
            continue
        for damaged in steps[:position]:
            logger.warning(
                "checkpoint %d is damaged (%s); going on from checkpoint %d", damaged, reason, step
            )
            manager.delete(damaged)
        return step, tree
    if steps:
        raise UserError(f"no checkpoint in {manager.directory} can be read ({reason}); {advice}")
    return None


def newest_about(folder: pathlib.Path) -> str:
    """The text about the newest whole checkpoint in `folder`; "" where there is none."""
    if not any(path.name.isdigit() for path in folder.glob("*")):
        return ""
    with contextlib.closing(open_(folder, alone=False)) as manager:
        for step in sorted(manager.all_steps(), reverse=True):
            with contextlib.suppress(Exception):  # a damaged one, of which `restore` will tell
                return _about(_whole(manager, step))
    return ""


def _whole(manager: ocp.CheckpointManager, step: int) -> dict[str, np.ndarray]:
    """The arrays of `step` by name. Raises an error where they are not those that were stored."""
    with leftovers.one_error():
        stored = manager.restore(step, args=ocp.args.PyTreeRestore())
    found = {name: np.asarray(value) for name, value in stored.items()}
    checksum = int(found.pop(CHECKSUM))
    if ABOUT in found and _checksum(_ordered(found)) != checksum:
        raise ValueError("checksum differs")
    of = int(found.pop(STEP, step))  # earlier versions did not store it
    if of != step:
        raise ValueError(f"it is of step {of}")
    return found if ABOUT in found else found | {CHECKSUM: np.asarray(checksum)}


def _about(stored: dict[str, np.ndarray]) -> str:
    return stored[ABOUT].tobytes().decode() if ABOUT in stored else ""


def _fill(stored: dict[str, np.ndarray], template: Any, grown: bool) -> Any:
    """What `_whole` has found, shaped as `template`. Raises StructureError."""
    like, structure = jax.tree.flatten(template)
    expected = [_to_numpy(leaf) for leaf in like]
    leaves = []
    for i, blank in enumerate(expected):
        value = np.asarray(stored.get(_name(i), blank if blank.size == 0 else np.zeros(0)))
        if value.dtype != blank.dtype or not _fits(value, blank, grown):
            raise StructureError(
                f"leaf {i} is {value.dtype}{value.shape},"
                f" this program expects {blank.dtype}{blank.shape}"
            )
        leaves.append(value)
    here = sum(blank.size > 0 for blank in expected)
    if len(stored) - 1 != here:  # one is the text or the checksum
        raise StructureError(f"it has {len(stored) - 1} arrays, this program expects {here}")
    # Those without a text also counted empty leaves once, whose shapes may grow.
    known = (_checksum(leaves), _checksum(_filled(leaves)))
    if CHECKSUM in stored and int(stored[CHECKSUM]) not in known:
        raise ValueError("checksum differs")
    leaves = [_placed(value, blank) for value, blank in zip(leaves, expected, strict=True)]
    restored = [_like(leaf, value) for leaf, value in zip(like, leaves, strict=True)]
    return jax.tree.unflatten(structure, restored)


def _fits(value: np.ndarray, blank: np.ndarray, grown: bool) -> bool:
    if not grown or value.ndim != blank.ndim:
        return value.shape == blank.shape
    return all(a <= b for a, b in zip(value.shape, blank.shape, strict=True))


def _placed(value: np.ndarray, blank: np.ndarray) -> np.ndarray:
    """`blank` with `value` in its first places."""
    if value.shape == blank.shape:
        return value
    whole = blank.copy()
    whole[tuple(slice(n) for n in value.shape)] = value
    return whole


def _filled(leaves: list[np.ndarray]) -> list[np.ndarray]:
    return [leaf for leaf in leaves if leaf.size]


def _ordered(stored: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The text about them, if any, then all leaves by their numbers."""
    return [stored[name] for name in sorted(stored, key=lambda name: (len(name), name))]


def _name(i: int) -> str:
    return f"leaf{i:04d}"


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_numpy(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _like(leaf: Any, value: np.ndarray) -> Any:
    """`value` as the kind of thing that `leaf` is."""
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(value), impl=jax.random.key_impl(leaf))
    if isinstance(leaf, jax.Array):
        return jnp.asarray(value)
    return value if isinstance(leaf, np.ndarray) else type(leaf)(value.item())


def _checksum(leaves: list[np.ndarray]) -> int:
    """CRC-32 over dtype, shape and bytes of all leaves, in order."""
    crc = 0
    for leaf in leaves:
        crc = zlib.crc32(f"{leaf.dtype}{leaf.shape}".encode(), crc)
        crc = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), crc)
    return crc
