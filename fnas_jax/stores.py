"""`fnas-jax store merge` and `fnas-jax store import`: what becomes of knowledge stores."""

from __future__ import annotations

import os
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

from fnas_jax.core import signals
from fnas_jax.core.nearest import nearest

if __name__ == "__main__":
    signals.starting()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before JAX loads: no chatter from XLA

from absl import flags

from fnas_jax import importing, registry
from fnas_jax.core import cli, config_file, exits
from fnas_jax.core import config as config_lib
from fnas_jax.core.measure import DIRECTIONS
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import merge
from fnas_jax.spaces.base import Space
from fnas_jax.tasks import plain_table

OWN = "categorical/"  # with which the names of spaces of tables begin
USAGE = """Merges knowledge stores into a new one, or imports results of earlier work into one.

  fnas-jax store merge A B [C ..] --out=DIR

The history of searches is merged: each row once, all that tells them apart kept. A, B and C stay as
they are. Blocks of their pools are not merged.

  fnas-jax store import FILE.csv --knowledge=DIR --task=NAME [--space=SPACE | --config=..]

FILE is a table as task.name=tabular/FILE.csv reads it, of earlier results on the task NAME. Its
decisions are those of a space of this program (--space=macro), of that of a search (--config=FILE,
--config.KEY=VALUE), or its own: then the space is called categorical/FILE, as that of a search on a
table of this name, unless --space=categorical/OTHER says otherwise. Searches in the same space with
--config.knowledge.dir=DIR learn from them."""


def define_merge(values: flags.FlagValues) -> None:
    """Declares the flags of `merge`."""
    flags.DEFINE_string("out", "", "folder of the new store", flag_values=values)


def define_import(values: flags.FlagValues) -> None:
    """Declares the flags of `import`."""
    told = {
        "knowledge": "folder of the store, made where there is none",
        "task": "name of the task that the results are of",
        "space": "of the decisions: mnas, macro, .., or categorical/NAME",
        "metric": "column of the results; '': the only one that it can be",
        "direction": f"of the metric: {' or '.join(DIRECTIONS)}; '': by its name",
        "time": "column of the seconds that each training took; '': train_seconds, if there is one",
    }
    for name, meaning in told.items():
        flags.DEFINE_string(name, "", meaning, flag_values=values)
    flags.DEFINE_list(
        "decisions", [], "columns that are decisions; none: those named decision_..", values
    )


def merged(arguments: Sequence[str]) -> str:
    """Runs `merge`; what it came to."""
    values, given = cli.parse_places(arguments, define_merge, USAGE)
    if len(given) < 2:
        raise UserError(f"store merge takes two stores or more, and was given {len(given)}")
    out = pathlib.Path(cli.require(values, "out")).expanduser()
    folders = [pathlib.Path(folder).expanduser() for folder in given]
    found = merge.merge(folders, out)
    taken = ", ".join(f"{n:,} of {f}" for n, f in zip(found.taken, given, strict=True))
    lines = [f"{found.rows:,} rows: {taken}"]
    if found.doubled:
        lines.append(f"{found.doubled:,} were in several of them, and are there once")
    if found.differing:
        lines.append(
            f"warning: {found.differing:,} of these have other numbers in a later store: those of"
            " the first one are taken"
        )
    if found.left:
        lines.append(
            f"only histories are merged; not taken: {', '.join(found.left)} (one of them can be"
            f" copied to {out})"
        )
    return "\n".join([*lines, f"written to {out}"])


def imported(arguments: Sequence[str]) -> str:
    """Runs `import`; what it came to."""
    path, rest = config_file.take(arguments)
    overrides, rest = cli.split_overrides(rest)
    values, given = cli.parse_places(rest, define_import, USAGE)
    if len(given) != 1:
        raise UserError(f"store import takes one file, and was given {len(given)}")
    folder, task = (cli.require(values, name) for name in ("knowledge", "task"))
    if values.direction not in ("", *DIRECTIONS):
        near = nearest(values.direction, DIRECTIONS)
        raise UserError(
            f"--direction is {values.direction!r}; allowed are {', '.join(DIRECTIONS)}{near}"
        )
    space, name = None, values.space
    if path is not None or overrides:
        if values.space:
            raise UserError("--space and --config both say which space it is; give one of them")
        space = space_of_search(cli.parse_config([*_config(path), *overrides], _nothing, USAGE)[0])
    elif name and not name.startswith(OWN):
        space, name = _ours(name), ""
    if space is not None and values.decisions:
        raise UserError(
            f"--decisions is for a table with a space of its own; here they are {space.name}'s"
        )
    file = pathlib.Path(given[0]).expanduser()
    asked = plain_table.Asked(values.metric, values.direction, tuple(values.decisions), values.time)
    try:
        earlier = importing.read(file, asked, space, name)
    except UserError as error:  # which names the keys of a search on the table
        raise UserError(
            re.sub(r"\btask\.(metric|direction|decisions|time)", r"--\1", str(error))
        ) from None
    new, there = importing.write(earlier, task, file.name, pathlib.Path(folder).expanduser())
    text = f"{new:,} results of {task} in the space {earlier.space.name}"
    if there:
        text = f"all {there:,} results of {file} are there already, and nothing was changed"
    return "\n".join([*earlier.notes, text, f"written to {folder}" * (not there)]).rstrip()


def space_of_search(config: Any) -> Space:
    """The space in which a search of this configuration looks for networks."""
    if config.task.name.startswith("images/"):  # which need not be there
        return registry.build_space(config)
    return registry.build_task(config).space


def _ours(name: str) -> Space:
    allowed = [known for known in registry.SPACES if known != "categorical"]
    if name not in allowed:
        raise UserError(
            f"--space is {name!r}; allowed are {', '.join(allowed)} and {OWN}NAME"
            f"{nearest(name, allowed)}"
        )
    config = config_lib.default()
    config.space.name = name
    return registry.build_space(config)


def _config(path: Any) -> list[str]:
    return [] if path is None else [f"--config={path}"]


def _nothing(values: flags.FlagValues) -> None:
    """No flags beside those of the configuration."""


def _all(values: flags.FlagValues) -> None:
    define_merge(values)
    define_import(values)


WAYS = {"merge": merged, "import": imported}


def command(argv: Sequence[str] | None = None) -> int:
    """Runs the command with `argv` (without the program's name); returns the exit code."""

    def body() -> None:
        arguments = list(sys.argv[1:] if argv is None else argv)
        if not arguments or arguments[0].startswith("-"):
            cli.parse_flags(arguments, _all, USAGE)
            raise UserError(f"store needs a word: {' or '.join(WAYS)}; --help shows how")
        word = arguments.pop(0)
        if word not in WAYS:
            near = nearest(word, WAYS)
            raise UserError(f"store {word!r} is unknown; allowed are {', '.join(WAYS)}{near}")
        print(WAYS[word](arguments))

    return exits.run_command(body)


if __name__ == "__main__":
    signals.leave(command())
