"""`python -m fnas_jax.retrain`: trains and judges a network of a finished search once more."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fnas_jax.core import signals

if __name__ == "__main__":
    signals.starting(signals.GOES_ON)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before JAX loads: no chatter from XLA

import jax
import jax.numpy as jnp
import ml_collections
from absl import flags

from fnas_jax import outcome, pareto, registry, shortlist, trials
from fnas_jax.core import cli, config_json, devices, exits, jsons, stages, workdir
from fnas_jax.core import keep as keeping
from fnas_jax.core import measure as measures
from fnas_jax.core.keep import Keep
from fnas_jax.core.logging import write_json
from fnas_jax.core.types import Failed, UserError
from fnas_jax.iteration import FINAL
from fnas_jax.ship import winner as ship
from fnas_jax.tasks import facts
from fnas_jax.tasks.base import Task

CHANGES = ("winner.", "children.", "task.augment.", "latency.", "seed")  # may differ from the run's
IDLE = {  # of these, those that a final training does not read
    "children.steps": "winner.steps are the steps of a final training (--steps)",
    "winner.finalists": "finalists are of the search, and retrain holds no finals (--top)",
}
USAGE = """Trains the best architecture of a finished search again, and its reference network.

  python -m fnas_jax.retrain --workdir=runs/a [--steps=5000] [--pick=2 | --top=3]

--config.KEY=VALUE changes how it is trained: winner.*, children.* and task.augment.* (but for
children.steps and winner.finalists, which are of the search); and by latency.*, where its latency
comes from. Writes retrain.json beside the search's result.json, and the network into best/, in
place of the one that the search left there."""
Builder = Callable[[ml_collections.ConfigDict], Task]


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
    flags.DEFINE_integer(
        "top",
        0,
        "compares so many of the best by full training and validation images, and takes the best"
        " of them; 0: the winner of the search, without",
        flag_values=values,
    )


def retrain(
    folder: str | pathlib.Path,
    overrides: Sequence[str] = (),
    pick: int | Mapping[str, Any] = 0,
    top: int = 0,
    build: Builder | None = None,
) -> dict[str, Any]:
    """What retrain.json holds, of the run's configuration with `overrides`, --config.KEY=VALUE.

    `pick`: number of a network of the front, from 1, or such a network, which `pareto.number` looks
    up; `top`: so many of the best are compared. 0 of both: the winner. `build` makes the task of a
    configuration (None: `registry.build_task`).

    Raises UserError where the search in `folder` is not finished, or for other keys than CHANGES
    but for IDLE, or where nothing would be trained; Failed where the training failed. What was
    kept before then stays, and so does its retrain.json.
    """
    if pick and top:
        given = pareto.words(pick) if isinstance(pick, Mapping) else pick
        raise UserError(f"pick is {given} beside top, which is {top}; give one of the two")
    if top < 0 or top == 1:
        raise UserError(f"top is {top}; it takes 2 networks or more to compare them (0: none)")
    devices.use_all_cores()
    config = config_json.read_config(folder)
    with workdir.opened(folder, config) as path:
        if not (path / "result.json").exists():
            raise UserError(f"the search in {str(folder)!r} is not finished: it has no result.json")
        result = outcome.read(path, ("best",))
        number = pareto.number(result, pick)
        best = pareto.choose(result, number)
        config = cli.override(as_trained(config, result), overrides, CHANGES, IDLE)
        tried = trials.read(path) if top else []
        devices.enable_compilation_cache(config.jax.cache_dir)
        with stages.at("reading the data and building the task"):
            task = (build or registry.build_task)(config)
        if task.dataset is not None and config.winner.steps == 0:
            raise UserError("winner.steps is 0, so no network would be trained; --steps says more")
        if task.dataset is not None:
            facts.tell(task.dataset.notes)
        key = jax.random.fold_in(jax.random.key(config.seed), FINAL)
        # The search has reported this form already, unless it was of an earlier version.
        arch = task.evaluator.form(asked(best["arch"], task, path)[None])[0]
        validation = best["accuracy"]
        compared: list[dict[str, Any]] = []
        before = keeping.arguments(task.keeps, path, config)
        if top:
            entries = shortlist.ranked(result, tried, task.space, top)
            with stages.at("comparison"):
                chosen, compared = _compare(config, task, entries, top, key, *before)
            arch, validation = asked(chosen["arch"], task, path), chosen["accuracy"]
        with stages.at("winner"):
            winner = task.final(arch, key, *before)
        failure = ship.failure(winner.facts)
        if failure:
            keeping.remove(path)  # it would fail in the same way
            raise Failed(f"{failure}; what was kept before stays")
        found = ship.Winner(config, task, winner, validation, "retrain")
        wanted = {"pick": number, "top": top, "changed": list(overrides)}
        judged = winner.facts | {"kept": ship.keep(path, found, _say)}
        said = content(config, task, arch, wanted, compared, judged)
        write_json(path / "retrain.json", said)
        keeping.remove(path)
        return jsons.read(path / "retrain.json")


def content(
    config: ml_collections.ConfigDict,
    task: Task,
    arch: jax.Array,
    wanted: dict[str, Any],
    compared: list[dict[str, Any]],
    judged: dict[str, Any],
) -> dict[str, Any]:
    """What retrain.json holds of `arch` [T], which was `wanted` so and `judged` so."""
    return {
        "arch": arch,
        "steps": config.winner.steps,
        "seed": config.seed,
        **wanted,
        "compared": measures.valued(task.measure, compared),
        "winner": measures.valued(task.measure, judged),
        "metric": task.measure._asdict(),
        "versions": workdir.versions(task.layers),
    }


def asked(arch: Sequence[int], task: Task, folder: pathlib.Path) -> jax.Array:
    """`arch` [T] of result.json in `folder`. Raises UserError where the task's space has it not."""
    most = task.space.cardinalities
    if len(arch) != len(most) or not all(0 <= a < n for a, n in zip(arch, most, strict=True)):
        raise UserError(
            f"{str(folder / 'result.json')!r} is damaged: {list(arch)!r:.80} is no architecture of"
            f" {task.space.name}, which has {len(most)} decisions of {', '.join(map(str, most))}"
            " choices"
        )
    return jnp.asarray(arch, jnp.int32)


def as_trained(
    config: ml_collections.ConfigDict, result: dict[str, Any]
) -> ml_collections.ConfigDict:
    """`config` with the steps that the winner of `result` had, where time decided these."""
    steps = (result.get("winner") or {}).get("steps")
    if steps and config.search.winner_share:
        config = config.copy_and_resolve_references()
        config.winner.steps = steps
    return config


def _compare(
    config: ml_collections.ConfigDict,
    task: Task,
    entries: list[dict[str, Any]],
    top: int,
    key: jax.Array,
    *kept: Keep,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(the chosen one, all) of `entries`, which are `top` unless the search has measured fewer."""
    if len(entries) < top:
        _say(f"top is {top}; the search has measured {len(entries)} networks")
    compared = shortlist.hold(config, task, entries, key, _say, *kept)
    return next(entry for entry in compared if entry["chosen"]), compared


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def summary(judged: dict[str, Any], folder: str | pathlib.Path) -> str:
    """What retrain.json tells on the terminal."""
    lines, measure = [], measures.of_result(judged)
    name, text = measure.name, measure.text
    if judged["compared"]:
        lines.append(shortlist.table(judged["compared"], measure))
        lines.append(
            "figures above are on validation images; the best reward (*) was then trained on"
            " training and validation images, and tested"
        )
    winner = judged["winner"]
    if winner.get("accuracy") is None and winner.get("value") is not None:
        lines.append(f"value {winner['value']:.6g}")  # of a table whose metric is no accuracy
    elif "accuracy" in winner:  # a function, as the task, says no more than in the search
        lines.append(f"{name} {text(winner['accuracy'])}")
    if "reference" in winner:
        lines.append(f"reference network {text(winner['reference']['accuracy'])}")
    if winner["kept"] is not None:
        lines.append(f"the network is kept in {pathlib.Path(folder) / winner['kept']['folder']}")
    return "\n".join([*lines, f"written to {pathlib.Path(folder) / 'retrain.json'}"])


def command(argv: Sequence[str] | None = None) -> int:
    """Runs the command with `argv` (without the program's name); returns the exit code."""

    def body() -> None:
        overrides, rest = cli.split_overrides(sys.argv[1:] if argv is None else argv)
        values = cli.parse_flags(rest, define, USAGE)
        folder = cli.require(values, "workdir")
        short = {"winner.steps": values.steps, "seed": values.seed}
        overrides += [f"--config.{k}={v}" for k, v in short.items() if v is not None]
        print(summary(retrain(folder, overrides, values.pick, values.top), folder))

    return exits.run_command(body, signals.GOES_ON)


if __name__ == "__main__":
    signals.leave(command())
