"""A run's folder: one process at a time, one configuration for ever."""

from __future__ import annotations

import contextlib
import pathlib
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata

import filelock
import jax
import ml_collections

import fnas_jax
from fnas_jax.core import budget, config_json, disk, keep, mending, run_json, stages
from fnas_jax.core.logging import write_json
from fnas_jax.core.run_json import Run
from fnas_jax.core.types import UserError

CHECKPOINTS = mending.CHECKPOINTS
APART = "pools"  # of what stands beside them (`core.apart`)
REPORT = "report.html"  # which is also written beside a running search
LOCK = ".lock"
PINNED = "taken.npz"  # of what a search has taken of others (`knowledge.pins`)
# Written by whoever holds LOCK: what it finds of their drafts is nobody's any more.
_JSON = ("config.json", "run.json", "metrics.jsonl", "result.json", "retrain.json")
WRITTEN = (*_JSON, PINNED, stages.FILE)
KNOWLEDGE = "knowledge"  # and of the knowledge store, where none is named


@contextlib.contextmanager
def opened(
    workdir: str | pathlib.Path, config: ml_collections.ConfigDict
) -> Iterator[pathlib.Path]:
    """The folder, created where it is missing and held until the end of the context.

    Raises UserError where it cannot be written, another process runs in it, or it belongs to a run
    with another configuration.
    """
    folder = pathlib.Path(workdir).expanduser()
    lock = filelock.FileLock(folder / LOCK)
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        before = set() if missing else {entry.name for entry in folder.iterdir()}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LOCK).touch()  # the lock would take a refusal for another process
        # Who only asks whether it is held (`is_held`) holds it for a moment.
        lock.acquire(timeout=0.2, poll_interval=0.02)
    except filelock.Timeout:
        raise UserError(f"another process is running in workdir {str(folder)!r}") from None
    except OSError as error:
        raise disk.unusable(f"workdir {str(folder)!r} cannot be written", error) from None
    try:
        disk.sweep(folder, WRITTEN)
        readers = {"run.json": run_json.read_run_of, "config.json": config_json.stored_keys}
        mending.mend(folder, readers)
        if (folder / "config.json").exists():
            stored = config_json.stored_keys(folder / "config.json")
            config_json.refuse_changes(folder, stored, config)
        yield folder
    finally:
        if not (folder / "config.json").exists():
            _remove_traces(folder, before, missing)
        lock.release()


def is_held(folder: pathlib.Path) -> bool:
    """Whether a process runs in `folder`, as far as can be told without changing anything there."""
    if not (folder / LOCK).exists():
        return False
    lock = filelock.FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        return True
    except OSError:  # somebody else's folder
        return (folder / stages.FILE).exists()
    lock.release()
    return False


def _remove_traces(folder: pathlib.Path, before: set[str], missing: list[pathlib.Path]) -> None:
    """Takes away what `opened` and a run that never began have made; called with the lock held.

    `before`: what the folder held; `missing`: it and its parents, as far as they were not there.
    """
    for name in {LOCK, KNOWLEDGE, PINNED, keep.FULL} - before:
        entry = folder / name
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    for place in missing:
        with contextlib.suppress(OSError):  # another process has put something there
            place.rmdir()


def knowledge_folder(
    workdir: str | pathlib.Path, config: ml_collections.ConfigDict
) -> pathlib.Path:
    """Where the run in `workdir` keeps what outlives it."""
    own = pathlib.Path(workdir) / KNOWLEDGE
    return pathlib.Path(config.knowledge.dir or own).expanduser()


def start(folder: pathlib.Path, config: ml_collections.ConfigDict, run: Run) -> Run:
    """Counts a start of `run`, which `identify` gave; the run as it is from now on.

    From here on the folder belongs to `config`: to be called once everything could be built, so
    that a mistyped first command does not claim the folder. A result that a changed configuration
    will replace stays under another name, and so does what was said of a network in best/, where
    the new winner will be.
    """
    more, arrays = config_json.extends(folder, config), room(folder, config, run).search
    run = run._replace(
        grown=run.grown or more,
        budget=arrays.budget,
        proposals=budget.proposals(arrays.max_proposals, arrays.budget),
    )
    write_json(folder / "run.json", run._replace(starts=run.starts + 1)._asdict())
    for name in ("result", "retrain"):
        path = folder / f"{name}.json"
        if more and path.exists():
            path.replace(folder / f"{name}-{run.starts}.json")
    if more or not (folder / "config.json").exists():
        write_json(folder / "config.json", config.to_dict())
    return run


def room(
    folder: pathlib.Path, config: ml_collections.ConfigDict, run: Run
) -> ml_collections.ConfigDict:
    """`config` with the largest budget that `run` has had, of which its arrays are."""
    path = folder / "config.json"
    most, proposed = run.budget, run.proposals
    if not most and path.exists():  # of an earlier version, where a budget never fell
        before = config_json.stored_keys(path)
        most = before["search.budget"]
        proposed = budget.proposals(before["search.max_proposals"], most)
    return budget.largest(config, most, proposed)


def versions(layers: str = "") -> dict[str, str]:
    """Versions of what the results depend on, and the platform of the devices.

    `layers`: by what code those of children are computed; "": there are none.
    """
    packages = {
        name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")
    }
    own = {"fnas_jax": fnas_jax.__version__, "python": platform.python_version()}
    found = own | packages | {"platform": jax.default_backend()}
    return found | ({"layers": layers} if layers else {})
