"""What FNAS itself costs beside the training that it saves.

    python -m experiments.benchmarks.method_overhead --json OUT

Milliseconds of ask and tell together, after compilation, on NAS-Bench-Macro's space with made-up
rewards; and seconds of 100 searches of 500 proposals side by side, as `sample_efficiency` runs
them, on a table of the same space.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import sample_efficiency
from fnas_jax.core.types import Metrics
from fnas_jax.methods.fnas import method as fnas
from fnas_jax.methods.fnas.config import Config, Uac
from fnas_jax.spaces import base, macro
from fnas_jax.tasks.tables import Table

BENCHMARK = "method_overhead"
SPACE = macro.make()


def accuracy(archs: jax.Array) -> jax.Array:
    """[N] made-up values in 0..1 with terms of one and of two decisions."""
    share = (archs == jnp.arange(8) % 3).mean(axis=-1)
    return 0.5 + 0.4 * share + 0.1 * (archs[..., 0] == archs[..., 7])


def milliseconds(batch: int, members: int, iterations: int) -> list[float]:
    """Of ask and tell together, iteration by iteration, of the defaults with this batch."""
    config = Config(batch=batch, uac=Uac(members=members))
    method = fnas.make(SPACE, config)
    state = method.init(jax.random.key(0))
    ask, tell = jax.jit(method.ask), jax.jit(method.tell)
    times = []
    for i in range(iterations + 1):
        start = time.perf_counter()
        state, proposal = jax.block_until_ready(ask(state, jax.random.key(i)))
        asked = time.perf_counter() - start
        reward = accuracy(proposal.archs).astype(jnp.float32)
        nan = jnp.full(batch, jnp.nan)
        mask = proposal.train_mask
        answer = Metrics(reward, reward, nan, nan, nan, jnp.zeros(batch), mask, mask)
        start = time.perf_counter()
        state = jax.block_until_ready(tell(state, proposal, answer))
        times.append(1000 * (asked + time.perf_counter() - start))
    return times[1:]  # the first one compiled


def searches(seeds: int, proposals: int) -> float:
    """Seconds of `seeds` searches of FNAS as `sample_efficiency` sets it, after compilation."""
    archs = base.enumerate_all(SPACE)
    values = np.asarray(accuracy(jnp.asarray(archs)), np.float32)
    nan = np.full(len(archs), np.nan, np.float32)
    table = Table("made up", SPACE, archs, values, values[:, None], nan, nan, nan, "made up")
    preset = sample_efficiency.PRESETS["fnas"]
    iterations = -(-proposals // sample_efficiency.FNAS.batch)
    return sample_efficiency.measure(table, preset._replace(iterations=iterations), seeds).seconds


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--proposals", type=int, default=500)
    parser.add_argument("--json", help="write the records there")
    options = parser.parse_args(arguments)
    if min(options.iterations, options.seeds, options.proposals) < 1:
        parser.error("--iterations, --seeds and --proposals must be at least 1")
    out: list[dict[str, Any]] = []

    def record(task: str, metric: str, values: list[float]) -> None:
        value, low, high = statistics.median(values), min(values), max(values)
        print(f"{task:<28}{metric:<14}{value:9.2f}   {low:.2f} .. {high:.2f}", flush=True)
        figures = {"value": value, "low": low, "high": high, "n": len(values)}
        out.append({"benchmark": BENCHMARK, "task": task, "method": "fnas", "metric": metric})
        out[-1].update(figures)

    for batch, members in ((32, 5), (8, 8)):
        record(
            f"batch {batch}, {members} members",
            "iteration_ms",
            milliseconds(batch, members, options.iterations),
        )
    name = f"{options.seeds} x {options.proposals} proposals"
    record(name, "seconds", [searches(options.seeds, options.proposals)])
    if options.json:
        Path(options.json).write_text(json.dumps(out, indent=1, allow_nan=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
