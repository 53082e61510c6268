"""run.json, which says what run a folder holds, and by what format of checkpoints it goes on."""

from __future__ import annotations

import pathlib
import re
import time
import uuid
from typing import Any, NamedTuple

from fnas_jax.core import jsons, mending
from fnas_jax.core.types import UserError

# Of checkpoints; to be counted up whenever the state of a method or an evaluator changes, or what
# it takes from the knowledge store, so that an unfinished run of another version is refused.
FORMAT = 12
# Formats of before whose checkpoints say less of their run, and are the same else; but for those of
# `spos` before 12, whose numbers of arrays differ, which is told
READABLE = (10, 11)


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
    if run.format not in READABLE and any((folder / mending.CHECKPOINTS).glob("[0-9]*")):
        raise of_another_version(folder, run.format)
    return run._replace(format=FORMAT)


def of_another_version(folder: pathlib.Path, format_: int) -> UserError:
    """The error for checkpoints of format `format_`."""
    return UserError(
        f"the unfinished search in workdir {str(folder)!r} was begun by another version of"
        f" fnas_jax (checkpoints of format {format_} there, {FORMAT} here): finish it with"
        " that version, or start a new workdir"
    )
