"""`python -m fnas_jax.retrain`: judges the best architecture of a finished search once more."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before JAX loads: no chatter from XLA

import jax
import jax.numpy as jnp
from absl import flags

from fnas_jax import registry
from fnas_jax.core import cli, devices, workdir
from fnas_jax.core import config as config_lib
from fnas_jax.core.logging import write_json
from fnas_jax.core.types import UserError
from fnas_jax.iteration import FINAL
from fnas_jax.ship import winner as ship

USAGE = """Trains the best architecture of a finished search again, and its reference network.

  python -m fnas_jax.retrain --workdir=runs/a [--steps=5000]

Writes retrain.json beside the search's result.json, and the network into best/, in place of the
one that the search left there."""


def define(values: flags.FlagValues) -> None:
    """Declares the flags of this command."""
    cli.define_workdir(values)
    flags.DEFINE_integer(
        "steps", None, "training steps; those of the run where not given", flag_values=values
    )
    flags.DEFINE_integer(
        "seed", None, "random seed; that of the run where not given", flag_values=values
    )


def retrain(folder: str, steps: int | None, seed: int | None) -> dict:
    """What retrain.json holds. Raises UserError where the search in `folder` is not finished."""
    config = workdir.read_config(folder)
    with workdir.opened(folder, config) as path:
        if not (path / "result.json").exists():
            raise UserError(f"the search in {folder!r} is not finished: it has no result.json")
        best = workdir.read_json(path / "result.json")["best"]
        if best is None:
            raise UserError(f"the search in {folder!r} found no architecture to retrain")
        changed = config_lib.flatten(config)
        changed |= {} if steps is None else {"winner.steps": steps}
        changed |= {} if seed is None else {"seed": seed}
        config = config_lib.validate(config_lib.nest(changed))
        devices.enable_compilation_cache(config.jax.cache_dir)
        task = registry.build_task(config)
        key = jax.random.fold_in(jax.random.key(config.seed), FINAL)
        # The search has reported this form already, unless it was of an earlier version.
        arch = task.evaluator.form(jnp.asarray(best["arch"], jnp.int32)[None])[0]
        winner = task.final(arch, key)
        found = ship.Winner(config, task, winner, best["accuracy"], "retrain")
        kept = ship.keep(path, found, lambda line: print(line, file=sys.stderr))
        judged = {
            "arch": arch,
            "steps": config.winner.steps,
            "seed": config.seed,
            "winner": winner.facts | {"kept": kept},
            "versions": workdir.versions(),
        }
        write_json(path / "retrain.json", judged)
        return workdir.read_json(path / "retrain.json")


def command(argv: Sequence[str] | None = None) -> int:
    """Runs the command with `argv` (without the program's name); returns the exit code."""

    def body() -> None:
        values = cli.parse_flags(sys.argv[1:] if argv is None else argv, define, USAGE)
        folder = cli.require(values, "workdir")
        devices.use_all_cores()
        judged = retrain(folder, values.steps, values.seed)
        print(f"accuracy {cli.percent(judged['winner']['accuracy'])}")
        kept = judged["winner"]["kept"]
        if kept is not None:
            print(f"the network is kept in {pathlib.Path(folder) / kept['folder']}")
        print(f"written to {pathlib.Path(folder) / 'retrain.json'}")

    return cli.run_command(body)


if __name__ == "__main__":
    sys.exit(command())
