"""What a figure of a benchmark is: how it is summed up, written and printed.

A benchmark writes a list of flat records,

    {"benchmark": .., "task": .., "method": .., "metric": ..,
     "value": .., "low": .., "high": .., "median_low": .., "median_high": .., "n": ..}

where `low` and `high` are the 5% and 95% quantiles over the `n` repetitions of a figure, or null
where it has none. Repetitions are the seeds of a search; of what is timed, children or iterations,
each with a seed of its own. A quantile is the inverse of the distribution function: the smallest
value that a share q of the repetitions does not exceed. It is one of the values, so that "never",
infinity, needs no arithmetic; JSON has no infinity, and it is written as null. `median_low` and
`median_high` are an interval of at least 95% for the median over all repetitions that there could
be, whatever their distribution; null where the figure is no median, or of fewer than six.

Methods that start from the same seeds are compared seed by seed (`paired`): what all of them meet
in a seed, such as how hard it is, falls out of a difference.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from fnas_jax.core import stages
from fnas_jax.core.types import UserError

Record = dict[str, Any]
LOW, HIGH = 0.05, 0.95
UNKNOWN = (math.nan, math.nan)
RATIO, DIFFERENCE = "over", "minus"  # how two figures of a seed are compared


def quantile(values: Iterable[float], q: float) -> float:
    """The smallest of the values that a share `q` of them does not exceed; may be infinite.

    NaN where there are no values.
    """
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return float(ordered[max(0, math.ceil(q * len(ordered)) - 1)])


def median(values: Iterable[float]) -> float:
    """`quantile` of one half: of an even number of values, the lower of the middle two."""
    return quantile(values, 0.5)


def median_interval(values: Iterable[float], share: float = 0.95) -> tuple[float, float]:
    """Two of the values between which the distribution's median lies with at least `share`.

    The number of values below the median is binomial (n, 1/2). NaN where n is too small.
    """
    ordered = sorted(values)
    skip = int(stats.binom.ppf((1 - share) / 2, len(ordered), 0.5)) if ordered else 0
    if not skip:
        return UNKNOWN
    return float(ordered[skip - 1]), float(ordered[len(ordered) - skip])


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean; NaN where there are no values."""
    return statistics.fmean(values) if values else math.nan


def record(
    benchmark: str,
    task: str,
    method: str,
    metric: str,
    value: float,
    n: int = 1,
    span: tuple[float, float] = UNKNOWN,
    of_median: tuple[float, float] = UNKNOWN,
) -> Record:
    """A figure; `span`: its low and its high; `of_median`: the interval of a median."""
    low, high = span
    return {
        "benchmark": benchmark,
        "task": task,
        "method": method,
        "metric": metric,
        "value": finite(value),
        "low": finite(low),
        "high": finite(high),
        "median_low": finite(of_median[0]),
        "median_high": finite(of_median[1]),
        "n": n,
    }


def over_seeds(
    benchmark: str,
    task: str,
    method: str,
    metric: str,
    values: Iterable[float],
    value: float | Callable[[Sequence[float]], float] = median,
) -> Record:
    """A figure that each seed has: `value` of them, and their quantiles.

    NaN says that a seed has no such figure: it does not count. `value` may also be a number, where
    what all seeds have together is more than a summary of their figures.
    """
    known = [float(v) for v in np.asarray(list(values), np.float64) if not np.isnan(v)]
    summary = value(known) if callable(value) else value
    span = (quantile(known, LOW), quantile(known, HIGH))
    of_median = median_interval(known) if value is median else UNKNOWN
    return record(benchmark, task, method, metric, summary, len(known), span, of_median)


def paired(
    benchmark: str,
    task: str,
    method: str,
    metric: str,
    other: str,
    mine: Iterable[float],
    theirs: Iterable[float],
    how: str,
) -> list[Record]:
    """What sets a method apart from another one with the same seeds: two records.

    `METRIC_over_OTHER` (`how` is RATIO, less is better) is the median ratio of both figures of a
    seed, which is also the exponential of the median of their log ratios; `METRIC_minus_OTHER`
    (DIFFERENCE, more is better) the median of their differences.
    `METRIC_won_from_OTHER` is the share of seeds with the better figure; equal ones count half, and
    so two infinite ones. A pair with a NaN does not count. Raises ValueError for unequal lengths.
    """
    pairs = [(float(a), float(b)) for a, b in zip(mine, theirs, strict=True)]
    pairs = [pair for pair in pairs if not any(map(math.isnan, pair))]
    apart = [_apart(a, b, how) for a, b in pairs]
    gains = [(b - a if how == RATIO else a - b) if a != b else 0.0 for a, b in pairs]
    won = [0.5 * (1 + math.copysign(gain != 0, gain)) for gain in gains]
    names = (benchmark, task, method)
    return [
        over_seeds(*names, f"{metric}_{how}_{other}", apart),
        record(*names, f"{metric}_won_from_{other}", mean(won), len(won)),
    ]


def _apart(mine: float, theirs: float, how: str) -> float:
    if how == DIFFERENCE:
        return mine - theirs if mine != theirs else 0.0
    if mine == theirs:
        return 1.0
    return mine / theirs if theirs else math.inf


def finite(value: float) -> float | None:
    """What JSON can hold: null for infinity and NaN."""
    return float(value) if math.isfinite(value) else None


def write(path: str | None, found: list[Record]) -> None:
    """Writes the records to the file, where one is named."""
    if path:
        Path(path).write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")


def check_writable(path: str | None) -> None:
    """Raises OSError where no file can be written there; what stands there stays as it is."""
    if path:
        new = not Path(path).exists()
        with Path(path).open("a"):
            pass
        if new:
            Path(path).unlink()


def text(value: float | None, form: str = ".4g", none: str = "-") -> str:
    """A number of a record for people."""
    return none if value is None else f"{value:{form}}"


def lines(found: list[Record]) -> list[str]:
    """A table of the records, without `benchmark`."""
    rows = [("task", "method", "metric", "value", "5% .. 95%")]
    for r in found:
        span = "" if r["low"] is None else f"{text(r['low'])} .. {text(r['high'])}"
        rows.append((r["task"], r["method"], r["metric"], text(r["value"]), span))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return ["  ".join([*map(str.ljust, row[:4], widths), row[4]]).rstrip() for row in rows]


# ---- the command line


def parser(doc: str | None, name: str) -> argparse.ArgumentParser:
    """What every benchmark takes; `doc` and `name` are those of its module."""
    made = argparse.ArgumentParser(
        prog=f"python -m {name}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--json", help="write the records there")
    return made


def add_names(
    made: argparse.ArgumentParser, flag: str, names: Iterable[str], doc: str = ""
) -> None:
    """A flag of names joined by commas, such as --methods; default: `names`."""
    made.add_argument(
        flag,
        default=list(names),
        type=lambda joined: [name for name in joined.split(",") if name],
        help=f"{doc}{'; ' if doc else ''}joined by commas",
    )


def add_data(made: argparse.ArgumentParser) -> None:
    """The folder of the tables."""
    shared = Path(__file__).resolve().parents[3] / "shared" / "data"
    data = os.environ.get("FNAS_DATA", str(shared))
    made.add_argument("--data", default=data, help="folder of the tables (FNAS_DATA)")


def check_names(
    made: argparse.ArgumentParser, what: str, given: list[str], allowed: Iterable[str]
) -> None:
    """Ends the command with exit code 2 at a name that is not allowed."""
    allowed = list(allowed)
    for name in given:
        if name not in allowed:
            made.error(f"unknown {what} {name!r}; allowed are {', '.join(allowed)}")


def check_packages(methods: Sequence[str], packages: Mapping[str, str]) -> None:
    """Raises UserError for a contestant whose package of `packages` is missing."""
    for name in methods:
        package = packages.get(name)
        if package and importlib.util.find_spec(package) is None:
            others = ",".join(n for n in methods if n not in packages)
            raise UserError(
                f"the contestant {name} needs the package {package}, which is missing;"
                f" pip install fnas-jax[torch] brings it, and --methods {others} does without"
            )


def check_least(
    made: argparse.ArgumentParser, options: argparse.Namespace, least: float, *flags: str
) -> None:
    """Ends the command with exit code 2 where one of the numbers is below `least`."""
    for flag in flags:
        if getattr(options, flag) < least:
            made.error(f"--{flag} is {getattr(options, flag)}; it must be at least {least:g}")


def main(options: argparse.Namespace, run: Callable[[], list[Record]]) -> int:
    """Measures with `run`, prints and writes the records; the exit code.

    An unwritable --json is refused before the work. That, and any other wrong input that `run`
    finds, ends in one sentence and exit code 2.
    """
    try:
        check_writable(options.json)
        with stages.running():
            found = run()
        print(*lines(found), sep="\n")
        write(options.json, found)
    except (UserError, OSError) as error:
        return fail(error)
    return 0


def fail(error: Exception) -> int:
    """Says in one line what was wrong with the input; the exit code."""
    print(f"error: {error}", file=sys.stderr)
    return 2
