"""Seconds that the training of each row of a table took: in which column they are, and its numbers.

A search adds those of the networks that it evaluates, as if it trained them one after another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fnas_jax.core.nearest import nearest
from fnas_jax.core.types import COSTS, UserError
from fnas_jax.tasks import delimited
from fnas_jax.tasks.delimited import LARGEST, SMALLEST, Content, Row

USUAL = "train_seconds"  # a column of this name is taken without being asked for


def column(
    path: Path, content: Content, asked: str, taken: Mapping[str, str], usual: str = USUAL
) -> str:
    """The column of times: the one `asked` for, else `usual` where there is one; "": none.

    `taken`: what columns are already, in words. Raises UserError for one that is not there, or is
    something else.
    """
    if not asked:
        return usual if usual in content.columns and usual not in taken else ""
    if asked not in content.columns:
        free = [name for name in content.columns if name not in taken and name not in COSTS]
        raise UserError(
            f"{path} has no column {asked!r} (task.time); what is not used otherwise is"
            f" {', '.join(free) or 'none'}{nearest(asked, free)}"
        )
    if asked in taken or asked in COSTS:
        what = taken.get(asked, "one of the costs, which say how large or fast a network is")
        raise UserError(
            f"task.time is {asked!r}, in {path} {what}; it names the column with the seconds that"
            " each training took"
        )
    return asked


def read(
    path: Path, content: Content, name: str, asked: bool
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """([M] float64 seconds of the column `name`, all above 0; what a user should know of them).

    A time that is none makes the sums of searches wrong: it is a UserError with its line where the
    column was `asked` for. Where it was not, none of its times are used, and that is said.
    """
    if not name:
        return None, ()
    comma = delimited.commas(content, name)
    try:
        seconds = np.array([_seconds(path, row, name, comma) for row in content.rows], np.float64)
    except UserError as error:
        if asked:
            raise
        return None, (f"warning: no training times, which would be those of {name}: {error}",)
    # Beyond float32, which holds them, there is no sum either.
    if seconds.sum() > LARGEST:
        raise UserError(f"{path}: all {name} together are {seconds.sum():g} s, which is no time")
    middle, hours = float(np.median(seconds)), seconds.sum() / 3600
    return seconds, (
        f"training times are {name}, read as seconds: {middle:.4g} s in the median, {hours:.4g} h"
        " in all",
    )


def _seconds(path: Path, row: Row, name: str, comma: bool) -> float:
    """The time in a row. Raises UserError for what is none."""
    text = row.fields[name]
    try:
        value = delimited.number(text, comma)
    except ValueError:
        value = math.nan
    if not SMALLEST <= value <= LARGEST:
        raise UserError(
            f"{path}, line {row.line}: {name} is {text!r}; a training time is a finite number of"
            " seconds above 0, in every row, also where the training failed"
        )
    return value
