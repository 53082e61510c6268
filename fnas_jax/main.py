"""`fnas-jax search` and `python -m fnas_jax.main`: runs a search, or goes on with one."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from fnas_jax.core import signals

if __name__ == "__main__":
    signals.starting(signals.GOES_ON)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before JAX loads: no chatter from XLA

from absl import flags

from fnas_jax import loop
from fnas_jax.core import cli, devices, hosts
from fnas_jax.core import measure as measures
from fnas_jax.core.limits import UNITS
from fnas_jax.core.types import Failed, UserError
from fnas_jax.planning import dry_run
from fnas_jax.ship import winner as ship

NO_FOLDER = os.path.join(os.devnull, "workdir")  # where no run is
USAGE = """Searches a network architecture; the same command goes on with an interrupted search.

  python -m fnas_jax.main --config=experiments/fnas_digits.py --workdir=runs/a

On several hosts, the same command on each, with --coordinator=HOST:PORT --num_hosts=N --host_id=I;
on a TPU pod without them.

With --plan, a search on images only says what memory, work and time it would take, here or on a
machine that is not here; what does not fit is refused.

  python -m fnas_jax.main --config=fnas_digits --plan --plan_on=8xh100"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with `argv` (without the program's name); returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv

    def define(values: flags.FlagValues) -> None:
        cli.define_workdir(values)
        cli.define_hosts(values)
        define_plan(values)

    def body() -> None:
        config, values = cli.parse_config(argv, define, USAGE)
        asked = dry_run.Asked(values.plan_on, values.plan_price, values.plan_images)
        if values.plan:
            devices.use_all_cores()
            dry_run.run(config, asked, values.workdir or NO_FOLDER, print)
            return
        if asked != dry_run.Asked():
            raise UserError("--plan_on, --plan_price and --plan_images are for --plan")
        folder = cli.require(values, "workdir")
        devices.use_all_cores()
        hosts.start(values.coordinator, values.num_hosts, values.host_id)
        result = loop.run(config, folder)
        if hosts.is_first():
            print(summary(result, folder))
            reason = failure(result)
            if reason:
                raise Failed(f"{reason}; result.json tells more")

    return cli.run_command(body, signals.GOES_ON)


def define_plan(values: flags.FlagValues) -> None:
    """Declares --plan and what it may be asked."""
    flags.DEFINE_boolean(
        "plan",
        False,
        "say what a search on images would take, and train nothing",
        flag_values=values,
    )
    flags.DEFINE_string(
        "plan_on",
        "",
        "--plan for a machine that is not here: COUNTxKIND, as 8xh100, 16xv5e, or COUNTxGIB:TFLOPS",
        flag_values=values,
    )
    flags.DEFINE_float(
        "plan_price", 0.0, "dollars for an hour of one of its devices", 0.0, flag_values=values
    )
    flags.DEFINE_string(
        "plan_images",
        "",
        "--plan for images that are not here: NUMBER[+TEST]xHEIGHTxWIDTHxCHANNELSxCLASSES",
        flag_values=values,
    )


def failure(result: Mapping[str, Any]) -> str:
    """Why a finished search has found no network, or none that is trained; "" where it has."""
    if result["best"] is None:
        counts = result["counts"]
        return (
            f"no architecture gave a result: {counts['trained']} were trained, and"
            f" {counts['failed']} failed"
        )
    return ship.failure(result["winner"])


def summary(result: dict, folder: str) -> str:
    """What a finished search tells on the terminal."""
    best, winner, counts = result["best"], result["winner"], result["counts"]
    measure = measures.of_result(result)
    metric, text = measure.name, measure.text
    done = (winner or {}).get("searched_by", "trained")
    total = (result.get("seconds") or {}).get("total")
    lines = [f"{counts['trained']} architectures {done}"]
    lines[0] += "" if total is None else f" in {total:.0f} s"
    if counts.get("over_limit"):
        lines[0] += f", {counts['over_limit']} not, because they are above a limit"
    if best is None:
        lines.append("none of them gave a result")
    else:
        lines.append(f"best: {best['description']['text']}")
        lines.append(f"search {reading(result)}{final_readings(result)}")
    target = result.get("target")
    if target and target.get("met") is False:
        unit = UNITS.get(target["cost"], target["cost"])
        lines.append(f"it misses the target of {target['target']:g} {unit}: {target['value']:.4g}")
    if winner and winner.get("rank") is not None:
        rows = winner["architectures"]
        of = "1 row" if rows == 1 else f"{rows} rows"
        lines.append(f"rank {winner['rank']} of the {of} of the table")
    if winner and winner.get("accuracy") is not None:
        lines.append(f"final {metric} {text(winner['accuracy'])}{cost(winner)}{others(result)}")
    if winner and (tuned := winner.get("finetuned")):
        lines.append(f"the same from inherited weights {text(tuned.get('accuracy'))}")
    if winner and (reference := winner.get("reference")):
        lines.append(f"reference network {text(reference.get('accuracy'))}{cost(reference)}")
    if winner and winner.get("kept"):
        lines.append(f"the network is kept in {os.path.join(folder, winner['kept']['folder'])}")
    return "\n".join([*lines, f"written to {os.path.join(folder, 'result.json')}"])


def reading(result: dict) -> str:
    """The winner's figure in the search; results of earlier versions have accuracies only."""
    best, measure = result["best"], measures.of_result(result)
    if measure.kind == "number":  # whose reward is no figure that anybody knows
        return f"{measure.name} {measure.text(best['accuracy'])}"
    reward = "unknown" if best["reward"] is None else f"{best['reward']:.4f}"
    return f"{measure.name} {measure.text(best['accuracy'])}, reward {reward}"


def others(result: dict) -> str:
    """The interval of the kept winner, and its other metrics; results of before have neither."""
    measure, winner = measures.of_result(result), result["winner"]
    kept = winner.get("kept") or {}
    words = []
    if kept.get("interval") and kept["interval"]["metric"] == measure.name:
        values = (kept["interval"][end] for end in ("low", "high"))
        ends = (measure.text(None if x is None else measure.sign * x) for x in values)
        words.append(f"95% between {' and '.join(ends)}")
    metrics = winner.get("metrics") or {}
    words += [
        f"{name} {x:.4g}" for name, x in metrics.items() if name != measure.name and x is not None
    ]
    return f" ({', '.join(words)})" if words else ""


def final_readings(result: dict) -> str:
    """How the finals decided, where there were any; results of earlier versions had none."""
    best, count = result["best"], len(result.get("finalists", ()))
    if "first_reward" in best:
        first = measures.of_result(result).text(best.get("first_accuracy"))
        return f" (best of {count} trained again; at first {first})"
    return f" (none of the {count} best gave a result when trained again)" if count else ""


def cost(network: dict) -> str:
    """The words "at 1.23 MFLOPs", where they are known."""
    mflops = network.get("mflops")
    return "" if mflops is None else f" at {mflops:.3g} MFLOPs"


if __name__ == "__main__":
    signals.leave(main())
