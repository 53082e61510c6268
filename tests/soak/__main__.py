"""Brings about faults, and prints which there were, how often, and what became of the searches.

    python -m tests.soak [--only kill,damage] [--repeat 6] [--seed 0]

`kill`: SIGKILL at random moments of searches by every method; `signals`: SIGTERM and Ctrl-C, which
also meet programs that begin; `writes`: SIGKILL within single writes; `damage`: files of a workdir
and a store, damaged; `together`: searches and commands on one store; `disk`: full or read-only,
where this process may mount. Exits with 1 where an outcome is not what docs/reliability.md
promises, which begins with WRONG.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import pathlib
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence

from tests import conftest  # noqa: F401  sets what XLA reads before JAX is loaded

PARTS = ("kill", "signals", "writes", "damage", "together", "disk")
Case = tuple[str, str]  # (fault, outcome)


def cases(part: str, place: pathlib.Path, options: argparse.Namespace) -> Iterable[Case]:
    """Those of one of PARTS, each of which is imported when it is wanted."""
    if part in ("kill", "signals"):
        from tests.soak import kill, signals

        names = options.searches or kill.NAMES
        if part == "kill":
            return kill.cases(place, [signal.SIGKILL] * options.repeat, options.seed, names)
        pair = (signal.SIGTERM, signal.SIGINT)
        ways = list(itertools.islice(itertools.cycle(pair), options.signals))
        found = kill.cases(place, ways, options.seed, names)
        begins = () if options.searches else signals.cases(place, options.seed)
        return itertools.chain(found, begins)
    if part == "writes":
        from tests.soak import writes

        chosen = [name for name in writes.SEARCHES if name in (options.searches or name)]
        return writes.cases(place, options.seed, chosen=chosen)
    if part == "damage":
        from tests.soak import damage

        return damage.cases(place)
    if part == "together":
        from tests.soak import together

        return together.cases(place)
    from tests.soak import disk

    return disk.cases(place)


def table(found: Iterable[Case]) -> list[str]:
    """A line for each fault and outcome, with how often it was so."""
    counts = collections.Counter(found)
    rows = [("fault", "times", "outcome")]
    rows += [(fault, str(n), outcome) for (fault, outcome), n in counts.items()]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return [f"{f:<{widths[0]}}  {n:>{widths[1]}}  {outcome}" for f, n, outcome in rows]


def wrong(found: Iterable[Case]) -> int:
    """How many outcomes are not as promised."""
    return sum(outcome.startswith("WRONG") for _, outcome in found)


def run(options: argparse.Namespace, say: Callable[[str], object]) -> list[Case]:
    """All cases, each told as soon as it is known."""
    found: list[Case] = []
    with tempfile.TemporaryDirectory() as scratch:
        for part in options.only:
            # What is killed and what is told to end are the same searches, which are made once.
            name = "kill" if part == "signals" else part
            place, began = pathlib.Path(scratch) / name, time.monotonic()
            place.mkdir(exist_ok=True)
            for fault, outcome in cases(part, place, options):
                found.append((fault, outcome))
                say(f"{part} {time.monotonic() - began:.0f} s: {fault}: {outcome}")
    return found


def unknown_searches(names: Sequence[str], parts: Sequence[str]) -> str:
    """What is wrong with the `names` of searches for these parts; "" where nothing is."""
    if not names:
        return ""
    from tests.soak import kill, writes

    for name in names:
        if name not in kill.NAMES:
            return f"unknown search {name!r}; allowed are {', '.join(kill.NAMES)}"
    if "writes" in parts and not set(names) & set(writes.SEARCHES):
        return f"writes is of {', '.join(writes.SEARCHES)} only; leave it out by --only"
    return ""


def main(arguments: list[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default=",".join(PARTS), type=lambda text: text.split(","))
    parser.add_argument("--repeat", type=int, default=6, help="SIGKILLs of each search")
    parser.add_argument("--signals", type=int, default=4, help="SIGTERMs and Ctrl-Cs of each")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument(
        "--searches",
        default=[],
        type=lambda text: text.split(","),
        help="that are killed or told to end, METHOD-tables, METHOD-images, meta-train; else all",
    )
    options = parser.parse_args(arguments)
    for name in options.only:
        if name not in PARTS:
            parser.error(f"unknown part {name!r}; allowed are {', '.join(PARTS)}")
    unknown = unknown_searches(options.searches, options.only)
    if unknown:
        parser.error(unknown)
    found = run(options, lambda line: print(line, file=sys.stderr, flush=True))
    print(*table(found), sep="\n")
    print(f"{len(found)} faults, {wrong(found)} outcomes not as promised")
    return 1 if wrong(found) else 0


if __name__ == "__main__":
    sys.exit(main())
