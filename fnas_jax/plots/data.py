"""What the files of a run hold as arrays, read once, for all of its figures."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import ml_collections
import numpy as np

from fnas_jax import outcome, simulated, trials
from fnas_jax.core import config_json, jsons, workdir
from fnas_jax.core.logging import is_iteration, metric_lines
from fnas_jax.core.measure import Measure
from fnas_jax.core.types import COSTS, UserError
from fnas_jax.knowledge import store
from fnas_jax.spaces.base import Space

# Of a network: how it was judged, or that it was not
TRAINED, INHERITED, MEASURED, STOPPED, PREDICTED, FAILED = KINDS = (
    "trained",
    "inherited weights",
    "measured",  # by a table or a function
    "stopped early",  # its value is an expectation
    "predicted",
    "failed",
)
ONE_SHOT = ("pgnas", "spos")  # whose networks are judged with inherited weights


class HasWorkdir(Protocol):
    """A `fnas_jax.Result`, or what else knows its folder."""

    workdir: pathlib.Path


class Trials(NamedTuple):
    """R proposals in the order of the search; unknown numbers are NaN."""

    text: tuple[str, ...]  # R
    archs: np.ndarray  # [R, T] int
    kind: np.ndarray  # [R] str, of KINDS
    value: np.ndarray  # [R] float: the task's metric; of predicted and failed ones NaN
    reward: np.ndarray  # [R] float, measured or predicted; of failed ones 0
    costs: dict[str, np.ndarray]  # of COSTS, [R] float each
    evaluations: np.ndarray  # [R] int: networks that were measured up to this one
    seconds: np.ndarray  # [R] float: of the run, when its iteration was over; NaN: not known
    # [R] float: of the trainings of all networks up to this one, by the table; NaN: not known
    simulated_seconds: np.ndarray

    @property
    def measured(self) -> np.ndarray:
        """[R] bool: it has a value, and none that is only expected."""
        return np.isfinite(self.value) & np.isfinite(self.reward) & (self.kind != STOPPED)


class Run(NamedTuple):
    """A search, finished or not."""

    folder: pathlib.Path
    label: str  # for legends
    config: ml_collections.ConfigDict
    measure: Measure
    lines: list[dict[str, Any]]  # of metrics.jsonl, those of iterations
    stages: list[dict[str, Any]]  # and those of what came before
    trials: Trials
    space: Space | None  # None: nothing was tried yet
    result: dict[str, Any] | None  # None: it still runs, or was interrupted
    records: Sequence[dict[str, Any]] = ()  # the trials, as `trials.read` gives them
    unread: str = ""  # why its history could not be read

    @property
    def names(self) -> tuple[str, ...]:
        """Of the T decisions; () where the space is not known."""
        return () if self.space is None else self.space.names

    @property
    def choices(self) -> tuple[tuple[str, ...], ...]:
        """T times what can be chosen, in words."""
        return () if self.space is None else self.space.labels


Source = str | os.PathLike[str] | HasWorkdir | Run


def read(source: Source, strict: bool = True) -> Run:
    """The run of a workdir, or of a `Result`; a `Run` as it is.

    Raises UserError where there is no run, or its files are damaged; unless `strict`, a history
    that cannot be read is told as `unread`.
    """
    if isinstance(source, Run):
        return source
    place = source if isinstance(source, str | os.PathLike) else getattr(source, "workdir", None)
    if place is None:
        raise UserError(f"{source!r} is neither a workdir nor a result of fnas_jax")
    folder = pathlib.Path(place).expanduser()
    config = config_json.read_config(folder)
    lines = metric_lines(folder / "metrics.jsonl")
    loop = [line for line in lines if is_iteration(line)]
    result = outcome.read(folder) if (folder / "result.json").exists() else None
    begun = result is not None or bool((series(loop, "trained") > 0).any())
    records, space, unread = proposals(folder, config, begun, strict)
    return Run(
        folder=folder,
        label=folder.name or str(folder),
        config=config,
        measure=outcome.measure(folder),
        lines=loop,
        stages=[line for line in lines if not is_iteration(line)],
        trials=table(records, loop, how_judged(config)),
        space=space,
        result=result,
        records=records,
        unread=unread,
    )


def proposals(
    folder: pathlib.Path, config: ml_collections.ConfigDict, begun: bool, strict: bool
) -> tuple[list[dict[str, Any]], Space | None, str]:
    """What the run has tried, in which space, and why that cannot be read ("" where it can).

    Of a run that has `begun` to measure there is a history, unless it is lost.
    """
    if not begun and not store.exists(workdir.knowledge_folder(folder, config)):
        return [], None, ""
    try:
        return *trials.in_space(folder), ""
    except UserError as error:
        if strict:
            raise
        return [], None, str(error)


def read_all(sources: Source | Iterable[Source]) -> list[Run]:
    """One run or several, whose labels differ. Raises UserError as `read`, and of none."""
    if isinstance(sources, Run | str | os.PathLike) or not isinstance(sources, Iterable):
        return [read(sources)]
    several: Iterable[Any] = sources
    runs = [read(source) for source in several]
    if not runs:
        raise UserError("no run is given: a plot needs the workdir of one, or its result")
    return labelled(runs)


def labelled(runs: Sequence[Run]) -> list[Run]:
    """`runs`, each labelled by so much of the end of its path as tells it from the others."""
    paths = [run.folder.resolve() for run in runs]
    for count in range(1, max(len(path.parts) for path in paths) + 1):
        labels = [str(pathlib.Path(*path.parts[-count:])) for path in paths]
        if len(set(labels)) == len(set(paths)):
            break
    return [run._replace(label=label) for run, label in zip(runs, labels, strict=True)]


def how_judged(config: ml_collections.ConfigDict) -> str:
    """The kind of networks that a run of `config` evaluates."""
    if not config.task.name.startswith("images/"):
        return MEASURED
    return INHERITED if config.method.name in ONE_SHOT else TRAINED


def table(
    records: Sequence[dict[str, Any]], lines: Sequence[dict[str, Any]], judged: str
) -> Trials:
    """`Trials` of what `trials.read` gave, with times by the `lines` of iterations.

    A network belongs to the first line behind which so many were proposed; those of iterations that
    were not logged are told with the next one that was.
    """
    evaluated = np.array([r["trained"] for r in records], bool)
    ok = np.array([r["ok"] for r in records], bool)
    stopped = np.array([bool(r.get("stopped")) for r in records], bool)
    kind = np.where(evaluated, np.where(ok, np.where(stopped, STOPPED, judged), FAILED), PREDICTED)
    known = evaluated & ok
    value = np.where(known, _floats(records, "value"), np.nan)
    ends = series(lines, "trained") + series(lines, "predicted")
    told = np.isfinite(ends)
    times = np.append(series(lines, "seconds/total")[told], np.nan)
    simulates = np.isfinite(series(lines, simulated.NAME)).any()
    trained = np.where(evaluated, np.nan_to_num(_floats(records, "seconds")), 0.0)
    place = np.searchsorted(np.maximum.accumulate(ends[told]), np.arange(1, len(records) + 1))
    return Trials(
        text=tuple(r["text"] for r in records),
        archs=np.array([r["arch"] for r in records] or np.zeros((0, 0)), int),
        kind=kind,
        value=value,
        reward=_floats(records, "reward"),
        costs={name: _floats(records, name) for name in COSTS},
        evaluations=np.cumsum(evaluated, dtype=int),
        seconds=times[place],
        simulated_seconds=np.cumsum(trained) if simulates else np.full(len(records), np.nan),
    )


def _floats(records: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    """[R] of a column, None as NaN."""
    return np.array([np.nan if r[name] is None else r[name] for r in records], float)


def series(lines: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    """[n] float: the entry of each line; NaN where it has no such number."""
    found = [line.get(name) for line in lines]
    return np.array([x if jsons.fits(x, jsons.NUMBER) else np.nan for x in found], float)


def lacking(run: Run, what: str, who: str) -> UserError:
    """What to raise where a run has not the data of a figure, which `who` has."""
    why = f"; {who}" if who else ""
    return UserError(
        f"the run in {str(run.folder)!r} (method {run.config.method.name}) has {what}{why}"
    )
