"""What early stopping brings at equal cost: the winners of searches of as many training steps.

    python -m experiments.benchmarks.early_stopping --json OUT

Every method searches until its children have made `--budget` steps (fair rounds of the knowledge
pool included, finalists not, which are as many for all), with each of `--etas` as
`children.halving`, 0 being none; the rungs are those of the default, and `hyperband` and `bohb`
(`random` and `tpe` with all brackets) have no search without. Children are trained for `--steps`
where nobody stops them, from the pool (`fnas`) or from fresh weights (all others). The winners are
trained again together, longer and from fresh weights, and judged on the test images, which no
search has seen. Each eta is compared with none, seed by seed, `hyperband` and `bohb` with `random`
and `tpe`. Steps at the end of a search may be those of a batch more; seconds are without
compilation.
"""

from __future__ import annotations

import argparse
import itertools
import sys

import ml_collections

from experiments.benchmarks import records
from experiments.benchmarks.image_methods import FRESH
from experiments.benchmarks.image_search import Search, configuration, figures, judged, search
from experiments.benchmarks.progress import followed, say
from experiments.benchmarks.records import Record
from fnas_jax.core import config as config_lib
from fnas_jax.core import devices
from fnas_jax.registry import EARLY, build_task, completed
from fnas_jax.tasks.base import Task

BENCHMARK = "early_stopping"
METHODS = {
    "random": ("random", FRESH),
    "tpe": ("tpe", FRESH),
    **{name: (without, FRESH) for name, without in EARLY.items()},
    "fnas_no_akp": ("fnas", FRESH),
    "fnas": ("fnas", {}),
}


def label(name: str, eta: int) -> str:
    """A method with its halving."""
    return f"{name}_eta{eta}" if eta else name


def configure(config: ml_collections.ConfigDict, name: str, eta: int) -> ml_collections.ConfigDict:
    """`config` for a method of METHODS and one of the etas."""
    flat = config_lib.flatten(config) | METHODS[name][1] | {"children.halving": eta}
    if name in EARLY:
        flat["method.name"] = name
    return completed(config_lib.validate(config_lib.nest(flat)))


def kind_of(config: ml_collections.ConfigDict) -> tuple[bool, int, int]:
    """What tells apart how the children of two searches are trained."""
    return config.akp.enabled, config.children.halving, config.children.brackets


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = records.parser(__doc__, __spec__.name)
    parser.add_argument("--task", default="mnist5k", choices=("digits", "mnist5k"))
    records.add_names(parser, "--methods", ("random", "fnas"))
    records.add_names(parser, "--etas", ("0", "2", "3"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first_seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=240, help="of a child that nobody stops")
    parser.add_argument("--budget", type=int, default=16 * 240, help="steps of all children")
    parser.add_argument("--judge_steps", type=int, default=600, help="of a winner at the end")
    options = parser.parse_args(arguments)
    records.check_names(parser, "method", options.methods, METHODS)
    records.check_names(parser, "eta", options.etas, [str(i) for i in (0, *range(2, 17))])
    records.check_least(parser, options, 1, "seeds", "steps", "budget", "judge_steps")
    options.proposals = 20 * -(-options.budget // options.steps)  # more than any search needs
    early = [name for name in options.methods if name in EARLY]
    if early and not any(map(int, options.etas)):
        parser.error(f"{early[0]} needs one of --etas above 0")
    return options


def run(options: argparse.Namespace) -> list[Record]:
    """Searches of every kind and seed in turn, then judges all winners together."""
    config = configuration(options)
    devices.enable_compilation_cache(config.jax.cache_dir)
    kinds = list(itertools.product(options.methods, map(int, options.etas)))
    kinds = [(name, eta) for name, eta in kinds if eta or name not in EARLY]
    configs = {(name, eta): configure(config, name, eta) for name, eta in kinds}
    # Searches that train children in the same way share the compiled programs.
    tasks: dict[tuple[bool, int, int], Task] = {}
    for c in configs.values():
        tasks[kind_of(c)] = tasks.get(kind_of(c)) or build_task(c)
    searches: dict[tuple[str, int], Search] = {}
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    turns = list(itertools.product(seeds, kinds))
    for seed, (name, eta) in followed(
        BENCHMARK, turns, lambda turn: f"seed {turn[0]}, {label(*turn[1])}"
    ):
        c = configs[name, eta]
        task = tasks[kind_of(c)]
        kind, most = METHODS[name][0], options.budget
        found = search(c, task, label(name, eta), seed, kind=kind, most_steps=most)
        searches[found.method, seed] = found
        say(
            f"seed {seed} {found.method:<12} trained {found.trained:>4}, {found.steps:>5} steps,"
            f" best {found.found:.4f} (validation), {found.seconds:.0f} s"
        )
    task = next(iter(tasks.values()))
    tested = judged(config, task, searches, options.judge_steps)
    out: list[Record] = []
    for name, eta in kinds:
        mine = [searches[label(name, eta), seed] for seed in seeds]
        out += [
            record | {"benchmark": BENCHMARK}
            for record in figures(
                task.name, label(name, eta), mine, [tested[s.method, s.seed] for s in mine]
            )
        ]
        whole = EARLY.get(name, name)
        if eta and (whole, 0) in configs:
            theirs = [searches[whole, seed] for seed in seeds]
            both = [[tested[s.method, s.seed] for s in them] for them in (mine, theirs)]
            of = BENCHMARK, task.name, label(name, eta), "test_accuracy", whole
            out += records.paired(*of, *both, records.DIFFERENCE)
    return out


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    options = parse(arguments)
    return records.main(options, lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
