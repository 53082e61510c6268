"""`python -m fnas_jax.latency`: a table of latencies of this device, or the time of a network."""

from __future__ import annotations

import os
import pathlib
import re
import sys
from collections.abc import Sequence

from fnas_jax.core import signals

if __name__ == "__main__":
    signals.starting()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before JAX loads: no chatter from XLA

import ml_collections
import numpy as np
from absl import flags

from fnas_jax import registry
from fnas_jax.core import cli, config_json, devices, exits, stages
from fnas_jax.core import config as config_lib
from fnas_jax.core.sections import Latency
from fnas_jax.core.types import UserError
from fnas_jax.ship import stopwatch
from fnas_jax.tasks import latency
from fnas_jax.timing import make
from fnas_jax.timing import table as tables
from fnas_jax.timing.table import Table

LARGEST_ERROR, LEAST_TAU = 0.1, 0.9  # of a table that can be relied on, on networks it has not seen
USAGE = """Times what the networks of a space consist of, on this device, and writes a table.

  python -m fnas_jax.latency --config=FILE --out=table.json [--networks=30]
  python -m fnas_jax.latency --workdir=runs/a --out=table.json

A search with --config.latency.source=table:table.json looks latencies up, on any machine. The table
is judged by networks that it was not made with.

  python -m fnas_jax.latency --artefact=shipped/jax

times an exported network; --config.latency.batch_size=N and --config.latency.repeats=N say how."""


def define(values: flags.FlagValues) -> None:
    """Declares the flags of this command."""
    cli.define_workdir(values)
    flags.DEFINE_string("out", "", "file that the table is written to", flag_values=values)
    flags.DEFINE_integer(
        "networks",
        30,
        "random networks that are timed to make the table, and as many others to judge it",
        lower_bound=make.FEWEST // 2,
        flag_values=values,
    )
    flags.DEFINE_string(
        "artefact", "", "folder of a network exported to jax, flax or onnx", flag_values=values
    )


def write(config: ml_collections.ConfigDict, out: pathlib.Path, networks: int) -> Table:
    """Makes the table for the networks of `config` on its images, and writes it to `out`.

    Raises UserError for a task without networks, or a file that cannot be written.
    """
    if out.exists() and not out.is_file():
        raise UserError(f"{str(out)!r} is there and is no file; --out names that of the table")
    config = config.copy_and_resolve_references()
    with config.unlocked():  # what is to be made is not there yet
        config.latency.source = latency.DEVICE
    devices.enable_compilation_cache(config.jax.cache_dir)
    with stages.at("reading the data and building the task"):
        task = registry.build_task(config)
    if task.dataset is None:
        raise UserError(f"the task {task.name} trains no networks, so there is nothing to time")
    tables.try_out(out)  # not after minutes of timing
    images = latency.images_of(task.dataset)
    with stages.at("timing operations"):
        found = make.make(task.space, images, config.latency.batch_size, networks, say)
    tables.write(out, found)
    return found


def say(text: str) -> None:
    """A line about what is going on."""
    print(text, file=sys.stderr, flush=True)


def quality(table: Table) -> str:
    """How well it predicts, in lines for the terminal."""
    found = table.validation
    error, largest, tau = (found[n] for n in ("median_error", "largest_error", "kendall_tau"))
    text = (
        f"{len(table.operations_ms)} operations on {table.device}\n"
        f"predicted against measured, on {found['networks']} other networks: median error"
        f" {cli.percent(error)}, largest {cli.percent(largest)}, Kendall's tau {tau:.3f}"
    )
    if error > LARGEST_ERROR or not tau >= LEAST_TAU:
        text += (
            f"\nthat is not good: a median error above {LARGEST_ERROR:.0%}, or tau below"
            f" {LEAST_TAU}; was the machine busy?"
        )
    return text


def timed(timing: stopwatch.Timing) -> str:
    """What became of `stopwatch.artefact`, for the terminal."""
    low, median, high = np.quantile(timing.ms, (0.05, 0.5, 0.95))
    images = "an image" if timing.batch_size == 1 else f"{timing.batch_size} images"
    return (
        f"{median:.4g} ms for {images} on {timing.device}: median of {len(timing.ms)} passes, of"
        f" which 5 to 95% took {low:.4g} to {high:.4g} ms"
    )


def settings(argv: Sequence[str]) -> tuple[ml_collections.ConfigDict, flags.FlagValues]:
    """The configuration that the arguments name, and their flags. Raises UserError."""
    from_file = any(re.match(r"--?config(=|$)", a) for a in argv)
    if from_file or not any(re.match("--?(workdir|artefact)", a) for a in argv):
        config, values = cli.parse_config(argv, define, USAGE)
        if values.workdir:
            raise UserError("--config and --workdir both say what is to be timed; give one of them")
        return config, values
    overrides, rest = cli.split_overrides(argv)
    values = cli.parse_flags(rest, define, USAGE)
    config = config_json.read_config(values.workdir) if values.workdir else config_lib.default()
    return cli.override(config, overrides, ("latency.",)), values


def command(argv: Sequence[str] | None = None) -> int:
    """Runs the command with `argv` (without the program's name); returns the exit code."""

    def body() -> None:
        config, values = settings(sys.argv[1:] if argv is None else argv)
        if values.artefact:
            options = config_lib.read(Latency, config.latency)
            folder = pathlib.Path(values.artefact).expanduser()
            print(timed(stopwatch.artefact(folder, options.batch_size, options.repeats)))
            return
        out = pathlib.Path(cli.require(values, "out")).expanduser()
        devices.use_all_cores()
        print(quality(write(config, out, values.networks)))
        print(f"written to {out}")

    return exits.run_command(body)


if __name__ == "__main__":
    signals.leave(command())
