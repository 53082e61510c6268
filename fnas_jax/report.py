"""`fnas-jax report` and `python -m fnas_jax.report`: a page of HTML about one search or several."""

from __future__ import annotations

import logging
import os
import pathlib
import sys
from collections.abc import Sequence

from fnas_jax.core import signals

if __name__ == "__main__":
    signals.starting()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before JAX loads: no chatter from XLA

from absl import flags

from fnas_jax.core import cli, disk, exits, workdir
from fnas_jax.core.types import UserError
from fnas_jax.pages import assemble
from fnas_jax.pages.page import MADE_BY
from fnas_jax.plots import data

LOG = logging.getLogger(__name__)
# What pages of earlier versions begin with, and what stands behind their title.
EARLIER = (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>',
    "</title><style>",
)
USAGE = """Writes report.html, a page without other files, about a search, finished or not.

  fnas-jax report runs/a

About several searches on one task, a page that compares them:

  fnas-jax report runs/a runs/b runs/c --out=compared.html"""


def write(folder: str, out: str = "") -> pathlib.Path:
    """Writes the report of the run in `folder`, there or as `out`; its path.

    Raises UserError where there is no run.
    """
    run = _read(folder)
    return put(
        assemble.one(run), pathlib.Path(out).expanduser() if out else run.folder / workdir.REPORT
    )


def compare(folders: Sequence[str], out: str = "") -> pathlib.Path:
    """Writes a page about several runs as `out`, or into the folder that all of them stand in.

    Raises UserError where one is no run, two are the same, or they are about different things.
    """
    runs = data.labelled([_read(folder) for folder in folders])
    places = [run.folder.resolve() for run in runs]
    twice = next((run for i, run in enumerate(runs) if places[i] in places[:i]), None)
    if twice is not None:
        raise UserError(f"the run {str(twice.folder)!r} is given twice")
    together = pathlib.Path(os.path.commonpath([place.parent for place in places]))
    return put(
        assemble.several(runs), pathlib.Path(out).expanduser() if out else together / workdir.REPORT
    )


def _read(folder: str) -> data.Run:
    """The run in `folder`, of which what can be read is told, with a warning of the rest."""
    run = data.read(folder, strict=False)
    if run.unread:
        LOG.warning("%s", run.unread)
    return run


def put(page: str, target: pathlib.Path) -> pathlib.Path:
    """Writes the page in one step. Raises UserError where something else of that name is there."""
    if target.exists() and not _ours(target):
        raise UserError(
            f"{str(target)!r} is there and is no report of fnas_jax: move it, or give --out=FILE"
        )
    if not target.parent.is_dir():
        raise UserError(f"there is no folder {str(target.parent)!r} for {target.name}")
    with disk.replacing(pathlib.Path(os.path.realpath(target))) as file:  # a link to it stays
        file.write(page)
    return target


def _ours(target: pathlib.Path) -> bool:
    """Whether a report was written there; those of earlier versions by their head."""
    if not target.is_file():
        return False
    with target.open(encoding="utf-8", errors="replace") as file:
        head = file.read(4000)
    return MADE_BY in head or (head.startswith(EARLIER[0]) and EARLIER[1] in head)


def define(values: flags.FlagValues) -> None:
    """Declares the flags of this command."""
    cli.define_workdir(values)
    flags.DEFINE_string("out", "", "the file to write, instead of report.html", flag_values=values)


def command(argv: Sequence[str] | None = None) -> int:
    """Runs the command with `argv` (without the program's name); returns the exit code."""

    def body() -> None:
        given = sys.argv[1:] if argv is None else argv
        values, folders = cli.parse_places(given, define, USAGE)
        if values.workdir or not folders:
            folders = [cli.require(values, "workdir"), *folders]
        if len(folders) == 1:
            print(f"written to {write(folders[0], values.out)}")
        else:
            print(f"written to {compare(folders, values.out)}")

    return exits.run_command(body)


if __name__ == "__main__":
    signals.leave(command())
