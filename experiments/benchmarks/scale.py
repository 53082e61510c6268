"""MnasNet's search on ImageNet, and what FNAS trains instead: memory, time and money, on paper.

    python -m experiments.benchmarks.scale --json OUT

Nothing is trained and no accelerator is needed. Multiply-adds are counted (mean of 256 random
networks of the space at 224x224), memory is traced, peak rates and prices are published ones
(`fnas_jax/planning/machines.py`, with sources; `--price NAME=DOLLARS` replaces one). Which share of
the peak is reached is an assumption: there is a row for each of 10%, 20% and 40%. The searches are
those of `experiments/fnas_imagenet.py` with other keys:

mnasnet: 8,000 children of 5 epochs from fresh weights, as Tan et al., CVPR 2019 (arXiv 1807.11626,
section 5); fnas_fresh: 1,600 of these, a fifth, what FNAS needs of PPO's evaluations on the tables
of docs/methods/index.md (6 to 8 times fewer); fnas: as many, which inherit and train for a quarter
of the steps, as in docs/pool.md, where that was measured on small images. Without the winner's
training.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import pathlib
import sys
from typing import Any

import ml_collections

from experiments.benchmarks import records
from experiments.benchmarks.progress import followed
from experiments.benchmarks.records import Record
from fnas_jax import registry
from fnas_jax.core import config as config_lib
from fnas_jax.core import config_file
from fnas_jax.core.types import UserError
from fnas_jax.planning import dry_run, machines, speed, work
from fnas_jax.planning.machines import Cluster
from fnas_jax.tasks import images, memory
from fnas_jax.tasks.context import TrainContext

BENCHMARK, TASK = "scale", "imagenet"
CONFIG = pathlib.Path(__file__).parents[1] / "fnas_imagenet.py"
IMAGES = "1281167+50000x224x224x3x1000"
MACHINES = ("16xv5e", "8xh100")
_FRESH: dict[str, Any] = {"akp.enabled": False}
SEARCHES: dict[str, dict[str, Any]] = {  # keys of the file that are others, and of the steps
    "mnasnet": _FRESH | {"method.name": "ppo", "search.budget": 8000},
    "fnas_fresh": _FRESH,
    "fnas": {},
}


def configured(name: str, cluster: Cluster) -> ml_collections.ConfigDict:
    """The configuration of a search of `SEARCHES`, with a child for each device in a batch."""
    config = config_file.load(str(CONFIG))
    values = {"search.batch": cluster.devices, "winner.steps": 0} | SEARCHES[name]
    if not values.get("akp.enabled", True):
        values["children.steps"] = 4 * config.children.steps
    return config_lib.validate(config_lib.nest(config_lib.flatten(config) | values))


@functools.cache
def context(name: str, machine: str) -> TrainContext:
    """The training of the children of a search."""
    config = configured(name, machines.parse(machine))
    dataset = dry_run.stated(config, IMAGES)
    return images.train_context(config, registry.build_space(config), dataset)


@functools.cache
def sizes_of_children() -> memory.Sizes:
    """Of any child of any search here: batch and space are the same."""
    ctx, cluster = context("fnas", MACHINES[0]), machines.parse(MACHINES[0])
    return memory.of_children(ctx, dry_run.network_for(ctx, cluster), dry_run.on(cluster))


def figures(name: str, machine: str, price: float) -> list[Record]:
    """What a search takes on a machine: GiB, hours and dollars."""
    cluster, ctx = machines.parse(machine, price), context(name, machine)
    found = work.of(ctx, speed.size_of(ctx))
    need = memory.need(ctx, dry_run.on(cluster), sizes_of_children())
    method = f"{name}@{machine}"
    out = [
        records.record(BENCHMARK, TASK, method, "gib", need.total / memory.GIB),
        records.record(BENCHMARK, TASK, method, "gib_there", cluster.kind.gib),
        records.record(BENCHMARK, TASK, method, "children", found.children),
        records.record(
            BENCHMARK, TASK, method, "exa_operations", machines.operations(work.total(found)) / 1e18
        ),
    ]
    for share in machines.SHARES:
        hours = work.seconds(found, cluster.speed(share), cluster.devices) / 3600
        money = hours * cluster.devices * cluster.kind.price
        percent = f"{100 * share:.0f}%"
        out.append(records.record(BENCHMARK, TASK, method, f"hours@{percent}", hours))
        out.append(records.record(BENCHMARK, TASK, method, f"dollars@{percent}", money))
    return out


def table(found: list[Record]) -> list[str]:
    """The records as a Markdown table, a row for each search on each machine."""
    known = {(r["method"], r["metric"]): r["value"] for r in found}
    shares = [f"{100 * share:.0f}%" for share in machines.SHARES]
    head = ["search", "machine", "children", "10^18 operations", "GiB of a device (has)"]
    head += [f"days, dollars at {share} of peak" for share in shares]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
    for method in dict.fromkeys(r["method"] for r in found):
        name, _, machine = method.partition("@")
        cells = [f"`{name}`", machine, f"{known[method, 'children']:,.0f}"]
        cells.append(f"{known[method, 'exa_operations']:,.0f}")
        cells.append(f"{known[method, 'gib']:.1f} ({known[method, 'gib_there']:g})")
        for share in shares:
            days, money = known[method, f"hours@{share}"] / 24, known[method, f"dollars@{share}"]
            cells.append(f"{days:,.2g}, {money:,.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def prices(texts: list[str]) -> dict[str, float]:
    """{kind: dollars} of NAME=DOLLARS. Raises UserError."""
    found = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            found[name] = float(number)
        except ValueError:
            found[name] = 0.0
        if name not in machines.KINDS or not found[name] > 0:
            kinds = ", ".join(machines.KINDS)
            raise UserError(f"--price is {text!r}; it is NAME=DOLLARS an hour, of {kinds}")
    return found


def run(options: argparse.Namespace) -> list[Record]:
    """All figures; prints the table and its sources."""
    own = prices(options.price)
    found: list[Record] = []
    turns = itertools.product(options.machines, options.searches)
    for machine, name in followed(BENCHMARK, turns, lambda turn: f"{turn[1]} on {turn[0]}"):
        found += figures(name, machine, own.get(machine.partition("x")[2], 0.0))
    for line in table(found):
        print(line)
    for machine in options.machines:
        kind = machines.parse(machine, own.get(machine.partition("x")[2], 0.0)).kind
        print(
            f"{machine}: {kind.tflops:g} TFLOPS, {kind.price:g} dollars an hour each: {kind.source}"
        )
    return found


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = records.parser(__doc__, __spec__.name)
    records.add_names(parser, "--searches", tuple(SEARCHES), "mnasnet, fnas_fresh, fnas")
    records.add_names(parser, "--machines", MACHINES, "as `--plan_on` takes them")
    parser.add_argument(
        "--price", action="append", default=[], metavar="NAME=DOLLARS", help="of a device and hour"
    )
    options = parser.parse_args(arguments)
    records.check_names(parser, "search", options.searches, tuple(SEARCHES))
    return options


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    options = parse(arguments)
    return records.main(options, lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
