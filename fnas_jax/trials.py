"""`python -m fnas_jax.trials`: what a search has tried, finished or not."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from fnas_jax.core import signals

if __name__ == "__main__":
    signals.starting()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before JAX loads: no chatter from XLA

import numpy as np
from absl import flags

from fnas_jax import outcome, registry
from fnas_jax.core import cli, workdir
from fnas_jax.core import config as config_lib
from fnas_jax.core.logging import last_line
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import history, store
from fnas_jax.spaces import categorical
from fnas_jax.spaces.base import Space

LOG = logging.getLogger(__name__)
FORMATS = ("table", "csv", "json")
USAGE = """Prints what the search of a workdir has tried, a line each, in the order of the search.

  python -m fnas_jax.trials --workdir=runs/a [--top=10] [--format=csv]"""


def read(folder: str | pathlib.Path) -> list[dict[str, Any]]:
    """Every proposal of the run in `folder`, in its order; None where a number is unknown.

    Each has `number`, `text`, `arch`, `trained` (else predicted), `ok`, `value` (the accuracy, or
    the task's own metric as it was returned), and `history.NUMBERS`. Raises UserError where there
    is no run, or its knowledge store is not there.
    """
    config = workdir.read_config(folder)
    path = pathlib.Path(folder).expanduser()
    sign = outcome.measure(path).sign
    with store.existing(workdir.knowledge_folder(path, config)) as known:
        run = workdir.read_run(path).id
        name = history.space_of(known, run)
        tell_lost(path, history.count_trained(known, run))
        if name is None:  # nothing was tried yet
            return []
        space = built_space(history.identity_of(known, run), config)
        # By its name: of a space that was an object there is less here than its key is about.
        rows = history.rows(known, name, trained=None, run_id=run)
    known_ok = np.where(rows.ok, rows.accuracy, np.nan)
    numbers = {"value": (sign * known_ok).tolist()}
    numbers |= {name: getattr(rows, name).tolist() for name in history.NUMBERS}
    return [
        {
            "number": i,
            "text": space.describe(arch)["text"],
            "arch": arch.tolist(),
            "trained": bool(rows.trained[i]),
            "ok": bool(rows.ok[i]),
            **{name: None if v[i] != v[i] else v[i] for name, v in numbers.items()},
        }
        for i, arch in enumerate(rows.decisions)
    ]


def space_of(folder: str | pathlib.Path) -> Space | None:
    """The space of the run in `folder`; None where it has tried nothing. Raises as `read`."""
    config = workdir.read_config(folder)
    path = pathlib.Path(folder).expanduser()
    with store.existing(workdir.knowledge_folder(path, config)) as known:
        run = workdir.read_run(path).id
        if history.space_of(known, run) is None:
            return None
        return built_space(history.identity_of(known, run), config)


def tell_lost(folder: pathlib.Path, there: int) -> None:
    """Warns where the search in `folder` has logged more measured networks than are `there`."""
    trained = last_line(folder / "metrics.jsonl").get("trained", 0)
    if isinstance(trained, int) and there < trained:
        LOG.warning(
            "the history has %d of the %d architectures that the search in %r has measured: the"
            " others are lost",
            *(there, trained, str(folder)),
        )


def built_space(identity: str, config: Any) -> Space:
    """The space of a run: one of ours, or as much of it as its `identity` says."""
    if config.space.name in registry.SPACES and config.task.name.startswith("images/"):
        return registry.build_space(config)
    said = json.loads(identity or "{}")
    if said.get("name") in ("macro", "cell"):  # published tables
        return registry.SPACES[said["name"]](config.space)
    if "choices" in said:
        options = dict(zip(said["names"], said["choices"], strict=True))
        return categorical.choices(options, said["name"])
    if said:
        return categorical.make(said["cardinalities"], said["name"], said["names"])
    return registry.build_space(config)  # of an earlier version


def best(trials: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The `count` measured ones of the highest reward, the best first, each network once."""
    measured = [t for t in trials if t["trained"] and t["ok"]]
    first: dict[str, dict[str, Any]] = {}
    for trial in sorted(measured, key=lambda t: -t["reward"]):
        first.setdefault(trial["text"], trial)
    return list(first.values())[:count]


def render(trials: Sequence[dict[str, Any]], format_: str, metric: str = "accuracy") -> str:
    """The trials as one of `FORMATS`, without a last newline; `metric` is the task's."""
    if format_ == "json":
        return json.dumps(list(trials))
    names = [name for name in (trials[0] if trials else ()) if name != "arch"]
    if format_ == "csv":
        out = io.StringIO()
        writer = csv.DictWriter(out, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(trials)
        return out.getvalue().rstrip("\n")
    shown = {n: n for n in history.NUMBERS}
    if metric != "accuracy":  # a column of this name would hold the negative of what is minimised
        shown = {"value": metric} | {n: n for n in history.NUMBERS[1:]}
    known = [n for n in shown if any(t[n] is not None for t in trials)]
    head = f"{'number':>6} " + " ".join(f"{shown[name]:>10}" for name in known) + "  network"
    lines = [
        f"{t['number']:>6} "
        + " ".join("-".rjust(10) if t[n] is None else f"{t[n]:10.4f}" for n in known)
        + f"  {t['text']}{_remark(t)}"
        for t in trials
    ]
    return "\n".join([head, *lines])


def _remark(trial: dict[str, Any]) -> str:
    if not trial["trained"]:
        return " (predicted)"
    return "" if trial["ok"] else " (failed)"


def define(values: flags.FlagValues) -> None:
    """Declares the flags of this command."""
    cli.define_workdir(values)
    flags.DEFINE_integer(
        "top", 0, "only so many, those of the highest reward; 0: all", 0, flag_values=values
    )
    flags.DEFINE_string("format", FORMATS[0], ", ".join(FORMATS), flag_values=values)


def command(argv: Sequence[str] | None = None) -> int:
    """Runs the command with `argv` (without the program's name); returns the exit code."""

    def body() -> None:
        values = cli.parse_flags(sys.argv[1:] if argv is None else argv, define, USAGE)
        if values.format not in FORMATS:
            near = config_lib.nearest(values.format, FORMATS)
            raise UserError(
                f"--format is {values.format!r}; allowed are {', '.join(FORMATS)}{near}"
            )
        folder = cli.require(values, "workdir")
        found, metric = read(folder), outcome.measure(pathlib.Path(folder).expanduser()).name
        print(render(best(found, values.top) if values.top else found, values.format, metric))

    return cli.run_command(body)


if __name__ == "__main__":
    signals.leave(command())
