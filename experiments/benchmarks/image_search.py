"""What a search on real children costs: FNAS and its parts against plain PPO.

    python -m experiments.benchmarks.image_search --json OUT

`ppo`, `fnas` and its variants make the same number of proposals, with the same controller. `ppo`
trains all of them from fresh weights for `--steps` steps, `fnas_no_akp` only those that its critic
is not sure of. With the knowledge pool, children inherit their blocks and train for `--short` of
the steps: `fnas` is everything together, `fnas_no_uac` and `fnas_no_aeb` lack one part. What FNAS
saves may be had by simpler means: `ppo_short` trains from fresh weights for `--short` of the steps,
`ppo_pool` has the pool but no critic, and `random` trains as many random architectures from fresh
weights as `fnas` with the same seed has paid steps for, fair rounds and finalists included, but no
more than `--proposals`.

Then the winners of all searches are trained again together, longer and from fresh weights, on
training and validation images, and judged on the test images, which no search has seen. Seconds are
without compilation, which is the same for all; steps are those of all children, fair rounds and
finalists included. Every method is compared with `ppo` seed by seed: the median difference of test
accuracies (`.._minus_ppo`), the median ratio of steps and of seconds (`.._over_ppo`), and the share
of seeds that were better (`.._won_from_ppo`). The settings are the defaults; which seeds they were
tuned with on these images is not known.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from experiments.benchmarks import records
from experiments.benchmarks.final_accuracy import final_accuracy
from experiments.benchmarks.image_methods import BUILDERS, PRESETS, configure, in_order, limited
from experiments.benchmarks.progress import followed, say
from experiments.benchmarks.records import Record
from fnas_jax import finals, iteration
from fnas_jax.core import config as config_lib
from fnas_jax.core import devices, stages
from fnas_jax.core.clock import Clock
from fnas_jax.core.types import Array
from fnas_jax.registry import build_task, informed
from fnas_jax.tasks.base import Evaluator, Task

BENCHMARK = "image_search"
AGAINST = "ppo"  # the method that the others are compared with, seed by seed
PATIENCE = 20  # proposals for each child that `random` may still train


class Search(NamedTuple):
    """What one search came to."""

    method: str
    seed: int
    arch: np.ndarray  # [T]
    found: float  # validation accuracy by which the winner won
    proposals: int
    trained: int
    steps: int  # of training, of all children together
    coverage: float  # share of errors within U in the second half; NaN without a critic
    tau: float  # mean Kendall's tau of V on the newly trained, second half
    seconds: float  # without compilation


def configuration(options: argparse.Namespace) -> ml_collections.ConfigDict:
    """Small children."""
    config = config_lib.default()
    config.task.name = f"images/{options.task}"
    if options.task == "digits":  # 8x8 pixels
        config.space.blocks = 2
        config.space.strides = (1, 2)
        config.space.stem = 16
        config.space.stem_stride = 1
        config.space.head = 64
    else:  # 28x28
        config.space.blocks = 3
        config.space.width = 0.5
        config.space.strides = (1, 2, 2)
        config.space.head = 128
        config.children.batch_size = 32
    config.children.steps = options.steps
    config.search.budget = options.proposals
    return config_lib.validate(config)


def search(
    config: ml_collections.ConfigDict,
    task: Task,
    name: str,
    seed: int,
    children: int | None = None,
    kind: str = "",
    most_steps: float = math.inf,
) -> Search:
    """One search of `search.budget` proposals, without files.

    Or until so many `children` are trained, or have made `most_steps`, fair rounds included.
    `kind` of BUILDERS makes the method; "": that of the preset `name`.
    """
    key, clock = jax.random.key(seed), Clock()
    most = config.search.budget
    kind = kind or PRESETS[name].method
    method, evaluator = BUILDERS[kind](config, informed(task, kind), task, None)
    if children is not None:
        method = limited(method, children)
    steps = iteration.compiled(method, evaluator)
    state = iteration.initial(method, evaluator, len(task.space.cardinalities), key)
    with clock.part("children"):
        state, prepared_ones = prepared(evaluator, state, key)
    log: list[dict[str, Any]] = []
    while unfinished(state.counts, most, children):
        state, _, scalars = iteration.iterate(steps, state, key, clock)
        log.append(scalars)
        saved = int(scalars.get("steps_saved", 0))
        made = (state.counts["trained"] + prepared_ones) * config.children.steps - saved
        if made >= most_steps:
            break
    held = finals.hold(evaluator, state, key, clock)
    state, again = finals.decide(state, held), len(held.ok) if held is not None else 0
    seconds = clock.seconds()
    clock.close()
    late = log[len(log) // 2 :]
    checked = sum(float(s.get("checked", 0)) for s in late)
    covered = sum(float(s.get("covered", 0)) for s in late)
    taus = [float(s["tau"]) for s in late if np.isfinite(s.get("tau", np.nan))]
    return Search(
        name,
        seed,
        state.best_arch,
        float(state.best[0]),
        most if children is None else children,
        state.counts["trained"],
        made + again * config.children.steps,
        covered / checked if checked else float("nan"),
        float(np.mean(taus)) if taus else float("nan"),
        seconds["children"] + seconds["method"],
    )


def prepared(
    evaluator: Evaluator, state: iteration.State, key: Array
) -> tuple[iteration.State, int]:
    """The state behind the pool's fair rounds, and how many children these trained."""
    if evaluator.hooks.prepare is None:
        return state, 0
    children = 0
    for now, figures in evaluator.hooks.prepare(state.evaluator, key):
        state = state._replace(evaluator=now)
        children += figures["children"]
    return state, children


def unfinished(counts: dict[str, int], most: int, children: int | None) -> bool:
    """Whether a search goes on: so many proposals, or so many children, whichever is counted."""
    if children is None:
        return counts["proposed"] < most
    return counts["trained"] < children and counts["proposed"] < PATIENCE * children


def as_many(like: Search, steps: int, most: int) -> int:
    """Children of `steps` steps each that cost as much as another search, at least 1, `most`."""
    return min(max(round(like.steps / steps), 1), most)


def against(
    task: str, name: str, mine: list[Search], theirs: list[Search], tested: dict[Any, float]
) -> list[Record]:
    """How a method compares with `AGAINST`; `tested`: accuracy by method and seed."""
    both, names = (mine, theirs), (BENCHMARK, task, name)
    accuracies = [[tested[s.method, s.seed] for s in searches] for searches in both]
    found = records.paired(*names, "test_accuracy", AGAINST, *accuracies, records.DIFFERENCE)
    for metric in ("steps", "seconds"):
        costs = [[float(getattr(s, metric)) for s in searches] for searches in both]
        found += records.paired(*names, metric, AGAINST, *costs, records.RATIO)
    return found


def judged(
    config: ml_collections.ConfigDict, task: Task, searches: dict[Any, Search], steps: int
) -> dict[Any, float]:
    """Test accuracies of the winners of all `searches`, trained again together for `steps`."""
    winners = np.stack([s.arch for s in searches.values()])
    with stages.at(f"final training of {len(winners)} winners"):
        accuracy = final_accuracy(config, task, winners, steps)
    return dict(zip(searches, map(float, accuracy), strict=True))


def figures(task: str, name: str, searches: list[Search], accuracy: list[float]) -> list[Record]:
    """The records of one method: its searches, and the test accuracies of their winners."""
    metrics: dict[str, list[float]] = {
        "test_accuracy": accuracy,
        "validation_accuracy": [s.found for s in searches],
        "trained_share": [s.trained / s.proposals for s in searches],
        "coverage": [s.coverage for s in searches],
        "kendall_tau": [s.tau for s in searches],
        "steps": [float(s.steps) for s in searches],
        "seconds": [s.seconds for s in searches],
    }
    found = [
        records.over_seeds(BENCHMARK, task, name, metric, values, records.mean)
        for metric, values in metrics.items()
    ]
    return [r for r in found if r["n"]]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = records.parser(__doc__, __spec__.name)
    parser.add_argument("--task", default="digits", choices=("digits", "mnist5k"))
    records.add_names(parser, "--methods", ("ppo", "fnas_no_akp", "fnas"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--proposals", type=int, default=128)
    parser.add_argument("--steps", type=int, default=30, help="of a child in the search")
    parser.add_argument("--short", type=float, default=0.25, help="share of them with the pool")
    parser.add_argument("--judge_steps", type=int, default=300, help="of a winner at the end")
    options = parser.parse_args(arguments)
    records.check_names(parser, "method", options.methods, PRESETS)
    if not 0 < options.short <= 1:
        parser.error("--short must be above 0 and at most 1")
    records.check_least(parser, options, 1, "seeds", "proposals", "steps", "judge_steps")
    for name in options.methods:
        like = PRESETS[name].like
        if like and like not in options.methods:
            parser.error(f"{name} trains as many steps as {like}, which --methods must name, too")
    return options


def run(options: argparse.Namespace) -> list[Record]:
    """Searches with every method and seed in turn, then judges all winners together."""
    config = configuration(options)
    devices.enable_compilation_cache(config.jax.cache_dir)
    configs = {n: configure(config, n, options.short) for n in in_order(options.methods)}
    # Presets that train children in the same way share the compiled programs.
    tasks: dict[tuple[int, bool], Task] = {}
    for c in configs.values():
        kind = (c.children.steps, c.akp.enabled)
        tasks[kind] = tasks.get(kind) or build_task(c)
    searches: dict[tuple[str, int], Search] = {}
    turns = list(itertools.product(range(options.seeds), configs))
    for seed, name in followed(BENCHMARK, turns, lambda turn: f"seed {turn[0]}, {turn[1]}"):
        c = configs[name]
        task, children = tasks[c.children.steps, c.akp.enabled], None
        if PRESETS[name].like:
            like = searches[PRESETS[name].like, seed]
            children = as_many(like, c.children.steps, options.proposals)
        found = searches[name, seed] = search(c, task, name, seed, children)
        say(
            f"seed {seed} {name:<12} trained {found.trained:>4}, {found.steps:>5} steps,"
            f" best {found.found:.4f} (validation), coverage {found.coverage:.2f},"
            f" tau {found.tau:.2f}, {found.seconds:.0f} s"
        )
    tested = judged(config, task, searches, options.judge_steps)
    out: list[Record] = []
    every = {name: [searches[name, seed] for seed in range(options.seeds)] for name in configs}
    for name, mine in every.items():
        out += figures(task.name, name, mine, [tested[name, s.seed] for s in mine])
        if AGAINST in every and name != AGAINST:
            out += against(task.name, name, mine, every[AGAINST], tested)
    return out


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    options = parse(arguments)
    return records.main(options, lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
