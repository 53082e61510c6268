"""`python -m fnas_jax.meta_train`: learns the kernel of TNAS from a knowledge store."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

from fnas_jax.core import signals

if __name__ == "__main__":
    signals.starting()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before JAX loads: no chatter from XLA

import jax
from absl import flags

from fnas_jax import registry
from fnas_jax.core import cli, devices, exits, stages
from fnas_jax.core.progress import Progress
from fnas_jax.core.types import UserError
from fnas_jax.iteration import INIT, PREPARE
from fnas_jax.knowledge import sources, store
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.methods.tnas import build, stored

USAGE = """Learns the kernel of method tnas from what earlier searches have measured.

  python -m fnas_jax.meta_train --config=experiments/tnas_nats.py --knowledge=DIR

Rows of all tasks of the space are used, but for those of the configuration's own task and
protocol; rewards are computed from them as the configuration defines the reward. A search
with the same configuration and --config.knowledge.dir=DIR finds the result and learns nothing."""


def define(values: flags.FlagValues) -> None:
    """Declares the flags of this command."""
    flags.DEFINE_string(
        "knowledge", "", "folder of the knowledge store that searches write to", flag_values=values
    )


def train(config: Any, folder: str) -> str:
    """Trains and stores the surrogate; returns what to tell. Raises UserError."""
    place = pathlib.Path(folder).expanduser()
    with store.existing(place) as connection:
        devices.enable_compilation_cache(config.jax.cache_dir)
        knowledge = Knowledge(connection, pool=place / "pool")
        with stages.at("reading the data and building the task"):
            task = registry.build_task(config)
            space = registry.informed(task, "tnas")
        if not config.tnas.transfer:
            raise UserError("tnas.transfer is False: there is nothing to learn")
        numbers = build.configure(config)
        found = build.load(config, space, task, knowledge)
        if found is None:
            raise UserError(
                f"{folder!r} holds fewer than {sources.MIN_ROWS} rows of space"
                f" {task.space.name!r} of tasks other than {task.name} that can be compared"
            )
        rows = f"{int(found.source.mask.sum())} rows of {', '.join(found.labels)}"
        at = stored.place(numbers, config.seed, space, found, knowledge)
        if stored.load(at) is not None:
            return f"the kernel that is learnt from {rows} is there already"
        start, key = time.monotonic(), jax.random.key(config.seed)
        method, _ = build.from_transfer(config, space, task, knowledge, found)
        assert method.prepare is not None
        state = jax.jit(method.init)(jax.random.fold_in(key, INIT))
        bar = Progress(config.tnas.iterations, 0, "kernel")
        with contextlib.closing(bar), stages.at("kernel"):
            for _, figures in method.prepare(state, jax.random.fold_in(key, PREPARE)):
                signals.check()
                tau = f"best tau on what is held out {figures['tau']:.3f}"
                bar.show(figures["iteration"], f"iterations: {tau}")
        return f"learnt from {rows} in {time.monotonic() - start:.0f} s"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with `argv` (without the program's name); returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv

    def body() -> None:
        config, values = cli.parse_config(argv, define, USAGE)
        print(train(config, cli.require(values, "knowledge")))

    return exits.run_command(body)


if __name__ == "__main__":
    signals.leave(main())
