"""What FNAS itself costs beside the training that it saves.

    python -m experiments.benchmarks.method_overhead --json OUT

Milliseconds of ask and tell together, after compilation, on NAS-Bench-Macro's space with made-up
rewards, with 5% and 95% of the iterations (`iteration_cpu_ms`: of processor time, which other
programs disturb less); and seconds of 100 searches of 500 proposals side by side, as
`sample_efficiency` runs them, on a table of the same space.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import records
from experiments.benchmarks.presets import FNAS, PRESETS
from experiments.benchmarks.progress import followed
from experiments.benchmarks.records import Record
from experiments.benchmarks.table_search import measure
from fnas_jax.core import stages
from fnas_jax.core.sections import Features
from fnas_jax.core.types import Metrics
from fnas_jax.methods.fnas import method as fnas
from fnas_jax.methods.fnas.config import Config, Uac
from fnas_jax.spaces import base, macro
from fnas_jax.spaces.base import Space
from fnas_jax.tasks import features, table_features
from fnas_jax.tasks.tables import Table

BENCHMARK = "method_overhead"


def accuracy(archs: jax.Array) -> jax.Array:
    """[N] made-up values in 0..1 with terms of one and of two decisions."""
    share = (archs == jnp.arange(8) % 3).mean(axis=-1)
    return 0.5 + 0.4 * share + 0.1 * (archs[..., 0] == archs[..., 7])


def space() -> Space:
    """NAS-Bench-Macro's, with what the product's defaults let methods know of its networks."""
    plain = macro.make()
    return plain._replace(
        features=features.of_networks(
            Features(), plain, table_features.IMAGE, table_features.CLASSES
        )
    )


class Times(NamedTuple):
    """Milliseconds of ask and tell together, iteration by iteration."""

    wall: list[float]
    cpu: list[float]  # of this process


def milliseconds(batch: int, critic: Uac, iterations: int) -> Times:
    """Of the defaults with this batch."""
    config = Config(batch=batch, uac=critic)
    method = fnas.make(space(), config)
    state = method.init(jax.random.key(0))
    ask, tell = jax.jit(method.ask), jax.jit(method.tell)
    times = []
    for i in range(iterations + 1):
        key, start = jax.random.key(i), clocks()
        state, proposal = jax.block_until_ready(ask(state, key))
        asked = clocks() - start
        reward = accuracy(proposal.archs).astype(jnp.float32)
        nan = jnp.full(batch, jnp.nan)
        mask = proposal.train_mask
        answer = Metrics(reward, reward, nan, nan, nan, jnp.zeros(batch), mask, mask)
        jax.block_until_ready(answer)
        start = clocks()
        state = jax.block_until_ready(tell(state, proposal, answer))
        times.append(1000 * (asked + clocks() - start))
    wall, cpu = np.transpose(times[1:]).tolist()  # the first one compiled
    return Times(wall, cpu)


def clocks() -> np.ndarray:
    """[2] seconds, of the clock and of this process."""
    return np.array([time.perf_counter(), time.process_time()])


def searches(seeds: int, proposals: int) -> float:
    """Seconds of `seeds` searches of FNAS as `sample_efficiency` sets it, after compilation."""
    of_macro = space()
    archs = base.enumerate_all(of_macro)
    values = np.asarray(accuracy(jnp.asarray(archs)), np.float32)
    nan = np.full(len(archs), np.nan, np.float32)
    table = Table("made up", of_macro, archs, values, values[:, None], nan, nan, nan, "made up")
    preset = PRESETS["fnas"]._replace(iterations=-(-proposals // FNAS.batch))
    return measure(table, preset, seeds).seconds


def run(options: argparse.Namespace) -> list[Record]:
    """Two batches and two critics iteration by iteration, then searches side by side."""
    found: list[Record] = []
    networks = Uac(uncertainty="ensemble", members=5)
    cases = ((32, Uac(), "gp"), (8, Uac(), "gp"), (32, networks, "ensemble of 5"))
    for batch, critic, name in followed(BENCHMARK, cases, lambda c: f"batch {c[0]}, {c[2]}"):
        task = f"batch {batch}, {name}"
        times = milliseconds(batch, critic, options.iterations)
        for metric, values in (("iteration_ms", times.wall), ("iteration_cpu_ms", times.cpu)):
            found.append(records.over_seeds(BENCHMARK, task, "fnas", metric, values))
    task = f"{options.seeds} x {options.proposals} proposals"
    with stages.at(f"{task} of FNAS, side by side"):
        seconds = searches(options.seeds, options.proposals)
    found.append(records.record(BENCHMARK, task, "fnas", "seconds", seconds))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    parser = records.parser(__doc__, __spec__.name)
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--proposals", type=int, default=500)
    options = parser.parse_args(arguments)
    records.check_least(parser, options, 1, "iterations", "seeds", "proposals")
    return records.main(options, lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
