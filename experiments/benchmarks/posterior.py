"""Sampling from PGNAS's posterior against uniform one-shot search and plain PPO.

    python -m experiments.benchmarks.posterior --json OUT

Small networks of the Macro, the MNAS and the MobileNetV3 space, cells, and mixed cells (any
operations of an edge, added up; cells of 14x14 pixels), on MNIST images. Uniform samples of mixed
cells are uniform subsets. `pgnas` and `spos` train the same supernet with the same number
(`--steps`) of networks, a minibatch each, at the same learning rates, and with the same decay of
weights: `pgnas.precision` over the number of training images. `spos_evolution` goes on from the
weights of `spos` as the product does: `--evolved` networks, uniform ones and then children.
Validation accuracies are those of inherited weights, with statistics of normalisations estimated
anew:

samples_to_match_uniform1000: posterior samples until one is as accurate as the best of 1,000
    (`--uniform`) uniform ones from the supernet of `spos`; `pgnas_own` are `--own` uniform ones
    from the supernet of `pgnas` instead;
mean_accuracy, best_accuracy: of `--samples` posterior samples, and of the uniform ones;
kendall_tau: with the accuracy of `--alone` uniform architectures trained alone for `--long` steps;
mode_rank: share of these that are better, trained alone, than the mode of the posterior;
final_accuracy: of the winners on test images, trained from fresh weights on all others; beside
    them one random network, as a search may find no better than that, and the winner of `random`;
seconds: CPU seconds of the whole search (all threads, without compilation), because other programs
    may run beside it: training and `--search` samples for one-shot methods, `--children` children
    of `--child_steps` steps for `ppo`; `random` trains random architectures as `ppo` does, and
    starts none after the seconds of `pgnas` with the same seed (`children`: how many it came to);
mflops@gamma..: mean MFLOPs of 1,000 posterior samples with this gamma, and with a budget of 80% of
    the first of them (mflops_over_budget, a share of it).
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from experiments.benchmarks import records
from experiments.benchmarks.final_accuracy import final_accuracy
from experiments.benchmarks.posterior_setup import (
    TASKS,
    InheritedAccuracy,
    Setup,
    changed,
    evolved,
    run_ppo,
    run_random,
    setup,
    trained,
)
from experiments.benchmarks.progress import followed, say
from experiments.benchmarks.records import Record
from fnas_jax.core import config as config_lib
from fnas_jax.core import devices, stages
from fnas_jax.methods.base import SearchMethod
from fnas_jax.methods.pgnas import build as pgnas
from fnas_jax.methods.pgnas import posterior
from fnas_jax.tasks import images

BENCHMARK = "posterior"
WINNERS = (
    "pgnas",
    "spos",
    "spos_evolution",
    "ppo",
    "random",
    "random_network",
)  # that are trained in the end


class Seed(NamedTuple):
    """What one seed of a task came to; accuracies in [0, 1]."""

    figures: dict[tuple[str, str], float]  # by method and metric
    winners: dict[str, np.ndarray]  # by method, [T]
    inherited: dict[str, np.ndarray]  # by method, [A] of the architectures trained alone


def first(values: np.ndarray, goal: float) -> float:
    """How many values it takes to reach the goal; inf where none does."""
    reached = np.flatnonzero(values >= goal)
    return float(reached[0] + 1) if len(reached) else float("inf")


def judged(
    accuracy_of: InheritedAccuracy, params: Any, archs: np.ndarray, search: int
) -> tuple[np.ndarray, float]:
    """(accuracies [N] of archs [N, T], CPU seconds of the first `search` of them)."""
    start = time.process_time()
    head = accuracy_of(params, archs[:search])
    spent = time.process_time() - start
    return np.concatenate([head, accuracy_of(params, archs[search:])]), spent


def run_seed(ctx: Setup, seed: int, options: argparse.Namespace) -> Seed:
    """All methods with one seed."""
    space, accuracy_of, key = ctx.task.space, ctx.accuracy_of, jax.random.key(seed)
    q = posterior.of_space(space)
    key_uniform, key_posterior = jax.random.split(jax.random.fold_in(key, 1))
    figures: dict[tuple[str, str], float] = {}
    with stages.at("the supernet of pgnas"):
        guided, *pgnas_cost = trained(ctx.guided, key)
    with stages.at("the supernet of spos"):
        uniform, *spos_cost = trained(ctx.uniform, key)
    weights = {"pgnas": guided.learnt.weights, "spos": uniform.weights}
    for name, (seconds, nll) in (("pgnas", pgnas_cost), ("spos", spos_cost)):
        figures[name, "seconds"], figures[name, "nll"] = seconds, nll
    phi = guided.learnt.phi
    params = {name: accuracy_of.params(w.vector) for name, w in weights.items()}

    uniform_archs = np.asarray(space.sample(key_uniform, options.uniform))
    z = q.draw(phi, q.noise(key_posterior, options.samples))
    archs = {
        "pgnas": np.asarray(q.to_archs(z)),
        "spos": uniform_archs,
        "pgnas_own": uniform_archs[: options.own],
    }
    accuracy, winners = {}, {}
    for name in archs:
        owner = name.partition("_")[0]
        with stages.at(f"accuracies of the samples of {name}"):
            accuracy[name], spent = judged(accuracy_of, params[owner], archs[name], options.search)
        figures[name, "mean_accuracy"] = accuracy[name].mean()
        figures[name, "best_accuracy"] = accuracy[name].max()
        if name == owner:
            winners[name] = archs[name][accuracy[name][: options.search].argmax()]
            figures[name, "seconds"] += spent
    found, reached, spent = evolved(
        ctx.uniform, uniform, accuracy_of, params["spos"], seed, options.evolved
    )
    winners["spos_evolution"] = found[reached.argmax()]
    figures["spos_evolution", "best_accuracy"] = reached.max()
    figures["spos_evolution", "seconds"] = spos_cost[0] + spent
    for name, of in (("pgnas", "spos"), ("pgnas_own", "pgnas_own")):
        metric = f"samples_to_match_uniform{len(archs[of])}"
        figures[name, metric] = first(accuracy["pgnas"], accuracy[of].max())
    figures["pgnas", "entropy"] = float(q.entropy(phi).sum())
    figures["pgnas", "distinct"] = float(len(np.unique(archs["pgnas"], axis=0)))
    winners["mode"] = np.asarray(q.to_archs(q.mode(phi)))
    if options.children:
        with stages.at("the search of ppo"):
            winners["ppo"], figures["ppo", "seconds"] = run_ppo(ctx, seed, options.children)
    with stages.at("the search of random"):
        winners["random"], *spent = run_random(ctx, seed, figures["pgnas", "seconds"])
    figures["random", "seconds"], figures["random", "children"] = spent
    winners["random_network"] = uniform_archs[0]
    ranked = {name: accuracy_of(params[name], ctx.alone) for name in params}
    return Seed(figures, winners, ranked)


def run_task(name: str, options: argparse.Namespace) -> list[Record]:
    """All figures of a task."""
    metrics: dict[tuple[str, str], list[float]] = {}
    with stages.at(f"compiling what {name} needs"):
        ctx = setup(name, options)
    if options.seeds:
        metrics = compare(name, ctx, options)
    gammas = [float(g) for g in options.gammas.split(",") if g]
    if gammas:
        metrics |= priced(ctx, gammas, options.priced)
    return [record(name, *pair, values) for pair, values in sorted(metrics.items())]


def compare(
    name: str, ctx: Setup, options: argparse.Namespace
) -> dict[tuple[str, str], list[float]]:
    """Figures by method and metric, one a seed."""
    alone, seeds = ctx.alone, []
    numbers = range(options.first_seed, options.first_seed + options.seeds)
    for seed in followed(BENCHMARK, numbers, lambda seed: f"seed {seed} of {name}"):
        seeds.append(run_seed(ctx, seed, options))
        figures = seeds[-1].figures
        text = ", ".join(f"{m} {k} {v:.4g}" for (m, k), v in figures.items())
        say(f"{name} seed {seed}: {text}")

    # On validation images, as the search saw them, and on test images after it.
    modes = np.stack([s.winners["mode"] for s in seeds])
    both = jnp.asarray(np.concatenate([alone, modes]))
    longer = changed(ctx.config, children__steps=options.long, search__budget=len(both))
    evaluator = images.build(longer, ctx.task.space).evaluator
    everyone = jnp.ones(len(both), bool)
    with stages.at(f"training {len(both)} architectures alone"):
        _, measured = evaluator.evaluate(evaluator.init(), both, everyone, jax.random.key(0))
    truth = np.asarray(measured.accuracy)
    names = [n for n in WINNERS if n in seeds[0].winners]
    winners = np.stack([s.winners[n] for s in seeds for n in names])
    with stages.at(f"final training of {len(winners)} winners"):
        final = final_accuracy(ctx.config, ctx.task, winners, options.long)
    final = final.reshape(len(seeds), -1)

    metrics: dict[tuple[str, str], list[float]] = {}
    for i, s in enumerate(seeds):
        figures = dict(s.figures)
        for method, accuracy in s.inherited.items():
            tau = stats.kendalltau(accuracy, truth[: len(alone)])[0]
            figures[method, "kendall_tau"] = float(tau)
        better = truth[: len(alone)] > truth[len(alone) + i]
        figures["pgnas", "mode_rank"] = float(better.mean())
        for method, value in zip(names, final[i], strict=True):
            figures[method, "final_accuracy"] = float(value)
        if "ppo" in names:
            ratio = figures["ppo", "seconds"] / figures["pgnas", "seconds"]
            figures["pgnas", "speedup_over_ppo"] = ratio
        for pair, figure in figures.items():
            metrics.setdefault(pair, []).append(figure)
    return metrics


def priced(ctx: Setup, gammas: list[float], seeds: int) -> dict[tuple[str, str], list[float]]:
    """What a cost in the prior does to the MFLOPs of samples, one figure a seed."""
    space, parts = ctx.task.space, ctx.accuracy_of.parts
    q = posterior.of_space(space)

    def mean_mflops(method: SearchMethod, gamma: float) -> list[float]:
        with stages.at(f"supernets of gamma {gamma:g}"):
            return [of_seed(method, gamma, jax.random.key(seed)) for seed in range(seeds)]

    def of_seed(method: SearchMethod, gamma: float, key: jax.Array) -> float:
        assert method.prepare is not None
        state = method.init(key)
        state = state._replace(learnt=state.learnt._replace(gamma=jnp.float32(gamma)))
        for item in method.prepare(state, key):
            state = item[0]
        z = q.draw(state.learnt.phi, q.noise(jax.random.fold_in(key, 2), 1000))
        return float(parts.cost(q.to_archs(z))[1].mean() / 1e6)

    # Its own gamma is next to nothing: that of the state is what changes, without compilation.
    with_price = changed(ctx.config, pgnas__gamma=1e-6)
    method, _ = pgnas.build(with_price, space, ctx.task, None)
    found = {("pgnas", f"mflops@gamma{g:g}"): mean_mflops(method, g) for g in gammas}
    budget = 0.8 * float(np.mean(next(iter(found.values()))))
    limited, _ = pgnas.build(changed(ctx.config, pgnas__mflops=budget), space, ctx.task, None)
    found["pgnas", "mflops_over_budget"] = [m / budget for m in mean_mflops(limited, 0.0)]
    return found


def record(task: str, method: str, metric: str, values: list[float]) -> Record:
    """The mean over the seeds; of counts, which may be infinite, the median."""
    counts = metric.startswith("samples_to_match")
    centre = records.median if counts else records.mean
    return records.over_seeds(BENCHMARK, task, method, metric, values, centre)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = records.parser(__doc__, __spec__.name)
    records.add_names(parser, "--tasks", TASKS)
    parser.add_argument("--seeds", type=int, default=3, help="0: only costs")
    parser.add_argument("--first_seed", type=int, default=0, help="macro, mnas: 0-2 were tuned on")
    parser.add_argument("--steps", type=int, default=0, help="networks that train it; 0: TASKS")
    parser.add_argument("--samples", type=int, default=64, help="from the posterior")
    parser.add_argument("--search", type=int, default=8, help="samples of a one-shot search")
    parser.add_argument("--uniform", type=int, default=1000, help="uniform samples")
    parser.add_argument("--own", type=int, default=200, help="uniform ones with PGNAS's weights")
    parser.add_argument("--evolved", type=int, default=200, help="networks of SPOS's evolution")
    parser.add_argument("--children", type=int, default=64, help="that PPO trains; 0: no PPO")
    parser.add_argument("--child_steps", type=int, default=150, help="of each of them")
    parser.add_argument("--alone", type=int, default=24, help="architectures trained alone")
    parser.add_argument("--long", type=int, default=300, help="steps of these and the winners")
    parser.add_argument("--gammas", default="0,30,100,300,1000", help="'' for none")
    parser.add_argument("--priced", type=int, default=5, help="seeds of each gamma")
    options = parser.parse_args(arguments)
    records.check_names(parser, "task", options.tasks, TASKS)
    numbers = ("priced", "samples", "search", "uniform", "own", "evolved", "child_steps", "long")
    records.check_least(parser, options, 1, *numbers)
    records.check_least(parser, options, 2, "alone")
    records.check_least(parser, options, 0, "children", "seeds", "steps", "first_seed")
    return options


def run(options: argparse.Namespace) -> list[Record]:
    """All tasks."""
    devices.enable_compilation_cache(config_lib.default().jax.cache_dir)
    return [r for name in options.tasks for r in run_task(name, options)]


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    options = parse(arguments)
    return records.main(options, lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
