"""How many children are trained in a minute: this package, plain Flax and PyTorch side by side.

    python -m experiments.benchmarks.children_throughput --json OUT [--space mobilenetv3_small]

All train the same random architectures of a small MNAS space (four blocks of 16 to 64 channels), or
of a small MobileNetV3 space (four stages of 16 to 56 channels, h-swish, squeeze-excitation by hard
sigmoids, a linear layer before the classifier), on 32x32x3 pixels with the same batches of 64,
steps and optimiser. Each contestant is a process of its own; they take turns, a group of
architectures each, so that whatever else the machine does meets all of them. Seconds begin after
imports; `children_per_minute` is with compilation from an empty cache (of ours also that of the
kernels), `children_per_minute_warm` of a second process that finds the cache filled. `step_ms` of
ours is the time of all children over that of their steps, evaluation included, on all cores; of the
others it is a child's own, without evaluation. Flax compiles a step and an evaluation for each
architecture; its own cache is off, as no architecture comes twice. PyTorch has nothing to compile:
`torch` trains a child on all cores, `torch_per_core` is a process a core of one thread each, among
which a group's children are dealt out by their multiply-adds, the costliest first, each to the
process with the least so far. Its seconds are those of the process that ends last, its memory that
of all. `.._bf16` are the same with convolutions in bfloat16: `children.backend=kernels_bf16`,
`torch.autocast`. `low` and `high` are over the children.

`--scaling` also shows that a child costs what its own multiply-adds cost, and that neither the time
per child nor memory grows with the number of children.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
import tempfile
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import records
from experiments.benchmarks.progress import followed, say
from experiments.benchmarks.records import Record
from experiments.benchmarks.throughput import common
from experiments.benchmarks.throughput.contestant import Contestant, PerCore, start
from fnas_jax.layers.choose import choose

BENCHMARK = "children_throughput"
OTHERS = ("flax", "torch", "torch_per_core", "torch_bf16", "torch_per_core_bf16")
CONTESTANTS = ("ours", "warm", "ours_bf16", "warm_bf16", *OTHERS)
PACKAGES = dict.fromkeys(OTHERS[1:], "torch")  # that a contestant needs


def sample(name: str, n: int, seed: int) -> np.ndarray:
    """[n, T] random architectures of a space of `common.SPACES`."""
    space = common.space(name)
    return np.asarray(space.canonical(space.sample(jax.random.key(seed), n)))


def compare(options: argparse.Namespace) -> list[Record]:
    """Records of all contestants."""
    archs = sample(options.space, options.children, options.seed)
    groups = np.array_split(np.arange(len(archs)), math.ceil(len(archs) / options.group))
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in options.methods}
    with tempfile.TemporaryDirectory() as home:
        running: dict[str, Contestant | PerCore] = {}
        turns = [  # "warm" begins once "ours" has filled the cache
            (number, name)
            for number in range(len(groups))
            for name in options.methods
            if name != "flax" or number < options.flax_groups
        ]
        for number, name in followed(BENCHMARK, turns, lambda t: f"group {t[0] + 1}, {t[1]}"):
            if name not in running:
                running[name] = start(name, home, options.space)
            group = groups[number]
            found = running[name].answer(archs[group], options.steps, int(group[0]))
            answers[name].append(found)
            say(f"group {number + 1}: {name} {found['seconds']:.1f} s")
        for contestant in running.values():
            contestant.close()
    return summary(options.space, answers)


def summary(space: str, answers: dict[str, list[dict[str, Any]]]) -> list[Record]:
    """Figures of the answers of each contestant."""
    out, record = [], functools.partial(figure, space)
    for name, found in answers.items():
        if not found:
            continue
        warm, method = name.startswith("warm"), name.replace("warm", "ours")
        seconds = sum(a["seconds"] for a in found)
        accuracies = np.concatenate([a["accuracy"] for a in found])
        steps = np.concatenate([a["step_ms"] for a in found])
        n = len(accuracies)
        suffix = "_warm" if warm else ""
        out.append(record(method, "children_per_minute" + suffix, 60 * n / seconds, n))
        out.append(record(method, "compile_s" + suffix, sum(a["compile_s"] for a in found), n))
        if warm:
            continue
        names = (BENCHMARK, space, method)
        out.append(records.over_seeds(*names, "step_ms", steps, records.mean))
        out.append(record(method, "peak_mib", max(a["peak_mib"] for a in found), n))
        out.append(records.over_seeds(*names, "accuracy", accuracies, records.mean))
    return out


def figure(space: str, method: str, metric: str, value: float, n: int) -> Record:
    """A figure of `n` children of a space together."""
    return records.record(BENCHMARK, space, method, metric, value, n)


def scaling(options: argparse.Namespace) -> list[Record]:
    """How time grows with a child's multiply-adds and with the number of children."""
    archs, steps = sample(options.space, 30, options.seed + 1), 20
    record = functools.partial(figure, options.space)
    with tempfile.TemporaryDirectory() as home:
        alone = Contestant("ours", home, options.space)
        alone.answer(archs[:1], steps, 0)  # compiles
        times = [
            min(alone.answer(archs[i : i + 1], steps, 0)["seconds"] for _ in range(2))
            for i in followed(BENCHMARK, range(len(archs)), lambda i: f"child {i + 1} alone")
        ]
        alone.close()
        correlation = np.corrcoef(common.mflops(options.space, archs), times)[0, 1]
        out = [record("ours", "flops_correlation", correlation, 30)]
        say(f"one child after another: {sum(times):.1f} s")
        for name, time in (("fastest", min(times)), ("slowest", max(times))):
            out.append(record("ours", f"child_seconds_{name}", time, 30))
        for n in followed(BENCHMARK, (8, 32, 128), lambda n: f"{n} children at once"):
            many = Contestant("ours", home, options.space)
            batch = np.tile(archs[:8], (n // 8, 1))
            many.answer(batch, 1, 0)  # compiles
            again = many.answer(batch, 5, 0)
            out.append(record("ours", f"seconds_per_child@{n}", again["seconds"] / n, n))
            out.append(record("ours", f"peak_mib@{n}", again["peak_mib"], n))
            say(f"{n} children: {again['seconds'] / n:.3f} s each")
            many.close()
    return out


def ratios(found: list[Record]) -> list[str]:
    """How much faster ours is than the others, in words."""
    figures = {(r["method"], r["metric"]): r["value"] for r in found}
    said = []
    for own in ("ours", "ours_bf16"):
        ours = {m: figures.get((own, "children_per_minute" + m)) for m in ("", "_warm")}
        for other in OTHERS:
            theirs = figures.get((other, "children_per_minute"))
            if theirs and ours[""]:
                times = {"empty": ours[""], "filled": ours["_warm"]}
                text = ", ".join(f"{v / theirs:.2f} ({k} cache)" for k, v in times.items() if v)
                said.append(f"children per minute, {own} / {other}: {text}")
    return said


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = records.parser(__doc__, __spec__.name)
    parser.add_argument("--space", default=common.MNAS, help=f"one of {', '.join(common.SPACES)}")
    parser.add_argument("--children", type=int, default=24, help="architectures")
    parser.add_argument("--steps", type=int, default=60, help="training steps of each")
    parser.add_argument("--group", type=int, default=8, help="architectures between two turns")
    parser.add_argument("--seed", type=int, default=0, help="of the architectures")
    usual = [name for name in CONTESTANTS if not name.endswith("_bf16")]
    records.add_names(parser, "--methods", usual, f"of {', '.join(CONTESTANTS)}; warm after ours")
    parser.add_argument(
        "--flax_groups", type=int, default=10**6, help="groups that Flax, the slowest, trains"
    )
    parser.add_argument("--scaling", action="store_true", help="also how time and memory grow")
    options = parser.parse_args(arguments)
    records.check_names(parser, "method", options.methods, CONTESTANTS)
    records.check_names(parser, "space", [options.space], common.SPACES)
    records.check_least(parser, options, 1, "children", "steps", "group")
    return options


def run(options: argparse.Namespace) -> list[Record]:
    """The comparison, in words too, and what else was asked for. Raises UserError."""
    records.check_packages(options.methods, PACKAGES)
    if {"ours_bf16", "warm_bf16"} & set(options.methods):
        choose("kernels_bf16")  # or says why not
    found = compare(options) if options.methods else []
    for line in ratios(found):
        print(line)
    return found + (scaling(options) if options.scaling else [])


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    options = parse(arguments)
    return records.main(options, lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
