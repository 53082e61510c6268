"""How many children are trained in a minute: this package, plain Flax and PyTorch side by side.

    python -m experiments.benchmarks.children_throughput --json OUT

All train the same random architectures of a small MNAS space (four blocks of 16 to 64 channels,
32x32x3 pixels) with the same batches of 64, steps and optimiser. Each contestant is a process of
its own; they take turns, a group of architectures each, so that whatever else the machine does
meets all of them. Seconds begin after imports; `children_per_minute` is with compilation from an
empty cache (of ours also that of the kernels), `children_per_minute_warm` of a second process that
finds the cache filled. `step_ms` of ours is the time of all children over that of their steps,
evaluation included, on all cores; of the others it is a child's own, without evaluation. Flax
compiles a step and an evaluation for each architecture; its own cache is off, as no architecture
comes twice. PyTorch has nothing to compile.

`--scaling` also shows that a child costs what its own multiply-adds cost, and that neither the time
per child nor memory grows with the number of children.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.throughput import common

BENCHMARK, TASK = "children_throughput", "mnas_small"
CONTESTANTS = ("ours", "warm", "torch", "flax")


class Contestant:
    """A process that trains what it is sent; see `throughput.worker`."""

    def __init__(self, method: str, home: str):
        own = {"HOME": home, "PYTHONWARNINGS": "ignore", "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, "-m", "experiments.benchmarks.throughput.worker", method]
        self.process = subprocess.Popen(
            [*command, f"{home}/cache"] if method == "ours" else command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | own,
        )

    def answer(self, archs: np.ndarray, steps: int, seed: int) -> dict[str, Any]:
        """The answer to one job. Raises RuntimeError where the process has ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        job = {"archs": archs.tolist(), "steps": steps, "seed": seed}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a contestant ended without an answer")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def sample(n: int, seed: int) -> np.ndarray:
    """[n, T] random architectures."""
    space = common.space()
    return np.asarray(space.canonical(space.sample(jax.random.key(seed), n)))


def compare(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Records of all contestants."""
    archs = sample(options.children, options.seed)
    groups = np.array_split(np.arange(len(archs)), math.ceil(len(archs) / options.group))
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in options.methods}
    with tempfile.TemporaryDirectory() as home:
        running: dict[str, Contestant] = {}
        for number, group in enumerate(groups):
            for name in options.methods:  # "warm" begins once "ours" has filled the cache
                if name == "flax" and number >= options.flax_groups:
                    continue
                if name not in running:
                    running[name] = Contestant("ours" if name == "warm" else name, home)
                found = running[name].answer(archs[group], options.steps, int(group[0]))
                answers[name].append(found)
                print(f"group {number + 1}: {name} {found['seconds']:.1f} s", flush=True)
        for contestant in running.values():
            contestant.close()
    return summary(answers)


def summary(answers: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Figures of the answers of each contestant."""
    out = []
    for name, found in answers.items():
        if not found:
            continue
        method = "ours" if name == "warm" else name
        seconds = sum(a["seconds"] for a in found)
        accuracies = np.concatenate([a["accuracy"] for a in found])
        steps = np.concatenate([a["step_ms"] for a in found])
        n = len(accuracies)
        suffix = "_warm" if name == "warm" else ""
        out.append(record(method, "children_per_minute" + suffix, 60 * n / seconds, n))
        out.append(record(method, "compile_s" + suffix, sum(a["compile_s"] for a in found), n))
        if name == "warm":
            continue
        out.append(record(method, "step_ms", float(steps.mean()), n, spread(steps)))
        out.append(record(method, "peak_mib", max(a["peak_mib"] for a in found), n))
        out.append(record(method, "accuracy", float(accuracies.mean()), n, spread(accuracies)))
    return out


def spread(values: np.ndarray) -> tuple[float, float]:
    """5% and 95%."""
    low, high = np.percentile(values, [5, 95])
    return float(low), float(high)


def record(
    method: str, metric: str, value: float, n: int, span: tuple[float, float] | None = None
) -> dict[str, Any]:
    low, high = span or (None, None)
    return {
        "benchmark": BENCHMARK,
        "task": TASK,
        "method": method,
        "metric": metric,
        "value": value if math.isfinite(value) else None,
        "low": low,
        "high": high,
        "n": n,
    }


def scaling(options: argparse.Namespace) -> list[dict[str, Any]]:
    """How time grows with a child's multiply-adds and with the number of children."""
    archs, steps = sample(30, options.seed + 1), 20
    with tempfile.TemporaryDirectory() as home:
        alone = Contestant("ours", home)
        alone.answer(archs[:1], steps, 0)  # compiles
        times = [
            min(alone.answer(arch[None], steps, 0)["seconds"] for _ in range(2)) for arch in archs
        ]
        alone.close()
        out = [
            record("ours", "flops_correlation", np.corrcoef(common.mflops(archs), times)[0, 1], 30)
        ]
        print(f"one child after another: {sum(times):.1f} s", flush=True)
        for name, time in (("fastest", min(times)), ("slowest", max(times))):
            out.append(record("ours", f"child_seconds_{name}", time, 30))
        for n in (8, 32, 128):
            many = Contestant("ours", home)
            batch = np.tile(archs[:8], (n // 8, 1))
            many.answer(batch, 1, 0)  # compiles
            again = many.answer(batch, 5, 0)
            out.append(record("ours", f"seconds_per_child@{n}", again["seconds"] / n, n))
            out.append(record("ours", f"peak_mib@{n}", again["peak_mib"], n))
            print(f"{n} children: {again['seconds'] / n:.3f} s each", flush=True)
            many.close()
    return out


def table(records: list[dict[str, Any]]) -> str:
    """What is printed."""
    lines = [f"{'method':8} {'metric':28} {'value':>10}   5% .. 95%"]
    for r in records:
        span = "" if r["low"] is None else f"{r['low']:.4g} .. {r['high']:.4g}"
        value = "-" if r["value"] is None else f"{r['value']:.4g}"
        lines.append(f"{r['method']:8} {r['metric']:28} {value:>10}   {span}")
    figures = {(r["method"], r["metric"]): r["value"] for r in records}
    ours = {m: figures.get(("ours", "children_per_minute" + m)) for m in ("", "_warm")}
    for other in ("flax", "torch"):
        theirs = figures.get((other, "children_per_minute"))
        if theirs and ours[""]:
            ratios = {"empty": ours[""], "filled": ours["_warm"]}
            text = ", ".join(f"{v / theirs:.2f} ({k} cache)" for k, v in ratios.items() if v)
            lines.append(f"children per minute, ours / {other}: {text}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--children", type=int, default=24, help="architectures")
    parser.add_argument("--steps", type=int, default=60, help="training steps of each")
    parser.add_argument("--group", type=int, default=8, help="architectures between two turns")
    parser.add_argument("--seed", type=int, default=0, help="of the architectures")
    parser.add_argument(
        "--methods",
        default=",".join(CONTESTANTS),
        type=lambda text: [m for m in text.split(",") if m],
        help="contestants: ours, warm (ours with a filled cache; after ours), torch, flax",
    )
    parser.add_argument(
        "--flax_groups", type=int, default=10**6, help="groups that Flax, the slowest, trains"
    )
    parser.add_argument("--scaling", action="store_true", help="also how time and memory grow")
    parser.add_argument("--json", help="write the records there")
    options = parser.parse_args(arguments)
    unknown = set(options.methods) - set(CONTESTANTS)
    if unknown:
        parser.error(f"unknown methods {sorted(unknown)}; allowed are {', '.join(CONTESTANTS)}")
    records = compare(options) if options.methods else []
    records += scaling(options) if options.scaling else []
    print(table(records))
    if options.json:
        Path(options.json).write_text(json.dumps(records, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
