"""Pools on disk: atomic versions in one folder that searches may share.

`pool.json` says what space the pool is of, which runs have used it, and of every version what its
arrays look like. A version is a checkpoint (see `core.checkpoint`): complete or not there, and
passed over where it is damaged. Whoever reads or writes holds the lock.

A pool that images have taught on which a search would test its winner is refused (see `taught`).
Where that comes to light in a search that uses it already, because another one has taught it
since, the search goes on with what it has, and neither reads nor writes it any more.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import filelock
import jax
import jax.numpy as jnp

from fnas_jax.core import apart, checkpoint, disk, jsons
from fnas_jax.core.logging import write_json
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import pool as pools
from fnas_jax.knowledge import taught
from fnas_jax.knowledge.pool import Layout, Pool
from fnas_jax.knowledge.taught import Images
from fnas_jax.networks import dense, elastic
from fnas_jax.networks.dense import Dense, Outputs
from fnas_jax.spaces.base import Space

LOG = logging.getLogger(__name__)
LOCK_SECONDS = 60.0
CLASSES = "classification"  # the objective of pools whose pool.json says none
FREE = {"strides", "stem_stride"}  # settings of a space that weights do not depend on


FORMAT = 1  # of a pool; to be counted up whenever earlier versions would misread it
# Of pool.json, and of each of its versions.
FORM = {"format": int, "space": {"name": str}, "versions": {}, "runs": [str], "objective": str}
VERSION = {"run": str, "seen": int, "channels": int, "classes": int, "capacity": int}


class Store(NamedTuple):
    """Where a run keeps its pool."""

    folder: pathlib.Path
    space: Space
    channels: int  # of the images
    classes: Outputs
    capacity: int  # entries of each place
    run: str  # id of the run
    images: Images = Images()  # of the task
    lock_seconds: float = LOCK_SECONDS
    objective: str = CLASSES  # what the networks are trained for

    @property
    def owner(self) -> int:
        """The run as 32 bits, never 0."""
        return int(self.run[:8], 16) or 1


def check(store: Store) -> None:
    """Raises UserError where the pool is of another space, cannot be used, or would leak.

    That is, where it was taught by images that are tested on here.
    """
    if not store.folder.exists():  # and none is made for a search that may not begin
        return
    with _locked(store):
        _usable(store, _describe(store))


def load(store: Store, fresh: Pool) -> tuple[Pool, int]:
    """(newest good version in the shape of `fresh`, number of the newest version by another run).

    `fresh` stands for what does not exist, for stem and classifier of other images, and for what
    this run itself has written, because a run that starts again must find what it found at first.
    From here on the pool counts as taught by the run's training images. Raises UserError as `check`
    does.
    """
    with _locked(store):
        about = _describe(store)
        if not _usable(store, about):
            return fresh, 0
        found, versions = _newest(store), about["versions"]
        _join(store, about)
    if found is None:
        return fresh, 0
    seen = _foreign(store, versions, found[0])
    if not seen:
        return fresh, 0
    read = pools.resize(pools.without(found[1], store.owner), store.capacity)
    blocks = tuple(
        jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), entries, like)
        for entries, like in zip(read.blocks, fresh.blocks, strict=True)
    )
    kept = {name for name, own in fresh.shared.items() if _same(read.shared.get(name), own)}
    shared = {
        name: jax.tree.map(jnp.asarray, read.shared[name]) if name in kept else own
        for name, own in fresh.shared.items()
    }
    return Pool(blocks, shared, fresh.counts), seen


def sync(
    store: Store, layout: Layout, mine: Pool, seen: int, into: pathlib.Path | None = None
) -> tuple[Pool, int]:
    """Writes `mine` as a new version, with what other runs have written since version `seen`.

    Returns what was written, and the new `seen`; for a pool that others have taught what is tested
    on here, only what was given. Where that is `mine` and no more, it is linked as the folder
    `into`, too, before another run can delete it (`core.apart`). Raises UserError as `check` does.
    """
    with _locked(store, begun=True):
        about = _describe(store)
        if not _usable(store, about):
            return mine, seen
        about = _join(store, about)
        with contextlib.closing(checkpoint.open_(store.folder / "versions")) as manager:
            steps = sorted(manager.all_steps())
        if steps and _foreign(store, about["versions"], steps[-1]) > seen:
            found = _newest(store)
            if found is not None:
                mine, into = pools.merge(layout, mine, found[1], store.owner), None
                seen = _foreign(store, about["versions"], found[0])
        with contextlib.closing(checkpoint.open_(store.folder / "versions")) as manager:
            version = 1 + max(map(int, about["versions"]), default=0)
            versions = {str(step): about["versions"][str(step)] for step in steps}
            versions[str(version)] = {
                "run": store.run,
                "seen": seen,
                "channels": store.channels,
                "classes": dense.count(store.classes),
                "capacity": store.capacity,
            }
            # First, so that every complete version is described.
            write_json(store.folder / "pool.json", about | {"versions": versions})
            checkpoint.save(manager, version, mine)
        if into is not None:
            apart.link(store.folder / "versions" / str(version), into)
    return mine, seen


def _foreign(store: Store, versions: dict[str, Any], version: int) -> int:
    """The newest version by another run that `version` knows; it may be that one itself."""
    about = versions[str(version)]
    return version if about["run"] != store.run else about["seen"]


def _usable(store: Store, about: dict[str, Any]) -> bool:
    """Whether the pool may teach here. Raises UserError where not, and the run has not used it."""
    images, place = store.images, repr(str(store.folder))
    teachers = taught.read(store.folder)
    if about.get("untold") or (about["versions"] and not (store.folder / taught.FILE).exists()):
        _warn(
            f"the pool in {place} is from an earlier version of fnas_jax, which did not write down"
            " the images that taught it: make sure that none of them are tested on here"
        )
    if validated := taught.known_of(teachers, images.val, images.train):
        _warn(
            f"{validated} of the validation images have taught the pool in {place}: accuracies of"
            " children that inherit its blocks are too high"
        )
    tested = taught.known_of(teachers, images.test, images.train)
    if not tested:
        return True
    reason = (
        f"{tested} of the {len(images.test)} test images have taught the pool in {place}, in a"
        " search that divides the images in another way"
    )
    if store.run not in about.get("runs", []):
        raise UserError(f"{reason}: use another knowledge.dir, or akp.enabled=False")
    _warn(f"{reason} and began after this one, which goes on without that pool")
    return False


def _join(store: Store, about: dict[str, Any]) -> dict[str, Any]:
    """Enters the run and its training images as users of the pool; the new content of pool.json."""
    runs = about.get("runs", [])
    joined = about | {"runs": runs if store.run in runs else [*runs, store.run]}
    if about["versions"] and not (store.folder / taught.FILE).exists():
        joined["untold"] = True
    if joined != about:
        write_json(store.folder / "pool.json", joined)
    taught.add(store.folder, store.images.train)
    return joined


@functools.cache
def _warn(text: str) -> None:
    """Once a process, although every checkpoint meets the same pool."""
    LOG.warning(text)


@contextlib.contextmanager
def _locked(store: Store, begun: bool = False) -> Iterator[None]:
    """`begun`: the search has, so that it is no wrong input that the disk refuses now."""
    lock = filelock.FileLock(store.folder / ".lock", timeout=store.lock_seconds)
    try:
        store.folder.mkdir(parents=True, exist_ok=True)
        (store.folder / ".lock").touch()
        lock.acquire()
    except filelock.Timeout:
        raise UserError(
            f"another process has held the pool in {str(store.folder)!r} for"
            f" {store.lock_seconds:g} s; stop it, or use another knowledge.dir"
        ) from None
    except OSError as error:
        what = f"pool {str(store.folder)!r} cannot be written"
        raise (disk.refusal(error, store.folder) if begun else None) or disk.unusable(
            what, error
        ) from None
    try:
        yield
    finally:
        lock.release()


def _describe(store: Store) -> dict[str, Any]:
    """The content of pool.json, refused where it is of another space or objective.

    So it is where there are versions that it says nothing of: it is gone, or of before them.
    """
    own = {"name": store.space.name} | json.loads(json.dumps(_settings(store.space.spec)))
    path = store.folder / "pool.json"
    if not path.exists():
        told = {} if store.objective == CLASSES else {"objective": store.objective}
        _check_described(store, {})
        return {"format": FORMAT, "space": own, **told, "versions": {}}
    about = jsons.read_record(path, FORM, ("space", "versions"))
    for version in about["versions"].values():
        jsons.record(version, VERSION, repr(str(path)), VERSION)
    if about.get("format", 1) > FORMAT:
        raise UserError(
            f"the pool in {str(store.folder)!r} was written by a later version of fnas_jax (format"
            f" {about['format']} there, {FORMAT} here): use that version, or another knowledge.dir"
        )
    theirs = about["space"]
    for name in own.keys() | theirs.keys():
        if theirs.get("name") != own["name"]:
            name = "name"
        if own.get(name) != theirs.get(name):
            raise UserError(
                f"the pool in {str(store.folder)!r} is of another space: {name} is"
                f" {theirs.get(name)} there and {own.get(name)} here; use another knowledge.dir,"
                " or akp.enabled=False"
            )
    theirs = about.get("objective", CLASSES)
    if theirs != store.objective:
        raise UserError(
            f"the pool in {str(store.folder)!r} is of networks for task.objective={theirs}, and"
            f" here it is {store.objective!r}; use another knowledge.dir, or akp.enabled=False"
        )
    _check_described(store, about["versions"])
    return about


def _check_described(store: Store, versions: dict[str, Any]) -> None:
    """Raises UserError where there are versions that are none of `versions`."""
    there = {path.name for path in (store.folder / "versions").glob("*") if path.name.isdigit()}
    unknown = sorted(there - versions.keys(), key=int)
    if unknown:
        raise UserError(
            f"{str(store.folder / 'pool.json')!r} says nothing of version {unknown[0]} of its pool:"
            " it is gone, or a copy of before; put the one of these versions in its place, or use"
            " another knowledge.dir"
        )


def _settings(spec: Any) -> dict[str, Any]:
    return {name: value for name, value in spec._asdict().items() if name not in FREE}


def _newest(store: Store) -> tuple[int, Pool] | None:
    """The newest good version as it was written; the lock is held."""
    about = _describe(store)

    def template(version: int) -> Pool:
        was = about["versions"][str(version)]
        # A pool is of one objective, and so of one kind of outputs.
        outputs = dense.of(was["classes"], isinstance(store.classes, Dense))
        network = elastic.make(store.space, was["channels"], outputs)
        layout = pools.make_layout(network, store.space)
        shapes = jax.eval_shape(
            lambda key: pools.init(layout, was["capacity"], key), jax.random.key(0)
        )
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    if not about["versions"]:
        return None
    with contextlib.closing(checkpoint.open_(store.folder / "versions")) as manager:
        return checkpoint.restore(manager, template)


def _same(a: Any, b: Any) -> bool:
    shapes = [[leaf.shape for leaf in jax.tree.leaves(tree)] for tree in (a, b)]
    return shapes[0] == shapes[1]
