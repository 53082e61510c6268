"""Memory of two children of the full MNAS space on photographs: this package and PyTorch.

    python -m experiments.benchmarks.children_memory --side 224 --json OUT

All train the same two of 64 random architectures (that of middle cost and the costliest), a few
steps, and judge 256 images. Ours are two at once in one process, `ours_bf16` by
`children.backend=kernels_bf16`; PyTorch's have a process and a
thread each, at the same time, and `peak_mib` is that of both. It holds what a process has before
(`idle_mib`: interpreter and libraries); `compiling_mib` is ours until the program is compiled, with
`--cache` folder of compiled programs filled by an earlier run the time that it takes to read it.
`reserved_mib` is what XLA's `memory_analysis()` says of a device: room for the widest child, of
which pages that a child does not use are never touched.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

from experiments.benchmarks import records
from experiments.benchmarks.progress import followed
from experiments.benchmarks.records import Record
from experiments.benchmarks.throughput import photographs
from fnas_jax.layers.choose import choose

BENCHMARK = "children_memory"
PACKAGES = {"torch": "torch"}


def begin(method: str, child: int, options: argparse.Namespace) -> subprocess.Popen:
    """A contestant at work."""
    numbers = map(str, (options.side, options.batch, options.steps, child))
    own = {"PYTHONWARNINGS": "ignore", "TF_CPP_MIN_LOG_LEVEL": "3"}
    if options.cache:
        own["JAX_COMPILATION_CACHE_DIR"] = options.cache
    command = [sys.executable, "-m", "experiments.benchmarks.throughput.photographs", method]
    return subprocess.Popen(
        [*command, *numbers], stdout=subprocess.PIPE, text=True, env=os.environ | own
    )


def measure(method: str, options: argparse.Namespace) -> dict[str, float]:
    """{figure: MiB} of all processes of a contestant; RuntimeError where one fails."""
    count = photographs.CHILDREN if method == "torch" else 1
    running = [begin(method, child, options) for child in range(count)]
    total: dict[str, float] = {}
    for process in running:
        text = process.communicate()[0]
        if process.returncode:
            raise RuntimeError(f"a contestant ({method}) ended with exit code {process.returncode}")
        for name, value in json.loads(text.splitlines()[-1]).items():
            total[name] = total.get(name, 0.0) + value
    return total


def run(options: argparse.Namespace) -> list[Record]:
    """The peaks of all contestants, one after another.

    Raises UserError without PyTorch, and where a CPU without products of bfloat16 numbers has to.
    """
    records.check_packages(options.methods, PACKAGES)
    if "ours_bf16" in options.methods:
        choose("kernels_bf16")  # or says why not
    task, found = f"{options.side}x{options.side}, batch {options.batch}", []
    peaks = {}
    for method in followed(BENCHMARK, options.methods):
        figures = measure(method, options)
        peaks[method] = figures["peak"]
        for name, value in figures.items():
            count = photographs.CHILDREN
            found.append(records.record(BENCHMARK, task, method, f"{name}_mib", value, count))
    if "torch" in peaks:
        for method in [name for name in peaks if name != "torch"]:
            print(f"peak memory, {method} / torch: {peaks[method] / peaks['torch']:.2f}")
    return found


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = records.parser(__doc__, __spec__.name)
    parser.add_argument("--side", type=int, default=224, help="pixels of an image's side")
    parser.add_argument("--batch", type=int, default=32, help="images of a training step")
    parser.add_argument("--steps", type=int, default=4, help="training steps of a child")
    parser.add_argument("--cache", default="", help="folder of compiled programs")
    usual = [name for name in photographs.METHODS if not name.endswith("_bf16")]
    records.add_names(parser, "--methods", usual, f"of {', '.join(photographs.METHODS)}")
    options = parser.parse_args(arguments)
    records.check_names(parser, "method", options.methods, photographs.METHODS)
    records.check_least(parser, options, 1, "side", "batch", "steps")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    options = parse(arguments)
    return records.main(options, lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
