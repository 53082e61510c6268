"""Sampling from PGNAS's posterior against uniform one-shot search and plain PPO.

    python -m experiments.benchmarks.posterior --json OUT

Small networks of the Macro and the MNAS space on MNIST images. `pgnas` and `spos` train the same
supernet with the same number (`--steps`) of networks, a minibatch each, and at the same rates.
Validation accuracies are those of inherited weights, with statistics of normalisations estimated
anew:

samples_to_match_uniform1000: posterior samples until one is as accurate as the best of 1,000
    (`--uniform`) uniform ones from the supernet of `spos`; `pgnas_own` are `--own` uniform ones
    from the supernet of `pgnas` instead;
mean_accuracy, best_accuracy: of `--samples` posterior samples, and of the uniform ones;
kendall_tau: with the accuracy of `--alone` uniform architectures trained alone for `--long` steps;
mode_rank: share of these that are better, trained alone, than the mode of the posterior;
final_accuracy: of the winners on test images, trained from fresh weights on all others;
seconds: CPU seconds of the whole search (all threads, without compilation), because other programs
    may run beside it: training and `--search` samples for one-shot methods, `--children` children
    of `--child_steps` steps for `ppo`;
mflops@gamma..: mean MFLOPs of 1,000 posterior samples with this gamma, and with a budget of 80% of
    the first of them (mflops_over_budget, a share of it).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import ml_collections
import numpy as np
from scipy import stats

from experiments.benchmarks.image_search import judge
from fnas_jax import iteration
from fnas_jax.core import config as config_lib
from fnas_jax.core import devices
from fnas_jax.core.clock import Clock
from fnas_jax.methods.base import SearchMethod
from fnas_jax.methods.baselines import ppo
from fnas_jax.methods.pgnas import build as pgnas
from fnas_jax.methods.pgnas import posterior
from fnas_jax.methods.spos import build as spos
from fnas_jax.spaces import macro, mnas
from fnas_jax.spaces.base import Space
from fnas_jax.tasks import images, inherited
from fnas_jax.tasks.base import Evaluator, Task
from fnas_jax.training import child

BENCHMARK = "posterior"
# Networks that train the supernet, the share of them before phi is learnt; tuned on these tasks.
TASKS = {"macro_mnist5k": (500, 0.35), "mnas_mnist5k": (650, 0.5)}
CHUNK = 8  # architectures judged by one call


class Seed(NamedTuple):
    """What one seed of a task came to; accuracies in [0, 1]."""

    figures: dict[tuple[str, str], float]  # by method and metric
    winners: dict[str, np.ndarray]  # by method, [T]
    inherited: dict[str, np.ndarray]  # by method, [A] of the architectures trained alone


def configuration(task: str, options: argparse.Namespace) -> ml_collections.ConfigDict:
    """Small networks for images of 28x28 pixels."""
    config = config_lib.default()
    config.task.name = "images/mnist5k"
    config.space.name = task.partition("_")[0]
    config.space.blocks = 2
    config.space.width = 0.5
    config.space.strides = (1, 2)
    config.space.head = 64
    config.children.batch_size = 32
    config.children.eval_batch = 64
    config.children.steps = options.child_steps
    config.akp.enabled = False
    steps, config.pgnas.warmup = TASKS[task]
    config.oneshot.steps = options.steps or steps
    config.oneshot.every = 50
    config.search.budget = max(options.children, 1)
    return config_lib.validate(config)


def make_space(config: ml_collections.ConfigDict) -> Space:
    """The Macro space with narrow layers, or a few blocks of the MNAS space."""
    if config.space.name == "macro":
        spec = macro.MacroSpec(channels=(8, 16, 32), stem=8, stem_stride=2, head=64)
        return macro.make(spec)
    names = ("blocks", "width", "strides", "stem", "stem_stride", "head")
    return mnas.make(*(config.space[name] for name in names))


def changed(config: ml_collections.ConfigDict, **keys: Any) -> ml_collections.ConfigDict:
    """`config` with other values: `oneshot__steps=100`."""
    new = {name.replace("__", "."): value for name, value in keys.items()}
    return config_lib.validate(config_lib.nest(config_lib.flatten(config) | new))


class Judge:
    """Accuracy of architectures with the weights of one supernet."""

    def __init__(self, task: Task):
        assert task.oneshot is not None
        self.parts = task.oneshot()
        parts = self.parts
        self._run = inherited.judging(
            child.Context(parts.network, parts.settings, parts.pipeline), parts.vmap
        )

    def __call__(self, params: Any, archs: np.ndarray) -> np.ndarray:
        """[N] accuracies of `archs` [N, T], each vector judged once."""
        forms, back = np.unique(archs, axis=0, return_inverse=True)
        found = []
        for i in range(0, len(forms), CHUNK):
            some = np.resize(forms[i : i + CHUNK], (CHUNK, forms.shape[1]))
            active = np.arange(CHUNK) < len(forms[i : i + CHUNK])
            outcome = self._run(params, self.parts.data, jnp.asarray(some), jnp.asarray(active))
            found.append(np.asarray(outcome.accuracy)[active])
        return np.concatenate(found)[back.reshape(-1)]


class Bed(NamedTuple):
    """What all seeds of a task share; built once, so that it is compiled once."""

    config: ml_collections.ConfigDict
    task: Task
    judge: Judge
    guided: SearchMethod  # PGNAS
    uniform: SearchMethod  # SPOS
    steps: iteration.Steps  # PPO's
    method: SearchMethod  # PPO
    evaluator: Evaluator  # PPO's
    alone: np.ndarray  # [A, T] architectures to be ranked


def bed(name: str, options: argparse.Namespace) -> Bed:
    """The task with all its methods; each has done a little, so that nothing is left to compile."""
    config = configuration(name, options)
    task = images.build(config, make_space(config))
    space, key = task.space, jax.random.key(0)
    guided, _ = pgnas.build(config, space, task, None)
    uniform, _ = spos.build(config, space, task, None)
    for method in (guided, uniform) if options.seeds else ():
        assert method.prepare is not None
        next(method.prepare(method.init(key), key))
    method, evaluator = ppo.build(config, space, task, None)
    steps = iteration.compiled(method, evaluator)
    drawn = np.asarray(space.canonical(space.sample(jax.random.key(99), 400)))
    _, index = np.unique(drawn, axis=0, return_index=True)
    alone = drawn[np.sort(index)][: options.alone]
    judges = Judge(task)
    if options.seeds:
        judges(jax.jit(judges.parts.network.init)(key, jnp.asarray(alone[0])), alone[:1])
    found = Bed(config, task, judges, guided, uniform, steps, method, evaluator, alone)
    if options.children and options.seeds:
        run_ppo(found, 0, most=1)
    return found


def trained(method: SearchMethod, key: jax.Array) -> tuple[Any, float, float]:
    """(the method's state after its preparation, CPU seconds, mean nll in the end)."""
    assert method.prepare is not None
    state, nll = method.init(key), float("nan")
    start = time.process_time()
    for item in method.prepare(state, key):
        state, nll = item[0], item[1]["nll"]
    jax.block_until_ready(state)
    return state, time.process_time() - start, nll


def first(values: np.ndarray, goal: float) -> float:
    """How many values it takes to reach the goal; inf where none does."""
    reached = np.flatnonzero(values >= goal)
    return float(reached[0] + 1) if len(reached) else float("inf")


def run_ppo(place: Bed, seed: int, most: int) -> tuple[np.ndarray, float]:
    """(winner [T], CPU seconds) of PPO that trains `most` children from fresh weights."""
    key, clock = jax.random.key(seed), Clock()
    decisions = len(place.task.space.cardinalities)
    state = iteration.initial(place.method, place.evaluator, decisions, key)
    start = time.process_time()
    while state.counts["trained"] < most:
        state, _, _ = iteration.iterate(place.steps, state, key, clock)
    clock.close()
    return state.best_arch, time.process_time() - start


def run_seed(place: Bed, seed: int, options: argparse.Namespace) -> Seed:
    """All methods with one seed."""
    space, judges, key = place.task.space, place.judge, jax.random.key(seed)
    q = posterior.make(space.cardinalities)
    key_uniform, key_posterior = jax.random.split(jax.random.fold_in(key, 1))
    figures: dict[tuple[str, str], float] = {}
    guided, *pgnas_cost = trained(place.guided, key)
    uniform, *spos_cost = trained(place.uniform, key)
    weights = {"pgnas": guided.learnt.weights, "spos": uniform.weights}
    for name, (seconds, nll) in (("pgnas", pgnas_cost), ("spos", spos_cost)):
        figures[name, "seconds"], figures[name, "nll"] = seconds, nll
    phi = guided.learnt.phi
    like = judges.parts.network.init(key, jnp.asarray(place.alone[0]))
    unravel = jax.flatten_util.ravel_pytree(like)[1]
    params = {name: unravel(w.vector) for name, w in weights.items()}

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
        start = time.process_time()
        head = judges(params[owner], archs[name][: options.search])
        spent = time.process_time() - start
        rest = judges(params[owner], archs[name][options.search :])
        accuracy[name] = np.concatenate([head, rest])
        figures[name, "mean_accuracy"] = accuracy[name].mean()
        figures[name, "best_accuracy"] = accuracy[name].max()
        if name == owner:
            winners[name] = archs[name][head.argmax()]
            figures[name, "seconds"] += spent
    for name, of in (("pgnas", "spos"), ("pgnas_own", "pgnas_own")):
        metric = f"samples_to_match_uniform{len(archs[of])}"
        figures[name, metric] = first(accuracy["pgnas"], accuracy[of].max())
    figures["pgnas", "entropy"] = float(q.entropy(phi).sum())
    figures["pgnas", "distinct"] = float(len(np.unique(archs["pgnas"], axis=0)))
    winners["mode"] = np.asarray(q.to_archs(q.mode(phi)))
    if options.children:
        found = run_ppo(place, seed, options.children)
        winners["ppo"], figures["ppo", "seconds"] = found
    inherited_by = {name: judges(params[name], place.alone) for name in params}
    return Seed(figures, winners, inherited_by)


def run_task(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All figures of a task."""
    place, metrics = bed(name, options), {}
    if options.seeds:
        metrics = compare(name, place, options)
    gammas = [float(g) for g in options.gammas.split(",") if g]
    if gammas:
        metrics |= priced(place, gammas, options.priced)
    return [record(name, *pair, values) for pair, values in sorted(metrics.items())]


def compare(
    name: str, place: Bed, options: argparse.Namespace
) -> dict[tuple[str, str], list[float]]:
    """Figures by method and metric, one a seed."""
    alone, seeds = place.alone, []
    for seed in range(options.seeds):
        seeds.append(run_seed(place, seed, options))
        figures = seeds[-1].figures
        text = ", ".join(f"{m} {k} {v:.4g}" for (m, k), v in figures.items())
        print(f"{name} seed {seed}: {text}", flush=True)

    # On validation images, as the search saw them, and on test images after it.
    modes = np.stack([s.winners["mode"] for s in seeds])
    both = jnp.asarray(np.concatenate([alone, modes]))
    longer = changed(place.config, children__steps=options.long, search__budget=len(both))
    evaluator = images.build(longer, place.task.space).evaluator
    everyone = jnp.ones(len(both), bool)
    _, measured = evaluator.evaluate(evaluator.init(), both, everyone, jax.random.key(0))
    truth = np.asarray(measured.accuracy)
    names = [n for n in ("pgnas", "spos", "ppo") if n in seeds[0].winners]
    winners = np.stack([s.winners[n] for s in seeds for n in names])
    final = judge(place.config, place.task, winners, options.long).reshape(len(seeds), -1)

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


def priced(place: Bed, gammas: list[float], seeds: int) -> dict[tuple[str, str], list[float]]:
    """What a cost in the prior does to the MFLOPs of samples, one figure a seed."""
    space, parts = place.task.space, place.judge.parts
    q = posterior.make(space.cardinalities)

    def mean_mflops(method: SearchMethod, gamma: float) -> list[float]:
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
    with_price = changed(place.config, pgnas__gamma=1e-6)
    method, _ = pgnas.build(with_price, space, place.task, None)
    found = {("pgnas", f"mflops@gamma{g:g}"): mean_mflops(method, g) for g in gammas}
    budget = 0.8 * float(np.mean(next(iter(found.values()))))
    limited, _ = pgnas.build(changed(place.config, pgnas__mflops=budget), space, place.task, None)
    found["pgnas", "mflops_over_budget"] = [m / budget for m in mean_mflops(limited, 0.0)]
    return found


def record(task: str, method: str, metric: str, values: list[float]) -> dict[str, Any]:
    """A flat record: the mean (the median of counts), 5% and 95% over the seeds."""
    counts = metric.startswith("samples_to_match")
    value = np.median(values) if counts else np.mean(values)
    low, high = (np.quantile(values, share, method="nearest") for share in (0.05, 0.95))
    numbers = [float(v) if np.isfinite(v) else None for v in (value, low, high)]
    names = ("benchmark", "task", "method", "metric", "value", "low", "high", "n")
    return dict(zip(names, (BENCHMARK, task, method, metric, *numbers, len(values)), strict=True))


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--tasks", default=",".join(TASKS), help="joined by commas")
    parser.add_argument("--seeds", type=int, default=3, help="0: only costs")
    parser.add_argument("--steps", type=int, default=0, help="networks that train it; 0: TASKS")
    parser.add_argument("--samples", type=int, default=64, help="from the posterior")
    parser.add_argument("--search", type=int, default=8, help="samples of a one-shot search")
    parser.add_argument("--uniform", type=int, default=1000, help="uniform samples")
    parser.add_argument("--own", type=int, default=200, help="uniform ones with PGNAS's weights")
    parser.add_argument("--children", type=int, default=64, help="that PPO trains; 0: no PPO")
    parser.add_argument("--child_steps", type=int, default=150, help="of each of them")
    parser.add_argument("--alone", type=int, default=24, help="architectures trained alone")
    parser.add_argument("--long", type=int, default=300, help="steps of these and the winners")
    parser.add_argument("--gammas", default="0,30,100,300,1000", help="'' for none")
    parser.add_argument("--priced", type=int, default=5, help="seeds of each gamma")
    parser.add_argument("--json", help="write the records there")
    options = parser.parse_args(arguments)
    tasks = [t for t in options.tasks.split(",") if t]
    for name in tasks:
        if name not in TASKS:
            parser.error(f"unknown task {name!r}; allowed are {', '.join(TASKS)}")
    numbers = ("priced", "samples", "search", "uniform", "own", "child_steps", "long")
    for name in numbers:
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if options.alone < 2 or min(options.children, options.seeds, options.steps) < 0:
        parser.error("--alone must be at least 2, --children, --seeds and --steps at least 0")
    devices.enable_compilation_cache(config_lib.default().jax.cache_dir)
    out = [r for name in tasks for r in run_task(name, options)]
    for r in out:
        value, low, high = ("never" if v is None else f"{v:.4f}" for v in list(r.values())[4:7])
        head = f"{r['task']:<15}{r['method']:<10}{r['metric']:<30}"
        print(f"{head}{value:>9}   {low} .. {high}")
    if options.json:
        Path(options.json).write_text(json.dumps(out, indent=1, allow_nan=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
