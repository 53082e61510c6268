"""`python -m fnas_jax.trials`: what a search has tried, finished or not."""

from __future__ import annotations

import io
import logging
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from fnas_jax.core import signals
from fnas_jax.core.nearest import nearest

if __name__ == "__main__":
    signals.starting()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before JAX loads: no chatter from XLA

import numpy as np
from absl import flags

from fnas_jax import outcome, registry
from fnas_jax.core import cli, config_json, delivery, exits, run_json, workdir
from fnas_jax.core.logging import last_line
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import history, listing, store
from fnas_jax.spaces.base import Space

LOG = logging.getLogger(__name__)
FORMATS = ("table", "csv", "json", delivery.PARQUET)
FILTERS = ("task", "space", "method")  # of a store, which has several of each
COLUMNS = {
    "number": int,
    "text": str,
    "arch": list,
    **dict.fromkeys(("trained", "ok"), bool),
    **dict.fromkeys(("value", *history.NUMBERS), float),
    "stopped": int,
}
USAGE = """Prints what the search of a workdir has tried, a line each, in the order of the search.

  fnas-jax trials runs/a [--best=10] [--format=csv] [--out=FILE.parquet]

With --knowledge, what a store holds of all searches: by task, space and protocol, of which --best
takes so many networks each.

  fnas-jax trials --knowledge=DIR [--task=NAME] [--space=NAME] [--method=NAME] [--best=20]"""


def read(folder: str | pathlib.Path) -> list[dict[str, Any]]:
    """Every proposal of the run in `folder`, in its order; None where a number is unknown.

    Each has `number`, `text`, `arch`, `trained` (else predicted), `ok`, `value` (the accuracy, or
    the task's own metric as it was returned), `history.NUMBERS`, and `stopped`, the steps after
    which its training was stopped early, so that its accuracy is an expectation, or None. Raises
    UserError where there is no run, or its knowledge store is not there.
    """
    return in_space(folder)[0]


def in_space(folder: str | pathlib.Path) -> tuple[list[dict[str, Any]], Space | None]:
    """What `read` gives, and the space of the run: None where it has tried nothing."""
    config = config_json.read_config(folder)
    path = pathlib.Path(folder).expanduser()
    sign = outcome.measure(path).sign
    with store.existing(workdir.knowledge_folder(path, config)) as known:
        run = run_json.read_run(path).id
        name = history.space_of(known, run)
        tell_lost(path, history.count_trained(known, run))
        if name is None:  # nothing was tried yet
            return [], None
        space = registry.space_of_run(history.identity_of(known, run), config)
        # By its name: of a space that was an object there is less here than its key is about.
        rows = history.rows(known, name, trained=None, run_id=run)
    known_ok = np.where(rows.ok, rows.accuracy, np.nan)
    numbers = {"value": (sign * known_ok).tolist()}
    numbers |= {name: getattr(rows, name).tolist() for name in history.NUMBERS}
    found = [
        {
            "number": i,
            "text": history.words(space, arch),
            "arch": arch,
            "trained": bool(rows.trained[i]),
            "ok": bool(rows.ok[i]),
            **{name: None if v[i] != v[i] else v[i] for name, v in numbers.items()},
            "stopped": int(rows.stopped[i]) or None,
        }
        for i, arch in enumerate(rows.decisions.tolist())
    ]
    return found, space


def tell_lost(folder: pathlib.Path, there: int) -> None:
    """Warns where the search in `folder` has logged more measured networks than are `there`."""
    trained = last_line(folder / "metrics.jsonl").get("trained", 0)
    if isinstance(trained, int) and there < trained:
        LOG.warning(
            "the history has %d of the %d architectures that the search in %r has measured: the"
            " others are lost",
            *(there, trained, str(folder)),
        )


def best(trials: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The `count` measured ones of the highest reward, the best first, each network once.

    Without those that were stopped early, of which more is expected than was measured.
    """
    measured = [t for t in trials if t["trained"] and t["ok"] and not t["stopped"]]
    first: dict[str, dict[str, Any]] = {}
    for trial in sorted(measured, key=lambda t: -t["reward"]):
        first.setdefault(trial["text"], trial)
    return list(first.values())[:count]


def as_csv(trials: Iterable[dict[str, Any]]) -> str:
    """The trials of a search as a text of CSV."""
    out = io.StringIO()
    delivery.write_csv(out, [n for n, kind in COLUMNS.items() if kind is not list], trials)
    return out.getvalue()


def table(trials: Sequence[dict[str, Any]], metric: str = "accuracy") -> str:
    """The trials of a search for people; `metric` is the task's."""
    shown = {n: n for n in history.NUMBERS}
    if metric != "accuracy":  # a column of this name would hold the negative of what is minimised
        shown = {"value": metric} | {n: n for n in history.NUMBERS[1:]}
    known = [n for n in shown if any(t[n] is not None for t in trials)]
    head = f"{'number':>6} " + " ".join(f"{shown[name]:>10}" for name in known) + "  network"
    lines = [f"{t['number']:>6} {_figures(t, known)}  {t['text']}{_remark(t)}" for t in trials]
    return "\n".join([head, *lines])


def store_table(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The lines of a store's rows for people: a heading for each task, space and protocol."""
    shown, before = ("value", "latency_ms", "mflops", "params_m"), None
    for row in rows:
        of = row["task"], row["space"], row["space_key"], row["protocol"]
        if of != before:
            if before is not None:
                yield ""
            metric = row["metric"] or "unknown metric"
            protocol = row["protocol"] or "unknown"
            space = f"{row['space']} {row['space_key']}".rstrip()
            yield f"{row['task']}, {space}, protocol {protocol} ({metric})"
            yield f"{'run':>8} {'method':>10} {' '.join(f'{n:>10}' for n in shown)}  network"
        before = of
        start = f"{row['run'][:8]:>8} {row['method'] or '-':>10}"
        yield f"{start} {_figures(row, shown)}  {row['text']}{_remark(row)}"
    if before is None:
        yield "the store has no rows"


def _figures(row: dict[str, Any], names: Iterable[str]) -> str:
    return " ".join("-".rjust(10) if row[n] is None else f"{row[n]:10.4f}" for n in names)


def _remark(trial: dict[str, Any]) -> str:
    if not trial["trained"]:
        return " (predicted)"
    if not trial["ok"]:
        return " (failed)"
    return f" (expected, stopped after {trial['stopped']} steps)" if trial["stopped"] else ""


def define(values: flags.FlagValues) -> None:
    """Declares the flags of this command."""
    cli.define_workdir(values)
    for name in ("best", "top"):
        flags.DEFINE_integer(
            name, 0, "only so many, the best; 0: all; both names mean the same", 0, None, values
        )
    flags.DEFINE_string("format", "", f"{', '.join(FORMATS)}; '': by --out, or a table", values)
    flags.DEFINE_string("out", "", "file to write to; '': the terminal", flag_values=values)
    flags.DEFINE_string("knowledge", "", "a store instead of a workdir", flag_values=values)
    for name in FILTERS:
        flags.DEFINE_string(name, "", f"of a store, only rows of this {name}", flag_values=values)


def format_of(given: str, out: pathlib.Path | None) -> str:
    """One of FORMATS: what is `given`, or what the name of the file `out` says. UserError."""
    ending = "" if out is None else out.suffix.lstrip(".").lower()
    found = given or (ending if ending in FORMATS else "table")
    if found not in FORMATS:
        near = nearest(found, FORMATS)
        raise UserError(f"--format is {found!r}; allowed are {', '.join(FORMATS)}{near}")
    if found == delivery.PARQUET:
        delivery.check_parquet(out)
    return found


def deliver(
    rows: Iterable[dict[str, Any]],
    columns: Mapping[str, type],
    lines: Callable[[Iterable[dict[str, Any]]], Iterable[str]],
    format_: str,
    out: pathlib.Path | None,
) -> None:
    """Writes `rows` of these columns in one of FORMATS; `lines` makes the table of them."""
    with delivery.place(out, "wb" if format_ == delivery.PARQUET else "w") as file:
        if format_ == delivery.PARQUET:
            delivery.write_parquet(file, columns, rows)
        elif format_ == "json":
            delivery.write_json(file, rows)
        elif format_ == "csv":
            delivery.write_csv(file, [n for n, kind in columns.items() if kind is not list], rows)
        else:
            file.writelines(f"{line}\n" for line in lines(rows))
    if out is not None and out.is_file():  # which standard output may be otherwise
        print(f"written to {out}")


def of_store(values: flags.FlagValues, format_: str, out: pathlib.Path | None, best: int) -> None:
    """Lists the store that --knowledge names."""
    asked = listing.Asked(values.task, values.space, values.method, best)
    with store.existing(pathlib.Path(values.knowledge).expanduser()) as known:
        deliver(listing.rows(known, asked), listing.COLUMNS, store_table, format_, out)


def command(argv: Sequence[str] | None = None) -> int:
    """Runs the command with `argv` (without the program's name); returns the exit code."""

    def body() -> None:
        given = sys.argv[1:] if argv is None else argv
        values, places = cli.parse_places(given, define, USAGE)
        places += [values.workdir] if values.workdir else []
        out = pathlib.Path(values.out).expanduser() if values.out else None
        format_ = format_of(values.format, out)
        if values.best and values.top and values.best != values.top:
            raise UserError(f"--best is {values.best} and --top {values.top}: they mean the same")
        most = values.best or values.top
        if len(places) + bool(values.knowledge) != 1:
            raise UserError("trials takes one workdir, or a store: --knowledge=DIR")
        if values.knowledge:
            of_store(values, format_, out, most)
            return
        wrong = next((name for name in FILTERS if values[name].value), None)
        if wrong is not None:
            raise UserError(f"--{wrong} is for --knowledge=DIR: a workdir has one {wrong} alone")
        found, folder = read(places[0]), pathlib.Path(places[0]).expanduser()
        shown = best(found, most) if most else found
        metric = outcome.measure(folder).name
        deliver(shown, COLUMNS, lambda rows: [table(list(rows), metric)], format_, out)

    return exits.run_command(body)


if __name__ == "__main__":
    signals.leave(command())
