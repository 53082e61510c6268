"""A run's folder: one process at a time, one configuration for ever."""

from __future__ import annotations

import contextlib
import pathlib
import platform
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any, NamedTuple

import filelock
import jax
import ml_collections

import fnas_jax
from fnas_jax.core import about as abouts
from fnas_jax.core import budget, checkpoint, disk, identity, jsons, mending, stages
from fnas_jax.core import config as config_lib
from fnas_jax.core.logging import write_json
from fnas_jax.core.types import UserError

CHECKPOINTS = mending.CHECKPOINTS
# Keys of the end of a search
ENDS = ("budget", "max_proposals", "seconds", "simulated_seconds", "winner_share")
APART = "pools"  # of what stands beside them (`core.apart`)
REPORT = "report.html"  # which is also written beside a running search
LOCK = ".lock"
PINNED = "taken.npz"  # of what a search has taken of others (`knowledge.pins`)
# Written by whoever holds LOCK: what it finds of their drafts is nobody's any more.
_JSON = ("config.json", "run.json", "metrics.jsonl", "result.json", "retrain.json")
WRITTEN = (*_JSON, PINNED, stages.FILE)
KNOWLEDGE = "knowledge"  # and of the knowledge store, where none is named
# Of checkpoints; to be counted up whenever the state of a method or an evaluator changes, or what
# it takes from the knowledge store, so that an unfinished run of another version is refused.
FORMAT = 11
READABLE = (10,)  # formats of before whose checkpoints say less of their run, and are the same else


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
        mending.mend(folder, {"run.json": read_run_of, "config.json": stored_keys})
        _same_config(folder / "config.json", config)
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
    for name in {LOCK, KNOWLEDGE, PINNED} - before:
        entry = folder / name
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    for place in missing:
        with contextlib.suppress(OSError):  # another process has put something there
            place.rmdir()


def read_json(path: pathlib.Path) -> Any:
    """The content of a JSON file of a run. Raises UserError where it is missing or damaged."""
    return jsons.read(path)


def read_config(workdir: str | pathlib.Path) -> ml_collections.ConfigDict:
    """The configuration of the run in `workdir`. Raises UserError where there is none."""
    folder = pathlib.Path(workdir).expanduser()
    path = folder / "config.json"
    if not path.exists():
        began = any((folder / name).exists() for name in ("run.json", CHECKPOINTS, "result.json"))
        advice = "; the command that began the search writes it again" if began else ""
        raise UserError(
            f"{str(workdir)!r} is not the workdir of a run: it has no config.json{advice}"
        )
    flat = stored_keys(path)
    try:
        unknown = next((name for name in flat if name not in config_lib.all_keys()), None)
        if unknown is not None:
            raise config_lib.unknown_key(unknown)
        return config_lib.validate(config_lib.nest(flat))
    except UserError as error:
        raise UserError(f"{str(path)!r}: {error}") from None


def known_config(folder: pathlib.Path) -> dict[str, Any] | None:
    """All keys of the run in `folder`, by its newest checkpoint where config.json is not there.

    None where no run is.
    """
    path = folder / "config.json"
    if path.exists():
        return config_lib.flatten(read_config(folder))
    about = abouts.parse(checkpoint.newest_about(folder / CHECKPOINTS))
    return None if about is None else config_lib.modernize(config_lib.flatten(about.config))


def knowledge_folder(
    workdir: str | pathlib.Path, config: ml_collections.ConfigDict
) -> pathlib.Path:
    """Where the run in `workdir` keeps what outlives it."""
    own = pathlib.Path(workdir) / KNOWLEDGE
    return pathlib.Path(config.knowledge.dir or own).expanduser()


class Run(NamedTuple):
    """The run in a folder."""

    id: str  # hexadecimal
    starts: int  # so far
    began: float = 0.0  # seconds since 1970
    format: int = 1  # of its checkpoints; the first one was not written down
    grown: bool = False  # it was given more budget: its first checkpoints are of smaller arrays
    space: str = ""  # `Space.key`; "": not written down
    protocol: str = ""  # digest of `Evaluator.protocol`
    metric: str = ""  # what it maximises, or minimises; "": not written down
    direction: str = ""
    kind: str = ""  # of the metric, as `Measure`; "": not written down
    scale: float = 1.0  # likewise; 1: that, or not written down
    budget: int = 0  # most that it had ever been given: its arrays are of this size
    proposals: int = 0  # likewise; 0 twice: not written down
    data: str = ""  # digest of all images and labels; "": none, or not written down
    taken: str = ""  # digest of what was taken of other searches; likewise
    times: str = ""  # digest of a table's training times, or `unchanged.NO_TIMES`; likewise


def read_run(folder: pathlib.Path) -> Run:
    """The run that was started in `folder`. Raises UserError where there is none."""
    return read_run_of(folder / "run.json")


def read_run_of(path: pathlib.Path) -> Run:
    """As `read_run`, of a run.json."""
    return parse_run(jsons.read(path), path)


def parse_run(known: Any, path: pathlib.Path) -> Run:
    """The run of which this was written, in `path`. Raises UserError where it is damaged."""
    usual = Run("", 0)._asdict()
    kinds = {k: jsons.NUMBER if type(v) is float else type(v) for k, v in usual.items()}
    jsons.record(known, kinds, repr(str(path)), ("id", "starts"))
    run = Run(**{name: known[name] for name in Run._fields if name in known})
    if not re.fullmatch("[0-9a-f]{8,64}", run.id) or run.starts < 0:
        raise UserError(f"{str(path)!r} is damaged: its id is {run.id!r:.80}, starts {run.starts}")
    return run


def identify(folder: pathlib.Path) -> Run:
    """The run that was started in `folder`, or a new one.

    Raises UserError where its checkpoints are those of another version of this program, because
    numbers of another meaning may have the same shapes.
    """
    path = folder / "run.json"
    if not path.exists():
        return Run(uuid.uuid4().hex, 0, time.time(), FORMAT)
    run = read_run(folder)
    if run.format == FORMAT:
        return run
    if run.format not in READABLE and any((folder / CHECKPOINTS).glob("[0-9]*")):
        raise of_another_version(folder, run.format)
    return run._replace(format=FORMAT)


def of_another_version(folder: pathlib.Path, format_: int) -> UserError:
    """The error for checkpoints of format `format_`."""
    return UserError(
        f"the unfinished search in workdir {str(folder)!r} was begun by another version of"
        f" fnas_jax (checkpoints of format {format_} there, {FORMAT} here): finish it with"
        " that version, or start a new workdir"
    )


def start(folder: pathlib.Path, config: ml_collections.ConfigDict, run: Run) -> Run:
    """Counts a start of `run`, which `identify` gave; the run as it is from now on.

    From here on the folder belongs to `config`: to be called once everything could be built, so
    that a mistyped first command does not claim the folder. A result that a changed configuration
    will replace stays under another name, and so does what was said of a network in best/, where
    the new winner will be.
    """
    more, arrays = extends(folder, config), room(folder, config, run).search
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


def extends(folder: pathlib.Path, config: ml_collections.ConfigDict) -> bool:
    """Whether the run in `folder` is to go on otherwise than it began, as `opened` let pass.

    How it logs, and where programs are cached, changes nothing of what it finds.
    """
    path = folder / "config.json"
    if not path.exists():
        return False
    old, new = stored_keys(path), config_lib.flatten(config)
    names = (name for name in new if not name.startswith(("log.", "jax.")))
    return any(old.get(name) != new[name] for name in names)


def room(
    folder: pathlib.Path, config: ml_collections.ConfigDict, run: Run
) -> ml_collections.ConfigDict:
    """`config` with the largest budget that `run` has had, of which its arrays are."""
    path = folder / "config.json"
    most, proposed = run.budget, run.proposals
    if not most and path.exists():  # of an earlier version, where a budget never fell
        before = stored_keys(path)
        most = before["search.budget"]
        proposed = budget.proposals(before["search.max_proposals"], most)
    return budget.largest(config, most, proposed)


def may_change(name: str) -> bool:
    """Whether a run may go on with another value of key `name`.

    More or less of the search, as far as it is not done yet (`check_budget`), or another end of it;
    what was searched so far stays what it is.
    """
    # Another code computes the same but for rounding, and a machine may not have that of another.
    free = (*(f"search.{key}" for key in ENDS), "task.cache_dir", "children.backend")
    return name in free or name.startswith(("winner.", "log.", "jax."))


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


def stored_keys(path: pathlib.Path) -> dict[str, Any]:
    """The keys and values of a run's config.json, under the names of today.

    Raises UserError where it is missing or damaged.
    """
    flat = config_lib.flatten(jsons.read_record(path, {}))
    if not {"seed", "space.name", "task.name", "method.name"} <= flat.keys():  # of every version
        raise UserError(f"{str(path)!r} is damaged: it is no configuration of a search")
    found = config_lib.modernize(flat)
    for name in config_lib.all_keys():
        if not config_lib.suits(name, found[name]):
            kind = config_lib.kind(config_lib.all_keys()[name])
            raise UserError(
                f"{str(path)!r} is damaged: {name} is {found[name]!r:.40}; it must be {kind}"
            )
    return found


def _same_config(path: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Raises UserError if the run whose config.json is `path` has another configuration."""
    if path.exists():
        refuse_changes(path.parent, stored_keys(path), config)


def refuse_changes(
    folder: pathlib.Path, old: Mapping[str, Any], config: ml_collections.ConfigDict
) -> None:
    """Raises UserError if `config` differs from the `old` keys of the run in `folder`.

    But for those that may change.
    """
    new = config_lib.flatten(config)
    missing = "not set"
    differences = [
        f"{name} ({old.get(name, missing)} there, {new.get(name, missing)} now)"
        for name in sorted(old.keys() | new.keys())
        if old.get(name, missing) != new.get(name, missing)
        and not (name in old and name in new and may_change(name))
    ]
    if not differences:
        return
    forgotten = [name for name in identity.in_memory(old) if name not in identity.in_memory(new)]
    if forgotten:
        raise UserError(
            f"the search in workdir {str(folder)!r} was begun in Python, on what was in"
            f" memory: fnas_jax.resume({str(folder)!r}, {', '.join(forgotten)}) goes on with"
            " it, and reads a finished one; this configuration is another one"
        )
    advice = (
        "; give the command that began it, another search.budget or other winner.* and log.*"
        " keys, or another --workdir"
    )
    if _format(folder) not in (FORMAT, *READABLE):
        advice = (
            ". It was begun by another version of fnas_jax, whose defaults differ: finish it with"
            " that version, or start a new workdir; report and retrain still read it"
        )
    raise UserError(
        f"workdir {str(folder)!r} belongs to a run with another configuration:"
        f" {', '.join(differences)}{advice}"
    )


def _format(folder: pathlib.Path) -> int:
    """Of the checkpoints of the run in `folder`; today's where no start was written down."""
    path = folder / "run.json"
    return read_run(folder).format if path.exists() else FORMAT
