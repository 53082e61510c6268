"""Whether a search goes on with what it began with: task, data, checkpoints, and an end to come."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from fnas_jax.core import about as abouts
from fnas_jax.core import budget, checkpoint, config_json, identity, run_json, workdir
from fnas_jax.core import config as config_lib
from fnas_jax.core.about import About
from fnas_jax.core.logging import last_line
from fnas_jax.core.run_json import Run
from fnas_jax.core.types import UserError

NO_TIMES = "none"  # in run.json: what was evaluated has no training times
_SAME = ("space", "protocol", "data", "taken", "times")  # entries of `Run` that tell it


def same_task(
    run: Run,
    folder: pathlib.Path,
    space: str,
    protocol: str,
    data: str = "",
    taken: str = "",
    times: str = "",
) -> Run:
    """`run` with what it searches: `Space.key`, `Evaluator.protocol` and a digest of all `data`.

    `taken`: digest of what it has taken of other searches. `times`: `Task.simulated`, whose seconds
    the run adds up.

    Raises UserError where it began with others: a part of the user's own, or a file, has changed
    since, though the configuration has not.
    """
    new: dict[str, Any] = {
        "space": space,
        "protocol": identity.digest(protocol) if protocol else "",
        "data": data,
        "taken": taken,
        "times": times or NO_TIMES,
    }
    _same(run, new, folder)
    return run._replace(**new)


def _same(run: Run, new: Mapping[str, str], folder: pathlib.Path) -> None:
    """Raises UserError where `run` was begun on something else than `new` says, if it says so."""
    for name, value in new.items():
        before = getattr(run, name)
        if before and value and before != value:
            what = {
                "space": "another space",
                "protocol": "another task or data, or by a version that measured otherwise",
                "data": "other images or labels",
                "taken": f"other rows of the knowledge store, which were in {workdir.PINNED}",
                "times": "other training times of the table, or none",
            }[name]
            raise UserError(
                f"the search in workdir {str(folder)!r} was begun on {what}, under the same names:"
                " go back to it, or start a new workdir"
            )


def check_checkpoint(
    about: About | None, folder: pathlib.Path, config: ml_collections.ConfigDict, run: Run
) -> None:
    """Raises UserError where the checkpoint that `about` is of is not one of `run` with `config`.

    None: of an earlier version, whose run is known by run.json only.
    """
    if about is None:
        return
    place = folder / workdir.CHECKPOINTS
    theirs = run_json.parse_run(about.run, place)
    if theirs.id != run.id:
        raise UserError(
            f"the checkpoints in {str(place)!r} are of another search than run.json beside them:"
            " put the files back together as they were, or start a new workdir"
        )
    if theirs.format != run.format:
        raise run_json.of_another_version(folder, theirs.format)
    _same(theirs, {name: getattr(run, name) for name in _SAME}, folder)
    config_json.refuse_changes(
        folder, config_lib.modernize(config_lib.flatten(about.config)), config
    )


def check_budget(
    folder: pathlib.Path, config: ml_collections.ConfigDict, trained: int, simulated: float = 0.0
) -> None:
    """Raises UserError where `config` ends the run in `folder` before what it has done already.

    That is: less budget than it has `trained` networks, fewer proposals, or less time, by the last
    line of its metrics, or than the `simulated` seconds.
    """
    path, search = folder / "config.json", config.search
    if not path.exists():
        return
    old, proposed, seconds = config_json.stored_keys(path), 0, 0.0
    if changes_end(old, search):
        proposed, seconds = _spent(folder)
    most = budget.proposals(search.max_proposals, search.budget)
    allowed = budget.proposals(old["search.max_proposals"], old["search.budget"])
    place = f"and the search in workdir {str(folder)!r} has"
    if search.budget < min(trained, old["search.budget"]):
        raise UserError(
            f"search.budget is {search.budget}, {place} trained {trained} architectures already:"
            f" give {trained} or more, or another workdir"
        )
    if most < min(proposed, allowed):
        given = search.max_proposals or f"0, which is {most} of this search.budget"
        raise UserError(
            f"search.max_proposals is {given}, {place} proposed {proposed} architectures already:"
            f" give {proposed} or more, or another workdir"
        )
    if search.seconds and search.seconds < min(seconds, old["search.seconds"] or math.inf):
        raise UserError(
            f"search.seconds is {search.seconds:g}, {place} taken {seconds:.1f} s already: give"
            f" {math.ceil(seconds)} or more, 0 for no limit, or another workdir"
        )
    own = config.children
    # Some of those that were stopped early, and the fair rounds', are not known here.
    known = not own.halving and not config.task.name.startswith("tabular/")
    shown = trained * own.steps * own.batch_size if known else 0
    if search.images and search.images < min(shown, old["search.images"] or math.inf):
        raise UserError(
            f"search.images is {search.images}, {place} trained children on {shown} images or more"
            f" already: give {shown} or more, 0 for no limit, or another workdir"
        )
    most_simulated, allowed_simulated = search.simulated_seconds, old["search.simulated_seconds"]
    if most_simulated and most_simulated < min(simulated, allowed_simulated or math.inf):
        raise UserError(
            f"search.simulated_seconds is {most_simulated:g}, {place} spent {simulated:g} s of"
            f" training already: give {math.ceil(simulated)} or more, 0 for no limit, or another"
            " workdir"
        )


def changes_end(old: Mapping[str, Any], search: Any) -> bool:
    """Whether the section `search` says less of how long a run is than `old`, all its keys."""
    return any(old[f"search.{name}"] != search[name] for name in config_json.ENDS)


def _spent(folder: pathlib.Path) -> tuple[int, float]:
    """(networks proposed, seconds) of the run in `folder`: by its metrics, or its checkpoint."""
    done = last_line(folder / "metrics.jsonl")
    proposed, seconds = done.get("proposed", 0), done.get("seconds/total")
    about = abouts.parse(checkpoint.newest_about(folder / workdir.CHECKPOINTS))
    kept = {} if about is None else about.done
    return (
        max(proposed, int(kept.get("proposed", 0))),
        max(seconds if isinstance(seconds, int | float) else 0.0, kept.get("seconds", 0.0)),
    )
