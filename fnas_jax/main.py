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

from fnas_jax import loop, opening, registry, unread
from fnas_jax.core import cli, devices, exits, hosts
from fnas_jax.core.types import Failed, UserError
from fnas_jax.planning import dry_run
from fnas_jax.ship import winner as ship
from fnas_jax.summary import summary

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
            config = registry.completed(config)
            for told in (*opening.early(config), unread.line(config)):
                if told:
                    print(told, file=sys.stderr)
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

    return exits.run_command(body, signals.GOES_ON)


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


if __name__ == "__main__":
    signals.leave(main())
