"""Searches on synthetic landscapes: does a method that is good on three tables hold elsewhere?

    python -m experiments.benchmarks.landscapes --json OUT

Landscapes are NK models (Kauffman & Weinberger, Journal of Theoretical Biology 1989): a network's
value is the mean over its T decisions of numbers drawn from a normal distribution, one for every
combination of the decision and K others. K=0 is additive, K=T-1 as rugged as can be. `sizes` are
decisions in order: gains that saturate together, and a part of every network
that nothing predicts. A reading adds normal noise whose deviation is a multiple (`~0`, `~0.5`,
`~1`) of that of the true values among the top 0.1%. Every seed searches a landscape of its own, and
all methods of a seed the same one, so that differences are paired.

Reported: evaluations until one of the top 0.1% is trained, as `sample_efficiency` has it, and the
share of seeds that arrive within `--evaluations`; those that do not count as infinite.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import records
from experiments.benchmarks.progress import followed, say
from experiments.benchmarks.records import Record
from fnas_jax import scan
from fnas_jax.core.rows import first_equal
from fnas_jax.core.types import Array, Metrics
from fnas_jax.methods.base import SearchMethod
from fnas_jax.methods.baselines import evolution, gp, local, random
from fnas_jax.methods.baselines.config import Evolution, Gp
from fnas_jax.methods.fnas import method as fnas
from fnas_jax.methods.fnas.config import Aeb, Config
from fnas_jax.spaces import categorical
from fnas_jax.spaces.base import Space
from fnas_jax.tasks.base import Evaluator

BENCHMARK = "landscapes"
DRAWN = 2**17  # random networks whose values say where the top begins
TOP = 0.001


class Kind(NamedTuple):
    """T decisions of k choices each."""

    decisions: int
    choices: int
    others: int | None  # K of the NK model; None: sizes


KINDS = {
    "sizes_5x9": Kind(5, 9, None),
    "sizes_12x4": Kind(12, 4, None),
    "nk0_10x3": Kind(10, 3, 0),
    "nk1_8x4": Kind(8, 4, 1),
    "nk3_6x5": Kind(6, 5, 3),
    "nk2_15x3": Kind(15, 3, 2),
    "nk1_25x3": Kind(25, 3, 1),
}
NOISES = (0.0, 0.5, 1.0)
UNPREDICTABLE = 0.25  # deviation of what nothing predicts of `sizes`; of the rest about 2


class Landscape(NamedTuple):
    """What sets one landscape of a kind apart from others."""

    numbers: Array  # [T, k^(K+1)] of an NK model; [T] weights of sizes
    others: Array  # [T, K] int32 decisions that decision t works together with
    seed: Array  # [] uint32 of what nothing predicts
    middle: Array  # [] mean of values,
    std: Array  # [] and their deviation
    least: Array  # [] value, standardised, where the top begins
    noise: Array  # [] deviation of a reading


def draw(kind: Kind, noise: float, key: Array) -> Landscape:
    """A landscape whose readings have `noise` times the deviation of the top."""
    key_numbers, key_others, key_seed, key_archs = jax.random.split(key, 4)
    t, k, others = kind
    if others is None:
        numbers = jax.random.uniform(key_numbers, (t,), minval=0.3, maxval=1.5)
        with_whom = jnp.zeros((t, 0), jnp.int32)
    else:
        numbers = jax.random.normal(key_numbers, (t, k ** (others + 1)))
        keys = jax.random.split(key_others, t)
        step = jax.vmap(lambda key: 1 + jax.random.permutation(key, t - 1)[:others])(keys)
        with_whom = (jnp.arange(t)[:, None] + step) % t
    zero, one = jnp.float32(0), jnp.float32(1)
    raw = Landscape(numbers, with_whom, jax.random.bits(key_seed), zero, one, zero, zero)
    values = value(kind, raw, jax.random.randint(key_archs, (DRAWN, t), 0, k))
    scaled = (values - values.mean()) / values.std()
    # Two programs round one value differently.
    least = jnp.quantile(scaled, 1 - TOP) - 1e-4
    top = scaled >= least
    inside = jnp.where(top, scaled, 0.0).sum() / top.sum()
    spread = jnp.sqrt(jnp.where(top, (scaled - inside) ** 2, 0.0).sum() / top.sum())
    return raw._replace(middle=values.mean(), std=values.std(), least=least, noise=noise * spread)


def value(kind: Kind, land: Landscape, archs: Array) -> Array:
    """[n] float32 true values of `archs` [n, T]: of deviation 1 over the space."""
    t, k, others = kind
    if others is None:
        levels = jnp.log((jnp.arange(k) + 1) / k + 0.15)
        levels = (levels - levels.mean()) / levels.std()
        smooth = levels[archs] @ land.numbers / jnp.linalg.norm(land.numbers)
        found = -jnp.exp(-smooth) + UNPREDICTABLE * _chance(land.seed, archs)
    else:
        together = jnp.concatenate([jnp.arange(t)[:, None], land.others], axis=1)
        place = (archs[:, together] * k ** jnp.arange(others + 1)).sum(axis=-1)
        found = land.numbers[jnp.arange(t), place].mean(axis=1)
    return (found - land.middle) / land.std


def _chance(seed: Array, archs: Array) -> Array:
    """[n] standard normal numbers, always the same of one network."""

    def one(arch: Array) -> Array:
        key = jax.lax.fori_loop(
            0, len(arch), lambda t, key: jax.random.fold_in(key, arch[t]), jax.random.key(seed)
        )
        return jax.random.normal(key)

    return jax.vmap(one)(archs)


# ---- searches


class Known(NamedTuple):
    """What was read so far."""

    archs: Array  # [C, T] int32; -1 in free places
    reading: Array  # [C] float32
    count: Array  # [] int32


def evaluator(kind: Kind, land: Landscape, capacity: int) -> Evaluator:
    """Readings of a landscape, of at most `capacity` networks."""
    archs = jnp.full((capacity, kind.decisions), -1, jnp.int32)
    start = Known(archs, jnp.zeros(capacity, jnp.float32), jnp.int32(0))
    return Evaluator(lambda: start, partial(evaluate, kind, land), jittable=True)


def evaluate(
    kind: Kind, land: Landscape, known: Known, archs: Array, mask: Array, key: Array
) -> tuple[Known, Metrics]:
    """As `Evaluator.evaluate`."""
    n = len(archs)
    reading = value(kind, land, archs) + land.noise * jax.random.normal(key, (n,))
    first = first_equal(archs, mask)
    same = jnp.all(archs[:, None] == known.archs, axis=-1)
    seen = same.any(axis=1)
    reading = jnp.where(seen, known.reading[same.argmax(axis=1)], reading[first])
    fresh = mask & ~seen & (first == jnp.arange(n))
    slot = jnp.where(fresh, known.count + jnp.cumsum(fresh) - 1, len(known.reading))
    known = Known(
        known.archs.at[slot].set(archs, mode="drop"),
        known.reading.at[slot].set(reading, mode="drop"),
        known.count + fresh.sum(dtype=jnp.int32),
    )
    reward = jnp.where(mask, reading, 0.0)
    nan = jnp.full(n, jnp.nan, jnp.float32)
    return known, Metrics(reward, reward, nan, nan, nan, jnp.zeros(n), mask, fresh)


class Preset(NamedTuple):
    """A method by the product's defaults, for a number of evaluations; and how many it makes in an
    iteration at least.
    """

    make: Callable[[Space, int], SearchMethod]
    batch: int = 1


PRESETS = {
    "random": Preset(lambda space, n: random.make(space, batch=10), 10),
    "evolution": Preset(lambda space, n: evolution.make(space, Evolution(), batch=1)),
    "local": Preset(lambda space, n: local.make(space, batch=1)),
    "gp_ei": Preset(lambda space, n: gp.make(space, Gp(), batch=1, capacity=n)),
    "fnas": Preset(lambda space, n: fnas.make(space, Config(batch=8, aeb=Aeb(capacity=n)))),
}


def search(kind: Kind, noise: float, preset: Preset, evaluations: int, key: Array) -> Array:
    """[] evaluations until a top network was read in a search of a landscape, both of the key."""
    key_land, key_search = jax.random.split(key)
    land = draw(kind, noise, key_land)
    space = categorical.make((kind.choices,) * kind.decisions)
    on = evaluator(kind, land, 2 * evaluations)
    method = preset.make(space, evaluations)
    _, _, trace = scan.run(method, on, key_search, -(-evaluations // preset.batch))
    values = value(kind, land, trace.archs.reshape(-1, kind.decisions)).reshape(trace.ok.shape)
    return scan.progress(trace, values, values >= land.least).hit


def measure(
    kind: Kind, noise: float, preset: Preset, evaluations: int, seeds: int, first: int
) -> np.ndarray:
    """[seeds] float64 evaluations until the top; infinite where there were more than asked for."""
    keys = jax.vmap(jax.random.key)(first + jnp.arange(seeds))
    run = jax.jit(lambda keys: jax.lax.map(partial(search, kind, noise, preset, evaluations), keys))
    found = np.asarray(run(keys), np.float64)
    return np.where((found < 0) | (found > evaluations), np.inf, found)


def run(options: argparse.Namespace) -> list[Record]:
    """Measures and prints every method on every landscape. Returns all records."""
    found: list[Record] = []
    print(f"{'landscape':<18}{'method':<12}median     5% .. 95%  reached  seconds")
    turns = itertools.product(options.kinds, options.noises, options.methods)
    for name, noise, method in followed(BENCHMARK, turns, lambda t: f"{t[0]}~{t[1]:g}, {t[2]}"):
        task, start = f"{name}~{noise:g}", time.perf_counter()
        hits = measure(
            KINDS[name],
            noise,
            PRESETS[method],
            options.evaluations,
            options.seeds,
            options.first,
        )
        names = (BENCHMARK, task, method)
        hit = records.over_seeds(*names, "evals_to_top0.1pct", hits)
        reached = float(np.isfinite(hits).mean())
        found += [hit, records.record(*names, "reached", reached, len(hits))]
        number = partial(records.text, form=".0f", none="inf")
        say(
            f"{task:<18}{method:<12}{number(hit['value']):>6} {number(hit['low']):>6} .."
            f"{number(hit['high']):>5} {reached:8.2f} {time.perf_counter() - start:8.1f}"
        )
    return found


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    parser = records.parser(__doc__, __spec__.name)
    records.add_names(parser, "--kinds", KINDS)
    records.add_names(parser, "--methods", PRESETS)
    parser.add_argument("--noises", type=float, nargs="+", default=list(NOISES))
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first", type=int, default=0, help="number of the first seed")
    parser.add_argument("--evaluations", type=int, default=300)
    options = parser.parse_args(arguments)
    records.check_names(parser, "kind", options.kinds, KINDS)
    records.check_names(parser, "method", options.methods, PRESETS)
    records.check_least(parser, options, 1, "seeds", "evaluations")
    if min(options.noises) < 0:
        parser.error(f"--noises has {min(options.noises)}; 0 is the least")
    try:
        records.write(options.json, [])  # an unwritable place shows before the work
    except OSError as error:
        return records.fail(error)
    records.write(options.json, run(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
