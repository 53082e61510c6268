"""`python -m fnas_jax.retrain`: trains and judges a network of a finished search once more."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before JAX loads: no chatter from XLA

import jax
import jax.numpy as jnp
from absl import flags

from fnas_jax import registry
from fnas_jax.core import cli, devices, workdir
from fnas_jax.core.logging import write_json
from fnas_jax.core.types import UserError
from fnas_jax.iteration import FINAL
from fnas_jax.ship import winner as ship

CHANGES = ("winner.", "children.", "task.augment.", "seed")  # keys that may differ from the run's
USAGE = """Trains the best architecture of a finished search again, and its reference network.

  python -m fnas_jax.retrain --workdir=runs/a [--steps=5000] [--pick=2]

--config.KEY=VALUE changes how it is trained: winner.*, children.* and task.augment.*. Writes
retrain.json beside the search's result.json, and the network into best/, in place of the
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
    flags.DEFINE_integer(
        "pick",
        0,
        "number of a network of the front in result.json, from 1, the most accurate; 0: the winner",
        flag_values=values,
    )


def choose(result: dict[str, Any], pick: int) -> dict[str, Any]:
    """The winner, or number `pick` of the front: its `arch` and `accuracy`. Raises UserError."""
    if pick == 0:
        return result["best"]
    front = result.get("pareto", [])
    if not 1 <= pick <= len(front):
        listed = "; ".join(f"{i} is {p['text']}" for i, p in enumerate(front, start=1))
        raise UserError(f"--pick is {pick}; the front has {len(front)} networks: {listed}")
    return front[pick - 1]


def retrain(folder: str, overrides: Sequence[str] = (), pick: int = 0) -> dict:
    """What retrain.json holds, of the run's configuration with `overrides`, --config.KEY=VALUE.

    Raises UserError where the search in `folder` is not finished, or for other keys than CHANGES.
    """
    config = workdir.read_config(folder)
    with workdir.opened(folder, config) as path:
        if not (path / "result.json").exists():
            raise UserError(f"the search in {folder!r} is not finished: it has no result.json")
        result = workdir.read_json(path / "result.json")
        if result["best"] is None:
            raise UserError(f"the search in {folder!r} found no architecture to retrain")
        best = choose(result, pick)
        config = cli.override(config, overrides, CHANGES)
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
            "pick": pick,
            "changed": list(overrides),
            "winner": winner.facts | {"kept": kept},
            "versions": workdir.versions(),
        }
        write_json(path / "retrain.json", judged)
        return workdir.read_json(path / "retrain.json")


def command(argv: Sequence[str] | None = None) -> int:
    """Runs the command with `argv` (without the program's name); returns the exit code."""

    def body() -> None:
        given = sys.argv[1:] if argv is None else argv
        overrides = [a for a in given if a.lstrip("-").startswith("config.") and "=" in a]
        values = cli.parse_flags([a for a in given if a not in overrides], define, USAGE)
        folder = cli.require(values, "workdir")
        short = {"winner.steps": values.steps, "seed": values.seed}
        overrides += [f"--config.{k}={v}" for k, v in short.items() if v is not None]
        devices.use_all_cores()
        judged = retrain(folder, overrides, values.pick)
        print(f"accuracy {cli.percent(judged['winner']['accuracy'])}")
        kept = judged["winner"]["kept"]
        if kept is not None:
            print(f"the network is kept in {pathlib.Path(folder) / kept['folder']}")
        print(f"written to {pathlib.Path(folder) / 'retrain.json'}")

    return cli.run_command(body)


if __name__ == "__main__":
    sys.exit(command())
